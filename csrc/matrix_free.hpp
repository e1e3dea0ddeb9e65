// The matrix-free operator: W u and W^T delta drawn from their exact joint law, for Gaussian and Haar weights, without
// W. SPDX-License-Identifier: BSD-3-Clause
//
// pykernel/engines/reference_matrix_free.py is the definition, docs/matrix-free.md the derivation. A weight of one
// layer is asked twice, forward and back, and nothing of it is kept in between: the factor of u is made again from its
// Gram matrix, the normals from their addresses. A shared one has an oracle, which keeps what it was asked.
#pragma once
#include <stdint.h>

#include <functional>
#include <memory>
#include <optional>

#include "dense.hpp"
#include "factor.hpp"
#include "inner.hpp"
#include "kernels/matrix_free.hpp"
#include "kernels/weights.hpp"
#include "memory.hpp"
#include "oracle.hpp"
#include "run.hpp"
#include "single.hpp"

namespace pykernel {

// Cost a layer: about 6 n B^2 multiply-adds, a third of them in double precision, and 3 n B normals.
template <class T> class MatrixFreeLinear final : public Linear<T> {
 public:
  explicit MatrixFreeLinear(const Program& program);
  // What one takes of a workspace, and of a thread's scratch.
  static int64_t bytes(const Program& program);
  static int64_t scratch_bytes(const Program& program);

  bool needs_input() const override { return true; }
  bool gram(const Block<T>& x, int64_t columns, double* out, Team&) override;
  bool alone(int64_t replica, const Rows& rows, int64_t index, Team&) override;
  void begin(int64_t replica, Team&) override;
  double work(int64_t layer, int64_t columns) const override;
  int64_t kept_bytes() const override { return program_.weight_count ? Oracles<T>::bytes(program_) : 0; }
  void forward(int64_t layer, int64_t columns, const Block<T>& u, const double* gram, Block<T>& z, Team&,
               const Format&) override;
  void backward(int64_t layer, int64_t columns, const Block<T>& u, const double* gram, const Block<T>& delta,
                const double* delta_gram, Block<T>& du, Team&, const Format&) override;
  // Both runs' columns side by side, as one block of twice as many: so they see the same weights.
  void forward_both(int64_t layer, int64_t columns, const typename Linear<T>::Forward (&asked)[2], Team&) override;
  void backward_both(int64_t layer, int64_t columns, const typename Linear<T>::Backward (&asked)[2], Team&) override;

 private:
  Block<T> join(const Block<T>& plain, const Block<T>& stored, const Buffer<T>& room, Team& team, Vector<double>& gram,
                bool& lost);
  void part(const Block<T>& both, Block<T>& plain, Block<T>& stored, bool lost) const;
  void factorise_input(const double* gram, int64_t units, Team& team);
  void take_order(const SmallFactor& factor, const double* rows, int64_t columns, double* out) const;
  Draws draws(Purpose purpose, int64_t layer, const Directions& directions) const;
  void clear_rests(int64_t rows, Vector<double>& matrix) const;
  void subtract_square(const double* x, int64_t rows, int64_t columns, double* from) const;
  void expand(const Draws& draws, const double* F, bool careful, int64_t units, T* out, const T* next, Team& team);
  void add_combination(const Block<T>& u, const double* X, bool careful, T* to, Team& team);

  Oracle<T>* oracle(int64_t layer) { return oracles_ && layer <= L_ ? oracles_->of(layer) : nullptr; }
  bool is_haar(int64_t layer) const { return haar_[(size_t)program_.draw[layer - 1]]; }

  const Program& program_;
  const MatrixFree<T>& kernels_;
  void ask(int64_t columns);
  const int64_t L_;
  int64_t B_, stride_;            // of the block at hand; stride: of rows of small matrices
  Vector<char> haar_;             // of each draw: orthogonal instead of Gaussian
  std::optional<Dense<T>> head_;  // its few rows are drawn as they are
  std::optional<SingleChain<T>> single_;
  std::optional<Oracles<T>> oracles_;  // of weights that layers share
  uint32_t replica_ = 0;
  InnerProducts<T> inner_;
  SmallFactor input_, cotangent_, frame_;
  Directions input_directions_, cotangent_directions_;
  int64_t input_units_ = 0, input_columns_ = 0;
  Vector<double> input_gram_;  // what input_ is the factor of
  Vector<double> own_, inside_, along_, f_, x_;
  Vector<char> factor_;
  Buffer<T> both_in_, both_delta_, both_out_;  // of two runs side by side
  Vector<double> both_gram_, both_delta_gram_;
};

// Throws std::invalid_argument for a program whose law is not known.
template <class T> MakeLinear<T> make_matrix_free();

}  // namespace pykernel
