// A team of threads that share the work of one network: who leads it splits loops, the others help.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <atomic>
#include <exception>
#include <thread>
#include <utility>

#include "memory.hpp"
#include "pykernel/stop.hpp"

namespace pykernel {

struct Stopped {};  // thrown where a run notices that it should end

class Team {
 public:
  Team(int size, const std::atomic<bool>& stop, Stop ask = {}) : size_(size), stop_(stop), ask_(ask) {}
  Team(const Team&) = delete;

  int size() const { return size_; }
  bool stopped() const {
    return stop_.load(std::memory_order_relaxed) || (ask_.ask && (told_ = told_ || ask_.ask(ask_.user)));
  }

  // f(0) .. f(count - 1), each once, in any order and by any member: the leader begins at the front and helpers at the
  // back, so that in one loop after the other the same units stay in the same core's cache. f writes only what belongs
  // to its index, so bits do not depend on the team. Throws Stopped where the run is to end before all are done.
  template <class F> void each(int64_t count, F&& f) {
    if (size_ == 1 || count <= 1) {
      for (int64_t i = 0; i < count; i++) {
        if (i && stopped()) throw Stopped{};
        f(i);
      }
      return;
    }
    call_ = [](void* context, int64_t i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); };
    context_ = const_cast<void*>(static_cast<const void*>(&f));
    count_ = count;
    taken_.store(0, std::memory_order_relaxed), helped_.store(0, std::memory_order_relaxed);
    gate_.store(((gate_.load(std::memory_order_relaxed) & ~inside) + round) | open, std::memory_order_release);
    gate_.notify_all();
    work([front = int64_t{0}]() mutable { return front++; });
    gate_.fetch_and(~open, std::memory_order_relaxed);
    for (int spins = 0; gate_.load(std::memory_order_acquire) & inside;) pause(spins);
    if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(error_);
    if (stopped()) throw Stopped{};
  }

  // The life of a helper: until the leader closes the team. It joins a loop while that is open; where it has no core
  // meanwhile it misses the loop, and nobody waits for it.
  void serve() {
    uint64_t helped = 0;
    for (int spins = 0;;) {
      uint64_t gate = gate_.load(std::memory_order_acquire);
      if (gate & closed) return;
      if (gate & open && gate / round != helped) {
        if (!gate_.compare_exchange_strong(gate, gate + 1, std::memory_order_acquire)) continue;
        helped = gate / round;
        work([this] { return count_ - 1 - helped_.fetch_add(1, std::memory_order_relaxed); });
        gate_.fetch_sub(1, std::memory_order_release);
        spins = 0;
      } else if (!pause(spins)) {
        gate_.wait(gate, std::memory_order_acquire);
      }
    }
  }
  void close() {
    gate_.fetch_or(closed, std::memory_order_release);
    gate_.notify_all();
  }

 private:
  // The gate of a loop: how many helpers are inside, whether more may come in, whether the team is closed; above, the
  // loop's number.
  static constexpr uint64_t inside = 0xffff, open = 1 << 16, closed = 1 << 17, round = 1 << 18;

  // A moment's rest; false after so many that a helper should sleep.
  static bool pause(int& spins) {
    spins++;
#if defined(__x86_64__)
    if (spins < 4000) {
      __builtin_ia32_pause();
      return true;
    }
#endif
    std::this_thread::yield();
    return spins < 4100;
  }
  // Who takes one of `count` may have an index from its own end: front and back do not meet before all are taken.
  template <class Index> void work(Index index) {
    try {
      while (taken_.fetch_add(1, std::memory_order_relaxed) < count_ && !stopped()) call_(context_, index());
    } catch (...) {
      if (!claimed_.exchange(true)) {
        error_ = std::current_exception();
        failed_.store(true, std::memory_order_relaxed);
      }
      taken_.store(count_, std::memory_order_relaxed);
    }
  }

  const int size_;
  const std::atomic<bool>& stop_;
  const Stop ask_;
  mutable bool told_ = false;  // asked only where the team is one thread
  void (*call_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
  std::exception_ptr error_;
  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<int64_t> taken_{0}, helped_{0};  // indices: by anyone, by helpers
  alignas(64) std::atomic<bool> failed_{false};
  std::atomic<bool> claimed_{false};
};

}  // namespace pykernel
