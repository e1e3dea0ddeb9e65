// The run of a program: replicas over threads, each forward and backward, rows out. Engines hand in who makes their
// linear operators. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include <functional>
#include <memory>
#include <vector>

#include "linear.hpp"
#include "pykernel/chain.hpp"
#include "pykernel/program.hpp"

namespace pykernel {

// Makes the operator of one worker. Called once for each worker, on the calling thread; threads: how many workers there
// will be.
template <class T> using MakeLinear = std::function<std::unique_ptr<Linear<T>>(const Program&, int workers)>;

struct Run {
  int64_t first, count;  // replicas
  int threads;
  int64_t memory;              // bytes for stored blocks of all workers together: beyond it layers are computed twice
  std::function<void()> poll;  // see run_on_threads
  double* tangent_kernel = nullptr;  // (count, batch, batch), or null
};

// Throws std::invalid_argument for a program that does not make sense, Stopped after `poll` has thrown.
template <class T> void run(const Program& program, const Run& how, const MakeLinear<T>& make, const Rows& rows);

struct Traced;
// What every op of one replica wrote, in the order of `Network::traced`. Throws as run does.
template <class T>
std::vector<Traced> trace(const Program& program, int64_t replica, int64_t memory, const MakeLinear<T>& make);

// Memory without which one worker cannot run the program, in bytes, or (one input, matrix-free) in all likelihood.
template <class T> int64_t least_bytes(const Program& program, Engine engine);

}  // namespace pykernel
