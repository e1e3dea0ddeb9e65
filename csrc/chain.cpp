// The public chain: what a workspace must hold, and the run loop of one network inside it.
// SPDX-License-Identifier: BSD-3-Clause
#include "pykernel/chain.hpp"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <optional>
#include <stdexcept>

#include "check.hpp"
#include "dense.hpp"
#include "matrix_free.hpp"
#include "memory.hpp"
#include "network.hpp"

namespace pykernel {
namespace {

void check_engine(const Plan& plan, Engine engine) {
  check(plan);
  if (engine != dense && engine != matrix_free) throw std::invalid_argument("engine must be 0 (dense) or 1 (matrix_free)");
  double entries = 0;
  for (int64_t l = 1; l <= plan.depth; l++) entries += (double)padded(plan.widths[l]) * (double)(plan.widths[l - 1] + plan.batch);
  if (entries * 32 + (double)plan.depth * (double)plan.batch * (double)plan.batch * 16 > 0x1p60)
    throw std::invalid_argument("the chain is too large");
}

int copies(const Plan& plan, Engine engine) { return plan.clip_value > 0 || engine == matrix_free ? 2 : 1; }

// Of the largest kernel call: taken once, at the bottom of the workspace.
template <class T> int64_t scratch_bytes(const Plan& plan, Engine engine) {
  size_t most = plan.loss ? backward_scratch<T>(plan.outputs, plan.batch) : 0;
  for (int64_t l = 1; l <= plan.depth; l++) most = std::max(most, backward_scratch<T>(plan.widths[l], plan.batch));
  return std::max((int64_t)most, engine == matrix_free ? matrix_free_table<T>().room(plan.batch) : 0);
}

// Everything but stored blocks and kept draws, rounded up. Mirrors what Network, Layer, Head, the operators and their factors take.
template <class T> int64_t fixed_bytes(const Plan& plan, Engine engine) {
  const int64_t B = plan.batch, L = plan.depth, e = sizeof(T), square = B * B * 8;
  const int64_t n = std::max(*std::max_element(plan.widths, plan.widths + L + 1), plan.loss ? plan.outputs : 0);
  const int64_t block = padded(n) * B * e, chunks = (n + chunk_units - 1) / chunk_units;
  int64_t bytes = 10 * block + padded(n) * e;          // blocks at work, native's copy, the bias
  bytes += L * (160 + 4 * (int64_t)sizeof(Block<T>));  // what is noted of a layer
  bytes += (3 + chunks) * square;                      // Gram matrices and their parts
  bytes += chunks * (int64_t)(sizeof(Sums) + sizeof(SlopeSums)) + 2 * B * (chunks + 1) * 8 + 4 * B * 8;  // sums of a layer
  bytes += 8 * std::max(n, B);                                                                           // normalise_far
  if (plan.loss) bytes += 4 * plan.outputs * B * 8 + padded(plan.outputs) * B * 8;                       // head and targets
  if (plan.clip_value > 0) bytes += n * (8 + e);
  for (int64_t l = 1; l <= L + (plan.loss != no_loss); l++) {
    const int64_t rows = l <= L ? plan.widths[l] : plan.outputs, columns = plan.widths[l - 1];
    const char* distribution = l <= L ? plan.distribution : plan.head_distribution;
    if (!strcmp(distribution, "given")) bytes += padded(rows) * columns * e + 256;
  }
  if (engine == dense || plan.loss) {  // orthogonal frames, one at a time: panels, draws, the reduction and its result
    int64_t largest = 0;
    for (int64_t l = 1; l <= L + (plan.loss != no_loss); l++)
      if (!strcmp(l <= L ? plan.distribution : plan.head_distribution, "haar"))
        largest = std::max(largest, padded(l <= L ? plan.widths[l] : plan.outputs) * plan.widths[l - 1]);
    if (largest) bytes += largest * (e + 4 + 16) + 8 * n + 512;
  }
  if (engine == matrix_free) {
    bytes += 16 * square + 64 * B + 2 * chunks * square * 2;
    bytes += (L + 1) * 256 + chunks * (int64_t)sizeof(SingleSums);
  }
  return bytes + scratch_bytes<T>(plan, engine) + (L + 1) * 8 + (1 << 14);  // and room between the arrays
}

int64_t stored_bytes(const Plan& plan, Engine engine, int64_t element_bytes, int64_t bytes) {
  return bytes_of(plan, extent_of(plan, copies(plan, engine), element_bytes, bytes), copies(plan, engine), element_bytes);
}

int64_t draw_bytes(const Plan& plan, Engine engine) {
  int64_t entries = 0;
  for (int64_t l = 1; engine == dense && l <= plan.depth; l++) entries += padded(plan.widths[l]) * plan.widths[l - 1];
  if (engine == dense && plan.loss) entries += padded(plan.outputs) * plan.widths[plan.depth];
  return entries * (int64_t)sizeof(float);
}

// The rows of one replica; those that nobody wants go to `unwanted`.
Rows rows_of(const Rows& rows, int64_t index, int64_t L, double* unwanted) {
  Rows one;
  for (const RowFact& row : row_facts) {
    double* all = rows.*row.of;
    one.*row.of = all ? all + index * RowExtents{L, L, L}.of(row.extent) : unwanted;
  }
  return one;
}

}  // namespace

template <class T> WorkspaceSize chain_bytes(const Plan& plan, Engine engine) {
  check_engine(plan, engine);
  const int64_t fixed = fixed_bytes<T>(plan, engine);
  return {(size_t)(fixed + stored_bytes(plan, engine, sizeof(T), 0)),
          (size_t)(fixed + stored_bytes(plan, engine, sizeof(T), INT64_MAX) + draw_bytes(plan, engine))};
}

template <class T>
bool run_chain(const Plan& plan, Engine engine, int64_t first, int64_t count, const Rows& rows, void* workspace, size_t bytes, Stop stop) {
  check_engine(plan, engine);
  if (first < 0 || count < 0 || count > (int64_t)1 << 32 || first > ((int64_t)1 << 32) - count)
    throw std::invalid_argument("first and count must not be negative, replicas below 2^32");
  const int64_t rest = (int64_t)std::min(bytes, (size_t)1 << 60) - fixed_bytes<T>(plan, engine);
  const int64_t stored = stored_bytes(plan, engine, sizeof(T), rest);
  if (stored > rest) throw std::bad_alloc();
  const Lent lent(workspace, bytes);
  thread_scratch((size_t)scratch_bytes<T>(plan, engine));
  const std::atomic<bool> never{false};
  Team team(1, never, stop);
  Vector<double> unwanted((size_t)plan.depth + 1);
  const auto linear = (engine == dense ? make_dense<T>(rest - stored) : make_matrix_free<T>())(plan, 1);
  std::optional<Network<T>> network;
  try {
    for (int64_t r = 0; r < count; r++) {
      const Rows one = rows_of(rows, r, plan.depth, unwanted.data());
      if (linear->alone(first + r, one, 0, team)) continue;
      if (!network) network.emplace(plan, *linear, team, rest);
      network->replica(first + r, one, 0);
    }
  } catch (const Stopped&) {
    return false;
  }
  return true;
}

template WorkspaceSize chain_bytes<float>(const Plan&, Engine);
template WorkspaceSize chain_bytes<double>(const Plan&, Engine);
template bool run_chain<float>(const Plan&, Engine, int64_t, int64_t, const Rows&, void*, size_t, Stop);
template bool run_chain<double>(const Plan&, Engine, int64_t, int64_t, const Rows&, void*, size_t, Stop);

}  // namespace pykernel
