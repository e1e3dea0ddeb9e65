// Draws, and the columns of large blocks, are laid column by column where a dozen of them are near each other.
// SPDX-License-Identifier: BSD-3-Clause
#include "inner.hpp"

#include <algorithm>

#include "isa.hpp"

namespace pykernel {
namespace {

constexpr int64_t laid_entries = 1 << 18;  // of one side: a MiB of floats, near the cores
// From so many columns on the strips of one chunk keep a team busy; with fewer, chunks side by side do.
constexpr int64_t many_columns = 128, strip_columns = 24;
constexpr int64_t shared_columns = 32;  // with fewer a task is some groups, and all columns

template <class T> int64_t span_of(int64_t B, int64_t units) {
  const int64_t least = summed_units<T>, wanted = B < many_columns ? laid_entries / B / least * least : least;
  return std::min(wanted, (units + least - 1) / least * least);
}
template <class T> int64_t sums_of(int64_t B, int64_t units) {
  return B < many_columns ? span_of<T>(B, units) / summed_units<T> * B * B : 0;
}

}  // namespace

template <class T>
InnerProducts<T>::InnerProducts(int64_t B, int64_t units)
    : kernels_(matrix_free_table<T>()), span_(span_of<T>(B, units)) {
  for (auto& laid : laid_) laid.resize((size_t)(B * span_));
  sums_.resize((size_t)sums_of<T>(B, units));
}
template <class T> int64_t InnerProducts<T>::bytes(int64_t B, int64_t units) {
  return 2 * taken<T>(B * span_of<T>(B, units)) + taken<double>(sums_of<T>(B, units));
}

template <class T>
Columns<T> InnerProducts<T>::chunk_of(const Side<T>& side, const T* laid, int64_t first_chunk, int64_t chunk) const {
  if (lies_near(side))
    return {side.block + chunk * summed_units<T> * side.count, panel_units, panel_units * side.count};
  return {laid + (chunk - first_chunk) * summed_units<T> * side.count, summed_units<T>, panel_units};
}

// Chunks first .. last - 1 of a side.
template <class T>
void InnerProducts<T>::lay(const Side<T>& side, T* laid, int64_t first, int64_t last, int64_t units, Team& team) {
  if (lies_near(side)) return;
  const int64_t groups = summed_units<T> / group_units, begin = first * groups,
                end = std::min(last * groups, (units + group_units - 1) / group_units),
                each = side.count < shared_columns ? 4 : 1;
  team.each((end - begin + each - 1) / each, [&](int64_t task) {
    for (int64_t g = begin + task * each; g < std::min(end, begin + (task + 1) * each); g++) {
      T* out = laid + (g / groups - first) * summed_units<T> * side.count + g % groups * group_units;
      if (side.block)
        kernels_.lay(side.block, side.count, g, units, out, summed_units<T>);
      else
        kernels_.draw(side.draws, g, units, out, summed_units<T>);
    }
  });
}

template <class T>
void InnerProducts<T>::operator()(const Side<T>& a, const Side<T>* other, int64_t units, bool careful, double* out,
                                  int64_t stride, Team& team) {
  const bool triangle = !other;
  const Side<T>& y = other ? *other : a;
  const int64_t panels = summed_units<T> / panel_units, all_panels = panels_of(units),
                chunks = (all_panels + panels - 1) / panels, J = a.count, B = y.count, square = J * B;
  const bool at_once = sums_.empty() || chunks == 1;  // one chunk after the other straight to where it belongs
  const int64_t together = at_once ? 1 : span_ / summed_units<T>;
  const int64_t strips = B < shared_columns ? 1 : (B + strip_columns - 1) / strip_columns;
  for (int64_t first = 0; first < chunks; first += together) {
    const int64_t last = std::min(chunks, first + together);
    lay(a, laid_[0].data(), first, last, units, team);
    if (other) lay(y, laid_[1].data(), first, last, units, team);
    team.each((last - first) * strips, [&](int64_t task) {
      const int64_t chunk = first + task / strips, b = strips == 1 ? 0 : task % strips * strip_columns;
      const Columns<T> x = chunk_of(a, laid_[0].data(), first, chunk);
      kernels_.inner(x, J, other ? chunk_of(y, laid_[1].data(), first, chunk) : x, b,
                     strips == 1 ? B : std::min(B, b + strip_columns),
                     (int)std::min(panels, all_panels - chunk * panels), careful, triangle, at_once && first > 0,
                     at_once ? out : sums_.data() + (chunk - first) * square, at_once ? stride : B);
    });
    for (int64_t chunk = 0; !at_once && chunk < last - first; chunk++)
      for (int64_t j = 0; j < J; j++) {
        const double* sum = sums_.data() + chunk * square + j * B;
        double* to = out + j * stride;
        for (int64_t b = triangle ? j : 0; b < B; b++) to[b] = first + chunk ? to[b] + sum[b] : sum[b];
      }
  }
  for (int64_t j = 0; triangle && j < J; j++)
    for (int64_t b = 0; b < j; b++) out[j * stride + b] = out[b * stride + j];
}

template class InnerProducts<float>;
template class InnerProducts<double>;

}  // namespace pykernel
