// An array that a run owns: on the heap, in pages that outlive a call where it is large, or in the workspace that an
// embedder lends. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stddef.h>

#include <memory>

#include "memory.hpp"
#include "pages.hpp"
#include "team.hpp"

namespace pykernel {

enum class Content { zero, undefined };

// Aligned to a cache line, and zeroed unless told otherwise.
template <class T> class Buffer {
 public:
  Buffer() = default;
  // Large ones take long to clear: with a team, Stopped is thrown where the run should end.
  explicit Buffer(size_t count, const Team* team = nullptr) : Buffer(count, Content::zero, team) {}
  Buffer(size_t count, Content content, const Team* team = nullptr);
  // What it takes of a workspace.
  static constexpr int64_t bytes(int64_t count) { return taken<T>(count) + 64; }
  T* get() const { return pages_.get() ? static_cast<T*>(pages_.get()) : data_.get(); }

 private:
  struct Free {
    size_t bytes;
    void operator()(T* p) const { give_back(p, bytes); }
  };
  std::unique_ptr<T, Free> data_;
  Pages pages_;  // where it is large
};

}  // namespace pykernel
