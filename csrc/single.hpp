// One input through a plain matrix-free chain in memory that does not depend on width: sums over units, then a recursion of numbers.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "kernels/single.hpp"
#include "memory.hpp"
#include "pykernel/plan.hpp"
#include "team.hpp"

namespace pykernel {

// x 2^e with x's own exponent small: magnitudes of any depth.
struct Wide {
  double x;
  int64_t e;
};

template <class T> class SingleChain {
 public:
  // Whether the plan is of this kind: Gaussian weights, drawn input and cotangent, one input, no norm, no residual, no head.
  static bool takes(const Plan& plan);
  explicit SingleChain(const Plan& plan);
  // Runs one replica and writes its rows at `index`. False where a magnitude leaves the range that the kernels see: then nothing counts.
  bool replica(int64_t replica, const Rows& rows, int64_t index, Team& team);

 private:
  struct Node {
    SingleSums sums;
    Wide unit;  // a true z or a is `unit` times the one that was summed
  };
  bool sum(int64_t l, uint32_t replica, Wide sigma, Team& team);
  void forward_rows(int64_t l, const Rows& rows, int64_t index) const;
  void backward(const Rows& rows, int64_t index) const;
  bool linear(int64_t l) const { return l == (plan_.order == linear_norm_activation ? 0 : plan_.depth); }

  const Plan& plan_;
  SingleKernel<T> kernel_;
  const Activation<T>*identity_ = nullptr, *phi_ = nullptr, *two_slopes_ = nullptr;
  bool homogeneous_ = false;
  Vector<Node> nodes_;
  Vector<SingleSums> parts_;
};

}  // namespace pykernel
