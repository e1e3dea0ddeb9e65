// One input through a plain matrix-free chain in memory that does not depend on width: sums over units, then a
// recursion of numbers. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <math.h>
#include <stdint.h>

#include "constants.hpp"
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

// What is summed at a node, of so many units. A true z or a is `unit` times the one that was summed.
struct SingleNode {
  SingleSums sums;
  Wide unit;
  double n;
};
// A node's forward rows at `i`, beside the op's other ones in csrc/ops/node.cpp: a = phi(z), or a is z.
void observe_node(const SingleNode& node, bool after_phi, const Rows& rows, int64_t i);
inline double log10_of(double x, int64_t e) { return (log2(x) + (double)e) * log10_2; }
inline double log10_mean_square(const SingleNode& node, SingleSums::Name sum) {
  return log10_of(node.sums[sum] / node.n * node.unit.x * node.unit.x, 2 * node.unit.e);
}

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
  bool sum(int64_t l, uint32_t replica, Wide sigma, Team& team);
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
  Vector<SingleNode> nodes_;
  Vector<SingleSums> parts_;
};

}  // namespace pykernel
