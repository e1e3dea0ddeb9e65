// One input through a plain matrix-free chain in memory that does not depend on width: sums over units, then a
// recursion of numbers. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "kernels/single.hpp"
#include "memory.hpp"
#include "pykernel/program.hpp"
#include "team.hpp"

namespace pykernel {

// x 2^e with x's own exponent small: magnitudes of any depth.
struct Wide {
  double x;
  int64_t e;
};

// Whether a program is of this kind: one column, layers of Gaussian weights and one activation step each, nothing that
// passes by, drawn input, cotangent and biases, no norm, no head.
bool one_input(const Program& program);

template <class T> class SingleChain {
 public:
  explicit SingleChain(const Program& program);  // of which one_input is true
  static int64_t bytes(const Program& program);  // what one takes of a workspace
  // Runs one replica and writes its rows at `index`. False where a magnitude leaves the range that the kernels see:
  // then nothing counts.
  bool replica(int64_t replica, const Rows& rows, int64_t index, Team& team);

 private:
  struct Node {
    SingleSums sums;
    Wide unit;  // a true z or a is `unit` times the one that was summed
  };
  bool sum(int64_t l, uint32_t replica, Wide sigma, Team& team);
  void forward_rows(int64_t l, const Rows& rows, int64_t index) const;
  void backward(const Rows& rows, int64_t index) const;
  // Whether node l is linear: the input of layers that begin with their weight, the end of those that begin with the
  // activation.
  bool linear(int64_t l) const { return l == (after_ ? 0 : L_); }
  // The activation step at node l, where it is not linear.
  const ActivationRow& row(int64_t l) const {
    return program_.activations[program_.step_activation[after_ ? l - 1 : l]];
  }

  const Program& program_;
  const int64_t L_;
  const bool after_;  // activations follow their layers
  SingleKernel<T> kernel_;
  const Activation<T>*identity_, *two_slopes_;
  Vector<const Activation<T>*> phis_;  // of the program's activations
  Vector<Node> nodes_;
  Vector<SingleSums> parts_;
};

}  // namespace pykernel
