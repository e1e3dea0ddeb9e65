// One worker's network: its blocks in memory, forward and backward through all layers, what is observed on the way.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "draws.hpp"
#include "head.hpp"
#include "layer.hpp"

namespace pykernel {

// How many layers' blocks lie in memory together, and what that takes in elements. With one segment nothing is computed twice.
struct Extent {
  int64_t length;      // layers of a segment
  int64_t size;        // of the largest segment
  int64_t checkpoint;  // of all checkpoints
};
Extent extent_of(const Plan& plan, int copies, int64_t element_bytes, int64_t bytes);
// Bytes of the blocks and Gram matrices that are stored so.
int64_t bytes_of(const Plan& plan, const Extent& extent, int copies, int64_t element_bytes);

struct Segments {
  Extent extent;
  Vector<int64_t> starts;   // first layer of each segment, from 1
  Vector<int64_t> offsets;  // of each layer's block within its segment, in elements
};
Segments segments_of(const Plan& plan, const Extent& extent);
// Bytes of a worker's blocks where as little as possible is stored.
int64_t least_bytes(const Plan& plan, int copies, int64_t element_bytes);

template <class T> class Network {
 public:
  Network(const Plan& plan, Linear<T>& linear, Team& team, int64_t bytes);
  // Runs one replica and writes its rows at `index` of the arrays.
  void replica(int64_t replica, const Rows& rows, int64_t index);

 private:
  struct Stored {  // what the backward pass needs of a layer
    int64_t exponent;
    double largest, *gram;
    int64_t gram_exponent, input_exponent;
    double input_largest;
    double* moving;  // Gram matrix of the input without its batch mean, where only that moves the weight gradient
    int64_t moving_exponent;
  };
  enum Pass { first_pass, again };

  Tall address(Purpose purpose, int64_t layer, TallDraw draw = TallDraw::normal) const {
    return {plan_.seed, (uint32_t)purpose, (uint32_t)layer, (uint32_t)replica_, draw};
  }
  void input();
  void forward(int64_t layer, Pass pass, const Rows& rows, int64_t index);
  double objective();
  void backward(int64_t layer, const Rows& rows, int64_t index);
  Measure linear(int64_t layer, const Block<T>& u, const double* gram, Block<T>& z);
  void checkpoint(size_t segment);
  void resume(size_t segment);
  void keep(int64_t layer, const Block<T>& u);
  void centre(const Block<T>& x, Block<T>& out);
  void gram(const Block<T>& x, const Measure& measure, double* out, int64_t* exponent);
  void gram_of_uneven(const Block<T>& x, double* out) const;
  double similarity(const double* gram) const;
  double log2_clipped_weight(const Block<T>& delta, const Block<T>& u);
  double log2_clipped_bias(const Block<T>& delta);
  Block<T> stored(int64_t layer) const;
  Block<T> stored_input(int64_t layer) const;
  bool joins(int64_t layer) const { return plan_.residual_every && layer % plan_.residual_every == 0; }
  int64_t width(int64_t layer) const { return plan_.widths[layer]; }

  const Plan& plan_;
  Linear<T>& linear_;
  Team& team_;
  const int64_t B_, L_;
  const bool keep_inputs_, moving_;
  Segments segments_;
  Layer<T> layer_;
  Head<T> head_;
  int64_t replica_ = 0;
  Vector<Buffer<T>> buffers_;
  Buffer<T> store_, inputs_, checkpoints_;
  Block<T> a_, skip_, z_, h_, u_, g_, dz_, dh_, skip_g_;  // g_: dJ/da
  Vector<T> bias_;
  Vector<Stored> layers_;
  Vector<double> grams_, moving_grams_, gram_a_, gram_delta_, gram_parts_;
  int64_t gram_a_exponent_ = 0;
  double g_norm_ = 0;  // log2 of dJ/da's norm
  Vector<Block<T>> checkpoint_a_, checkpoint_skip_;
};

}  // namespace pykernel
