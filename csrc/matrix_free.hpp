// The matrix-free operator: W u and W^T delta drawn from their exact joint law, for Gaussian and Haar weights, without
// W. SPDX-License-Identifier: BSD-3-Clause
//
// pykernel/engines/reference_matrix_free.py is the definition, docs/matrix-free.md the derivation. Nothing is kept
// between forward and backward: the factor of u is made again from its Gram matrix, the normals from their addresses.
#pragma once
#include <stdint.h>

#include <functional>
#include <memory>
#include <optional>

#include "dense.hpp"
#include "factor.hpp"
#include "kernels/matrix_free.hpp"
#include "kernels/weights.hpp"
#include "memory.hpp"
#include "run.hpp"
#include "single.hpp"

namespace pykernel {

// Gram matrices are read as double-precision sums. Cost a layer: about 5 n B^2 multiply-adds and 3 n B normals.
template <class T> class MatrixFreeLinear final : public Linear<T> {
 public:
  explicit MatrixFreeLinear(const Program& program);
  // What one takes of a workspace.
  static int64_t bytes(const Program& program);
  bool needs_input() const override { return true; }
  bool alone(int64_t replica, const Rows& rows, int64_t index, Team&) override;
  void begin(int64_t replica, Team&) override;
  double work(int64_t layer) const override;
  void forward(int64_t layer, const Block<T>& u, const double* gram, Block<T>& z, Team&, const Format&) override;
  void backward(int64_t layer, const Block<T>& u, const double* gram, const Block<T>& delta, const double* delta_gram,
                Block<T>& du, Team&, const Format&) override;
  // Both runs' columns side by side, as one block of twice as many: so they see the same weights.
  void forward_both(int64_t layer, const typename Linear<T>::Forward (&asked)[2], Team&) override;
  void backward_both(int64_t layer, const typename Linear<T>::Backward (&asked)[2], Team&) override;

 private:
  Block<T> join(const Block<T>& plain, const Block<T>& stored, const Buffer<T>& room, Team& team, Vector<double>& gram,
                bool& lost);
  void part(const Block<T>& both, Block<T>& plain, Block<T>& stored, bool lost) const;
  using Pass = std::function<void(int64_t chunk, double* out, double* own, void* room)>;
  void pass(int64_t units, Team& team, const Pass& body);
  void sum(int64_t units, Team& team, double* out, double* own, const Pass& body);
  Draws draws(Purpose purpose, int64_t layer, const SmallFactor& factor) const;
  Factor rows(const SmallFactor& factor, double* out) const;

  bool is_haar(int64_t layer) const { return haar_[(size_t)program_.draw[layer - 1]]; }

  const Program& program_;
  const MatrixFree<T>& kernels_;
  const int64_t B_, L_;
  Vector<char> haar_;             // of each draw: orthogonal instead of Gaussian
  std::optional<Dense<T>> head_;  // its few rows are drawn as they are
  std::optional<SingleChain<T>> single_;
  uint32_t replica_ = 0;
  Vector<int32_t> ascending_;
  SmallFactor input_, cotangent_, frame_;
  Vector<double> out_, own_, inside_, f_, x_, partials_;
  Buffer<T> both_in_, both_delta_, both_out_;  // of two runs side by side
  Vector<double> both_gram_, both_delta_gram_;
};

// Throws std::invalid_argument for a program whose law is not known.
template <class T> MakeLinear<T> make_matrix_free();

}  // namespace pykernel
