// Threads wait here for work; a call hands out as many tickets as it wants threads and makes new ones where too few are
// idle. SPDX-License-Identifier: BSD-3-Clause
#include "pool.hpp"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

namespace pykernel {
namespace {

struct Call {
  const std::function<void(int)>* body;
  int left;
  std::exception_ptr error;
  std::condition_variable done;
};

struct Ticket {
  Call* call;
  int index;
};

struct Pool {
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Ticket> tickets;
  int idle = 0;

  void live() {
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return !tickets.empty(); });
      const Ticket ticket = tickets.front();
      tickets.pop_front();
      lock.unlock();
      std::exception_ptr error;
      try {
        (*ticket.call->body)(ticket.index);
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      idle++;
      if (error && !ticket.call->error) ticket.call->error = error;
      if (--ticket.call->left == 0) ticket.call->done.notify_one();
    }
  }
};

Pool* pool = nullptr;  // never destroyed: its threads outlive main

// A child of fork has none of the threads and may have a locked mutex: it starts anew and leaves the old pool where it
// lies.
Pool& the_pool() {
  static const bool once = [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
    return true;
  }();
  (void)once;
  return *pool;
}

}  // namespace

void run_on_threads(int threads, const std::function<void(int)>& body, const std::function<void()>& poll) {
  Pool& pool = the_pool();
  Call call{&body, threads, nullptr, {}};
  std::exception_ptr polled;
  std::unique_lock lock(pool.mutex);
  for (; pool.idle < threads; pool.idle++) std::thread([&pool] { pool.live(); }).detach();
  pool.idle -= threads;
  for (int i = 0; i < threads; i++) pool.tickets.push_back({&call, i});
  pool.wake.notify_all();
  while (call.left) {
    if (call.done.wait_for(lock, std::chrono::milliseconds(30), [&] { return call.left == 0; })) break;
    lock.unlock();
    try {
      if (!polled) poll();
    } catch (...) {
      polled = std::current_exception();
    }
    lock.lock();
  }
  lock.unlock();
  if (polled) std::rethrow_exception(polled);
  if (call.error) std::rethrow_exception(call.error);
}

}  // namespace pykernel
