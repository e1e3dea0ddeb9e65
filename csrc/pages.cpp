// Mappings of whole large pages, so that marking one as free never splits a page, and a list of those that no call
// uses. SPDX-License-Identifier: BSD-3-Clause
#include "pages.hpp"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <mutex>

namespace pykernel {
namespace {

constexpr size_t large_page = (size_t)2 << 20;

struct Mapping {
  void* data;
  size_t bytes;
};

class Shelf {
 public:
  // A mapping of at least so many bytes and not many more, or {null, 0}, with room made for a new one.
  Mapping take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    int best = -1;
    for (int i = 0; i < count_; i++)
      if (held_[i].bytes >= bytes && held_[i].bytes <= 2 * bytes && (best < 0 || held_[i].bytes < held_[best].bytes))
        best = i;
    if (best >= 0) {
      const Mapping found = held_[best];
      held_[best] = held_[--count_];
      return found;
    }
    total_ += bytes;
    shrink(most_held_bytes);
    return {nullptr, 0};
  }
  void give(Mapping m, bool hold) {
    const std::lock_guard lock(mutex_);
    if (hold && count_ < most) {
      held_[count_++] = m;
    } else {
      munmap(m.data, m.bytes);
      total_ -= m.bytes;
    }
    shrink(most_held_bytes);
  }
  void forget(size_t bytes) {  // what could not be mapped
    const std::lock_guard lock(mutex_);
    total_ -= bytes;
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    shrink(0);
  }

 private:
  static constexpr int most = 64;
  void shrink(size_t bytes) {  // the largest first
    while (count_ && total_ > bytes) {
      int largest = 0;
      for (int i = 1; i < count_; i++)
        if (held_[i].bytes > held_[largest].bytes) largest = i;
      munmap(held_[largest].data, held_[largest].bytes);
      total_ -= held_[largest].bytes;
      held_[largest] = held_[--count_];
    }
  }

  std::mutex mutex_;
  Mapping held_[most];
  int count_ = 0;
  size_t total_ = 0;  // bytes held and in use
};

Shelf* shelf = nullptr;  // never destroyed: threads outlive main

// A child of fork has none of the mappings (see below) and may have a locked mutex: it starts anew.
Shelf& the_shelf() {
  static const bool once = [] {
    shelf = new Shelf;
    pthread_atfork(nullptr, nullptr, [] { shelf = new Shelf; });
    return true;
  }();
  (void)once;
  return *shelf;
}

void* map(size_t bytes) {
  char* const p = (char*)mmap(nullptr, bytes + large_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  char* const data = (char*)(((uintptr_t)p + large_page - 1) / large_page * large_page);
  if (data > p) munmap(p, (size_t)(data - p));
  if (p + large_page > data) munmap(data + bytes, (size_t)(p + large_page - data));
#ifdef MADV_HUGEPAGE
  madvise(data, bytes, MADV_HUGEPAGE);
#endif
#ifdef MADV_DONTFORK
  madvise(data, bytes, MADV_DONTFORK);
#endif
  return data;
}

// Where the address space is limited, what is held would be missing elsewhere.
bool may_hold() {
#ifdef MADV_FREE
  rlimit limit;
  return getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY;
#else
  return false;
#endif
}

}  // namespace

Pages::Pages(size_t bytes) {
  if (!bytes || bytes > SIZE_MAX / 4) return;
  bytes = (bytes + large_page - 1) / large_page * large_page;
  const Mapping found = the_shelf().take(bytes);
  data_ = found.data, bytes_ = found.bytes;
  if (data_) return;
  data_ = map(bytes);
  if (!data_) release_held_pages(), data_ = map(bytes);
  if (data_)
    bytes_ = bytes;
  else
    the_shelf().forget(bytes);
}

Pages::~Pages() {
  if (!data_) return;
  const bool hold = may_hold();
#ifdef MADV_FREE
  if (hold) madvise(data_, bytes_, MADV_FREE);
#endif
  the_shelf().give({data_, bytes_}, hold);
}

void release_held_pages() { the_shelf().clear(); }

}  // namespace pykernel
