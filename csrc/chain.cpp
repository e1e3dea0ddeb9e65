// The public run of one network: what a workspace must hold, and the run loop inside it.
// SPDX-License-Identifier: BSD-3-Clause
#include "pykernel/chain.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <optional>
#include <stdexcept>

#include "check.hpp"
#include "dense.hpp"
#include "lower.hpp"
#include "matrix_free.hpp"
#include "memory.hpp"
#include "network.hpp"
#include "run.hpp"

namespace pykernel {
namespace {

void check_engine(const Program& program, Engine engine) {
  check(program);
  if (engine != dense && engine != matrix_free)
    throw std::invalid_argument("engine must be 0 (dense) or 1 (matrix_free)");
  const Keep keep = keep_of(program, engine == matrix_free);
  const Largest most = largest_of(program, keep);
  const double columns = (double)most.columns, layers = (double)program.counts[Table::layer];
  double entries = 0;
  for (int64_t l = 1; l <= all_layers(program); l++) {
    const LayerOf of = layer_of(program, l);
    entries += (double)padded(of.rows) * ((double)of.columns + columns);
  }
  if (entries * 32 + layers * (double)most.gram * 16 > 0x1p60) throw TooLarge("the chain is too large");
}

// Of the largest kernel call: taken once, at the bottom of the workspace.
template <class T> int64_t scratch_bytes(const Program& program, Engine engine) {
  size_t most = 0;
  const int64_t columns = largest_of(program, keep_of(program, engine == matrix_free)).columns;
  for (int64_t l = 1; l <= all_layers(program); l++) {
    const LayerOf of = layer_of(program, l);
    most = std::max({most, backward_scratch<T>(of.rows, columns), (size_t)of.columns * 16 * sizeof(float)});
    if (columns > few_columns) most = std::max(most, outer_scratch<T>(of.rows));
  }
  return std::max({(int64_t)most, Totals<T>::scratch_bytes(program),
                   engine == matrix_free ? MatrixFreeLinear<T>::scratch_bytes(program) : 0,
                   mix_needs(program).room * (int64_t)sizeof(T)});
}

constexpr int64_t slack = 1 << 13;  // small objects, and what lies between the arrays

// Everything but the network, and the draws that are kept.
template <class T> int64_t engine_bytes(const Program& program, Engine engine) {
  const int64_t linear = engine == dense ? GivenWeights<T>::bytes(program, 1) + Dense<T>::bytes(program, 1)
                                         : MatrixFreeLinear<T>::bytes(program);
  return linear + scratch_bytes<T>(program, engine) + slack;
}
template <class T> WorkspaceSize size_of(const Program& program, Engine engine) {
  const Keep keep = keep_of(program, engine == matrix_free);
  const int64_t fixed = engine_bytes<T>(program, engine) + Network<T>::fixed_bytes(program, keep);
  const int64_t draws = engine == dense ? Dense<T>::draw_bytes(program) : 0;
  return {(size_t)(fixed + Network<T>::tape_bytes(program, keep, 0)),
          (size_t)(fixed + Network<T>::tape_bytes(program, keep, INT64_MAX) + draws)};
}

// The rows of one replica; those that nobody wants go to `unwanted`.
Rows rows_of(const Rows& rows, int64_t index, const RowExtents& extents, double* unwanted) {
  Rows one;
  for (const RowFact& row : row_facts) {
    double* all = rows.*row.of;
    one.*row.of = all ? all + index * extents.of(row.extent) : unwanted;
  }
  return one;
}

void check_replicas(int64_t first, int64_t count) {
  if (first < 0 || count < 0 || count > (int64_t)1 << 32 || first > ((int64_t)1 << 32) - count)
    throw std::invalid_argument("first and count must not be negative, replicas below 2^32");
}

// How a workspace is shared out. Throws std::bad_alloc where it is too small.
struct Shares {
  int64_t scratch, tape, draws;
};
template <class T> Shares shares_of(const Program& program, Engine engine, int64_t bytes) {
  const Keep keep = keep_of(program, engine == matrix_free);
  const int64_t rest = bytes - engine_bytes<T>(program, engine) - Network<T>::fixed_bytes(program, keep);
  const int64_t tape = Network<T>::tape_bytes(program, keep, rest);
  if (tape > rest) throw std::bad_alloc();
  return {scratch_bytes<T>(program, engine), tape, rest - tape};
}

template <class T>
bool run_lent(const Program& program, Engine engine, int64_t first, int64_t count, const Rows& rows,
              const Shares& shares, Stop stop) {
  thread_scratch((size_t)shares.scratch);
  const std::atomic<bool> never{false};
  Team team(1, never, stop);
  const RowExtents extents = extents_of(program);
  Vector<double> unwanted(
      (size_t)std::max({extents.layers, extents.nodes + 1, extents.activations, extents.mixes, extents.weights}));
  const auto linear = (engine == dense ? make_dense<T>(shares.draws) : make_matrix_free<T>())(program, 1);
  std::optional<Network<T>> network;
  try {
    for (int64_t r = 0; r < count; r++) {
      const Rows one = rows_of(rows, r, extents, unwanted.data());
      if (linear->alone(first + r, one, 0, team)) continue;
      if (!network) network.emplace(program, *linear, team, shares.tape);
      network->replica(first + r, one, 0);
    }
  } catch (const Stopped&) {
    return false;
  }
  return true;
}

int64_t bounded(size_t bytes) { return (int64_t)std::min(bytes, (size_t)1 << 60); }

}  // namespace

template <class T> int64_t least_bytes(const Program& program, Engine engine) {
  check_engine(program, engine);
  if (engine == matrix_free && one_input(program)) return SingleChain<T>::bytes(program);
  return (int64_t)size_of<T>(program, engine).least;
}
template int64_t least_bytes<float>(const Program&, Engine);
template int64_t least_bytes<double>(const Program&, Engine);

template <class T> WorkspaceSize program_bytes(const Program& program, Engine engine) {
  check_engine(program, engine);
  return size_of<T>(program, engine);
}

template <class T> WorkspaceSize chain_bytes(const Plan& plan, Engine engine) {
  const Lowered lowered(plan);
  return program_bytes<T>(lowered.program(), engine);
}

template <class T>
bool run_program(const Program& program, Engine engine, int64_t first, int64_t count, const Rows& rows, void* workspace,
                 size_t bytes, Stop stop) {
  check_engine(program, engine);
  check_replicas(first, count);
  if (program.formats) throw std::invalid_argument("a run in the caller's memory has no formats");
  const Shares shares = shares_of<T>(program, engine, bounded(bytes));
  const Lent lent(workspace, bytes);
  return run_lent<T>(program, engine, first, count, rows, shares, stop);
}

template <class T>
bool run_chain(const Plan& plan, Engine engine, int64_t first, int64_t count, const Rows& rows, void* workspace,
               size_t bytes, Stop stop) {
  const Lowered lowered(plan);
  return run_program<T>(lowered.program(), engine, first, count, rows, workspace, bytes, stop);
}

#define PYKERNEL_INSTANTIATE(T)                                                                             \
  template WorkspaceSize program_bytes<T>(const Program&, Engine);                                          \
  template WorkspaceSize chain_bytes<T>(const Plan&, Engine);                                               \
  template bool run_program<T>(const Program&, Engine, int64_t, int64_t, const Rows&, void*, size_t, Stop); \
  template bool run_chain<T>(const Plan&, Engine, int64_t, int64_t, const Rows&, void*, size_t, Stop);
PYKERNEL_INSTANTIATE(float)
PYKERNEL_INSTANTIATE(double)

}  // namespace pykernel
