// Where a run's arrays lie: in the workspace that an embedder lends, while one is lent to this thread, and on the heap
// otherwise. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <new>
#include <vector>

namespace pykernel {

// From construction to destruction the calling thread takes its memory from `data`. Whatever was taken must be gone
// before.
class Lent {
 public:
  Lent(void* data, size_t bytes);
  Lent(const Lent&) = delete;
  ~Lent();

 private:
  friend void* take(size_t);
  friend void give_back(void*, size_t);
  friend void* thread_scratch(size_t);
  char *begin_, *end_, *top_;
  void* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  Lent* before_;
};

bool is_lent();
// Aligned to 64 bytes. Throws std::bad_alloc.
void* take(size_t bytes);
// In the reverse order, or what lies in a workspace stays taken until the end.
void give_back(void* p, size_t bytes);

// 64-byte aligned memory of the calling thread's own, valid until the next call on this thread.
void* thread_scratch(size_t bytes);

template <class T> struct Taken {
  typedef T value_type;
  Taken() = default;
  template <class U> Taken(const Taken<U>&) {}
  T* allocate(size_t n) {
    if (n > SIZE_MAX / sizeof(T) - 64) throw std::bad_alloc();
    return static_cast<T*>(take(n * sizeof(T)));
  }
  void deallocate(T* p, size_t n) { give_back(p, n * sizeof(T)); }
  bool operator==(const Taken&) const { return true; }
};
template <class T> using Vector = std::vector<T, Taken<T>>;
// What a Vector of `count` takes of a workspace.
template <class T> constexpr int64_t taken(int64_t count) { return (count * (int64_t)sizeof(T) + 63) / 64 * 64; }

}  // namespace pykernel
