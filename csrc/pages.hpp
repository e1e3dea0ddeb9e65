// Large memory that outlives a call: taking pages from the system anew costs as much as a third of the arithmetic on
// them. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stddef.h>

#include <utility>

namespace pykernel {

// Memory of undefined content, aligned to a large page; null where the system has none. What is given back is held for
// the next call, marked as free for the system to take, as long as all together stays below `most_held_bytes`. Any
// thread may take and give.
class Pages {
 public:
  Pages() = default;
  explicit Pages(size_t bytes);
  Pages(Pages&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Pages& operator=(Pages&& other) noexcept {
    std::swap(data_, other.data_), std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Pages();
  void* get() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;  // of the mapping
};

constexpr size_t most_held_bytes = (size_t)576 << 20;
constexpr size_t worth_pages = (size_t)1 << 19;  // below it the C library's own memory does as well

// Gives to the system what no call uses.
void release_held_pages();

}  // namespace pykernel
