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

  // f(0) .. f(count - 1), each once, in any order and by any member. f writes only what belongs to its index, so bits
  // do not depend on the team. Throws Stopped where the run is to end before all are done.
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
    next_.store(0, std::memory_order_relaxed);
    helped_.store(0, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    work();
    for (int spins = 0; helped_.load(std::memory_order_acquire) != size_ - 1;) pause(spins);
    if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(error_);
    if (stopped()) throw Stopped{};
  }

  // The life of a helper: until the leader closes the team.
  void serve() {
    for (uint64_t seen = 0;;) {
      for (int spins = 0; round_.load(std::memory_order_acquire) == seen;) {
        if (closed_.load(std::memory_order_acquire)) return;
        pause(spins);
      }
      seen++;
      work();
      helped_.fetch_add(1, std::memory_order_release);
    }
  }
  void close() { closed_.store(true, std::memory_order_release); }

 private:
  static void pause(int& spins) {
#if defined(__x86_64__)
    if (++spins < 4000) return __builtin_ia32_pause();
#endif
    std::this_thread::yield();
  }
  void work() {
    try {
      for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_ && !stopped();) call_(context_, i);
    } catch (...) {
      if (!claimed_.exchange(true)) {
        error_ = std::current_exception();
        failed_.store(true, std::memory_order_relaxed);
      }
      next_.store(count_, std::memory_order_relaxed);
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
  alignas(64) std::atomic<uint64_t> round_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> helped_{0};
  std::atomic<bool> closed_{false}, failed_{false}, claimed_{false};
};

}  // namespace pykernel
