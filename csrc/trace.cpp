// One replica, op by op: for whoever looks for the op at which two backends part.
// SPDX-License-Identifier: BSD-3-Clause
#include <atomic>

#include "check.hpp"
#include "network.hpp"
#include "run.hpp"

namespace pykernel {

template <class T>
std::vector<Traced> trace(const Program& program, int64_t replica, int64_t memory, const MakeLinear<T>& make) {
  check(program);
  const RowExtents extents = extents_of(program);
  std::vector<std::vector<double>> unread;
  Rows rows = {};
  for (const RowFact& row : row_facts)
    rows.*row.of = unread.emplace_back((size_t)std::max<int64_t>(1, extents.of(row.extent))).data();
  const std::atomic<bool> never{false};
  Team team(1, never);
  const std::unique_ptr<Linear<T>> linear = make(program, 1);
  Network<T> network(program, *linear, team, memory);
  std::vector<Traced> traced;
  network.traced = &traced;
  network.replica(replica, rows, 0);
  return traced;
}
template std::vector<Traced> trace(const Program&, int64_t, int64_t, const MakeLinear<float>&);
template std::vector<Traced> trace(const Program&, int64_t, int64_t, const MakeLinear<double>&);

}  // namespace pykernel
