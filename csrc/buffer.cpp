// Large arrays lie in pages, small ones with the C library; what is to be zero is cleared a piece at a time.
// SPDX-License-Identifier: BSD-3-Clause
#include "buffer.hpp"

#include <string.h>

#include <algorithm>
#include <new>

namespace pykernel {

template <class T> Buffer<T>::Buffer(size_t count, Content content, const Team* team) {
  size_t bytes;
  if (__builtin_mul_overflow(count, sizeof(T), &bytes) || bytes > SIZE_MAX - 64) throw std::bad_alloc();
  bytes = (bytes + 63) / 64 * 64 + 64;
  if (bytes >= worth_pages && !is_lent()) pages_ = Pages(bytes);
  if (!pages_.get()) data_ = {static_cast<T*>(take(bytes)), Free{bytes}};
  if (content == Content::undefined) return;
  constexpr size_t piece = (size_t)16 << 20;
  for (size_t done = 0; done < bytes; done += piece) {
    if (done && team && team->stopped()) throw Stopped{};
    memset(reinterpret_cast<char*>(get()) + done, 0, std::min(piece, bytes - done));
  }
}

template class Buffer<float>;
template class Buffer<double>;

}  // namespace pykernel
