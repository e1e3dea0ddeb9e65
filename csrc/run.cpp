// Who computes what: replicas side by side where there are enough, and the whole team on one network for what is left
// over. SPDX-License-Identifier: BSD-3-Clause
#include "run.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <stdexcept>

#include "check.hpp"
#include "network.hpp"
#include "pool.hpp"

namespace pykernel {
namespace {

// multiply-adds of the largest layer: below this a network is not worth a team
constexpr double worth_a_team = 1 << 18;
// and of a whole call: below this it is over before another thread is awake
constexpr double worth_a_thread = 1 << 17;

// At least so many for a layer whatever its engine: 2 us, and what a unit and column costs outside dense products
double least_work(const Program& program, int64_t l, int64_t columns) {
  const double units = (double)std::max(program.units[l - 1], program.columns[l - 1]), B = (double)columns;
  return std::max(2048.0, units * B * (64 + 4 * B));
}

}  // namespace

template <class T> void run(const Program& program, const Run& how, const MakeLinear<T>& make, const Rows& rows) {
  check(program);
  if (how.threads < 1 || how.count < 0 || how.first < 0)
    throw std::invalid_argument("threads must be positive, first and count must not be negative");
  if (how.count == 0) return;
  // Workers side by side as far as the least that each needs fits.
  std::vector<std::unique_ptr<Linear<T>>> linears;
  linears.push_back(make(program, how.threads));
  double work = 0, total = 0;
  const Vector<int64_t> columns = columns_of_layers(program);
  for (int64_t l = 1; l <= program.counts[Table::layer]; l++) {
    const int64_t B = columns.empty() ? columns_of(program) : columns[(size_t)l - 1];
    const double layer = linears[0]->work(l, B);
    work = std::max(work, layer), total += (double)how.count * std::max(layer, least_work(program, l, B));
  }
  const MixNeeds mixes = mix_needs(program);
  work = std::max(work, mixes.largest_work), total += (double)how.count * mixes.work;
  const bool brief = total < worth_a_thread;
  const bool team_pays = how.threads > 1 && work >= worth_a_team;
  int64_t workers = brief ? 1 : std::min<int64_t>(how.threads, how.count);
  if (workers > 1) {
    const int64_t least = std::max<int64_t>(1, Network<T>::least_bytes(program, linears[0]->needs_input()));
    workers = std::clamp<int64_t>(how.memory / least, 1, workers);
  }
  // With too few for all threads, or a few left over at the end, one network gets the whole team.
  int64_t alone = 0;
  if (team_pays) alone = workers < how.threads ? how.count : how.count % workers;
  if (workers > 1 && team_pays && !linears[0]->keeps_all() && make(program, 1)->keeps_all())
    alone = how.count;  // side by side they would draw twice what together they draw once
  if (alone == how.count) workers = 1;
  if (workers < how.threads) linears.clear();  // each of fewer workers may take more

  std::atomic<bool> stop{false};
  std::vector<std::unique_ptr<Team>> teams;
  std::vector<std::unique_ptr<Network<T>>> networks;
  const auto add = [&](int size) {
    if (linears.size() == teams.size()) linears.push_back(make(program, (int)workers));
    teams.push_back(std::make_unique<Team>(size, stop));
    networks.emplace_back();
  };
  for (int64_t w = 0; w < workers; w++) add(alone == how.count ? how.threads : 1);

  const auto replica = [&](size_t w, int64_t r) {
    if (linears[w]->alone(how.first + r, rows, r, *teams[w])) return;
    if (!networks[w]) networks[w] = std::make_unique<Network<T>>(program, *linears[w], *teams[w], how.memory / workers);
    if (how.tangent_kernel)
      networks[w]->replica(how.first + r, rows, r, how.tangent_kernel + r * program.batch * program.batch);
    else
      networks[w]->replica(how.first + r, rows, r);
  };

  const auto guarded = [&](const std::function<void(int)>& body) {
    return [&stop, body](int worker) {
      try {
        body(worker);
      } catch (const Stopped&) {  // whoever stopped the run says why
      } catch (...) {
        stop = true;
        throw;
      }
    };
  };
  const auto poll = [&] {
    try {
      if (how.poll) how.poll();
    } catch (...) {
      stop = true;
      throw;
    }
  };
  if (brief) {
    for (int64_t r = 0; r < how.count; r++) replica(0, r);
    return;
  }
  std::atomic<int64_t> next{0};
  if (const int64_t together = how.count - alone)
    run_on_threads((int)workers, guarded([&](int worker) {
                     for (int64_t r; (r = next.fetch_add(1)) < together;) replica((size_t)worker, r);
                   }),
                   poll);
  if (alone) {
    if (alone < how.count) {  // the first worker's memory is given back before the team's network is made
      networks.clear(), teams.clear(), linears.clear();
      workers = 1;
      add(how.threads);
    }
    Team& team = *teams[0];
    run_on_threads(how.threads, guarded([&](int worker) {
                     if (worker) return team.serve();
                     try {
                       for (int64_t r = how.count - alone; r < how.count; r++) replica(0, r);
                     } catch (...) {
                       team.close();
                       throw;
                     }
                     team.close();
                   }),
                   poll);
  }
}
template void run(const Program&, const Run&, const MakeLinear<float>&, const Rows&);
template void run(const Program&, const Run&, const MakeLinear<double>&, const Rows&);

}  // namespace pykernel
