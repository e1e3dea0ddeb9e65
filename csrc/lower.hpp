// From a chain of one kind of layer to the program that runs it, as pykernel/lower.py does.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <vector>

#include "pykernel/program.hpp"

namespace pykernel {

// Throws std::invalid_argument where a plan's pointers, sizes and choices do not make a program; its numbers are
// `check`'s part.
class Lowered {
 public:
  explicit Lowered(const Plan& plan);
  Lowered(const Lowered&) = delete;
  const Program& program() const { return program_; }

 private:
  void set_stretches(const Plan& plan);
  void set_arrays(const Plan& plan);
  void set_program(const Plan& plan);

  Program program_ = {};
  Draw draws_[1] = {};
  NormRow norms_[2] = {};
  std::vector<Op> branch_, last_;  // the ops of a residual branch; those of a layer that none passes by
  std::vector<Stretch> stretches_;
  std::vector<int64_t> address_, draw_, bias_draw_, step_activation_, step_norm_, centred_;
  std::vector<double> skip_, factors_of_branches_;
};

}  // namespace pykernel
