// A whole network forward and backward, and its measured rows. On the calling thread, in the caller's memory.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "plan.hpp"
#include "program.hpp"
#include "stop.hpp"

namespace pykernel {

enum Engine { dense, matrix_free };

// least: enough to run, with every layer computed twice. most: what is beyond has no use. The results are the same bits
// for any size.
struct WorkspaceSize {
  size_t least, most;
};
template <class T> WorkspaceSize chain_bytes(const Plan& plan, Engine engine);
template <class T> WorkspaceSize program_bytes(const Program& program, Engine engine);

// Rows of replicas first .. first + count - 1, arrays as in Rows; null where a row is not wanted.
// False where `stop` said so: rows of replicas that were not finished are undefined then.
// Throws std::invalid_argument for a plan that does not make sense or an engine that cannot run it, std::bad_alloc for
// too few bytes.
template <class T>
bool run_chain(const Plan& plan, Engine engine, int64_t first, int64_t count, const Rows& rows, void* workspace,
               size_t bytes, Stop stop = {});
// The same for a program; rows have as many numbers a replica as it has layers, nodes or activation steps (extents_of).
template <class T>
bool run_program(const Program& program, Engine engine, int64_t first, int64_t count, const Rows& rows, void* workspace,
                 size_t bytes, Stop stop = {});

}  // namespace pykernel
