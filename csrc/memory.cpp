// SPDX-License-Identifier: BSD-3-Clause
// A stack over the caller's bytes: what is given back last in first out is used again.
#include "memory.hpp"

#include <stdint.h>
#include <stdlib.h>

#include <algorithm>
#include <new>
#include <stdexcept>

namespace pykernel {
namespace {

thread_local Lent* lent = nullptr;

size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

Lent::Lent(void* data, size_t bytes) : begin_(static_cast<char*>(data)), end_(begin_ + bytes), before_(lent) {
  if (!data) throw std::invalid_argument("the workspace must be given");
  top_ = begin_ += std::min(bytes, -reinterpret_cast<uintptr_t>(data) % 64);
  lent = this;
}
Lent::~Lent() { lent = before_; }

bool is_lent() { return lent; }

void* take(size_t bytes) {
  bytes = whole_lines(bytes);
  void* p;
  if (lent) {
    if (bytes > static_cast<size_t>(lent->end_ - lent->top_)) throw std::bad_alloc();
    p = lent->top_;
    lent->top_ += bytes;
  } else {
    p = aligned_alloc(64, bytes ? bytes : 64);
  }
  if (!p) throw std::bad_alloc();
  return p;
}

void give_back(void* p, size_t bytes) {
  if (!p) return;
  char* at = static_cast<char*>(p);
  if (!lent || at < lent->begin_ || at >= lent->end_) return free(p);
  if (at + whole_lines(bytes) == lent->top_) lent->top_ = at;
}

void* thread_scratch(size_t bytes) {
  if (lent) {
    if (bytes > lent->scratch_bytes_) lent->scratch_ = take(bytes), lent->scratch_bytes_ = bytes;
    return lent->scratch_;
  }
  static thread_local struct Scratch {
    void* data = nullptr;
    size_t size = 0;
    ~Scratch() { free(data); }
  } scratch;
  if (bytes > scratch.size) {
    free(scratch.data);
    scratch.size = 0;
    scratch.data = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!scratch.data) throw std::bad_alloc();
    scratch.size = bytes;
  }
  return scratch.data;
}

}  // namespace pykernel
