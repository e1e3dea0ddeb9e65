// A lent workspace: aligned, used again in reverse order, never exceeded, and of its thread alone.
// SPDX-License-Identifier: BSD-3-Clause
#include "memory.hpp"

#include <thread>

#include "unit.hpp"

using namespace pykernel;

namespace {

bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 64 == 0; }

}  // namespace

int main() {
  alignas(64) static char space[4096 + 1];
  char* odd = space + 1;  // whatever the caller's address
  const auto inside = [&](const void* p) { return p >= odd && p < space + sizeof space; };
  {
    const Lent lent(odd, 4096);
    EXPECT(is_lent());
    void* first = take(100);
    void* second = take(1);
    EXPECT(inside(first) && inside(second) && is_aligned(first) && is_aligned(second) && first != second);
    EXPECT(static_cast<char*>(second) - static_cast<char*>(first) == taken<char>(100));
    give_back(second, 1);
    EXPECT(take(64) == second);
    EXPECT_THROWS(std::bad_alloc, take(4096));
    EXPECT(inside(thread_scratch(256)) && thread_scratch(128) == thread_scratch(256));
    std::thread([&] {
      EXPECT(!is_lent());
      void* own = take(8);
      EXPECT(!inside(own) && is_aligned(own));
      give_back(own, 8);
    }).join();
  }
  EXPECT(!is_lent());
  Vector<double> heap(1000);
  EXPECT(!inside(heap.data()) && is_aligned(heap.data()));
  EXPECT_THROWS(std::bad_alloc, Taken<double>().allocate(SIZE_MAX / 8));
}
