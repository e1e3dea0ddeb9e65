// A team shares a loop: every index once, errors and stops reach its leader, and it can be used again after either.
// SPDX-License-Identifier: BSD-3-Clause
#include "team.hpp"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "unit.hpp"

using pykernel::Stopped;
using pykernel::Team;

namespace {

// A leader's work with helpers beside it.
template <class F> void with_team(int size, const std::atomic<bool>& stop, F&& work) {
  Team team(size, stop);
  std::vector<std::thread> helpers;
  for (int i = 1; i < size; i++) helpers.emplace_back([&] { team.serve(); });
  work(team);
  team.close();
  for (auto& helper : helpers) helper.join();
}

}  // namespace

int main() {
  {
    const std::atomic<bool> stop{false};
    Team team(3, stop);  // whose helpers never get a core
    std::vector<int> done(100);
    team.each(100, [&](int64_t i) { done[(size_t)i]++; });
    for (const int times : done) EXPECT(times == 1);
  }
  for (const int size : {1, 2, 5}) {
    std::atomic<bool> stop{false};
    with_team(size, stop, [&](Team& team) {
      for (const int64_t count : {0, 1, 2, 7, 1000}) {
        std::vector<int> done((size_t)count);  // no atomics: a race is ThreadSanitizer's to see
        for (int again = 0; again < 50; again++) team.each(count, [&](int64_t i) { done[(size_t)i]++; });
        for (const int times : done) EXPECT(times == 50);
      }
    });
    with_team(size, stop, [&](Team& team) {  // the leader's are the first, so that its cache meets the same ones again
      std::vector<std::thread::id> by(1000);
      for (int again = 0; again < 50; again++) {
        team.each(1000, [&](int64_t i) { by[(size_t)i] = std::this_thread::get_id(); });
        const auto leads = [](std::thread::id id) { return id == std::this_thread::get_id(); };
        EXPECT(std::is_partitioned(by.begin(), by.end(), leads));
      }
    });
    with_team(size, stop, [&](Team& team) {
      EXPECT_THROWS(std::runtime_error, team.each(100, [&](int64_t i) {
        if (i == 50) throw std::runtime_error("fifty");
      }));
    });
    with_team(size, stop, [&](Team& team) {
      std::atomic<int> begun{0};
      EXPECT_THROWS(Stopped, team.each(1000, [&](int64_t) {
        begun++;
        stop = true;
      }));
      EXPECT(begun <= size);  // each member may have had one in its hands
    });
  }
}
