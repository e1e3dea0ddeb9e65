// Of few columns blocks are read where they lie, and draws, of a chunk at a time, column by column; of many one side is
// turned, and the other read number by number. SPDX-License-Identifier: BSD-3-Clause
#include "inner.hpp"

#include <algorithm>

#include "isa.hpp"

namespace pykernel {
namespace {

constexpr int64_t laid_entries = 1 << 18;  // of one side: a MiB of floats, near the cores
// From so many columns on the strips of one chunk keep a team busy; with fewer, chunks side by side do.
constexpr int64_t many_columns = 128, strip_columns = 32;
constexpr int64_t wide_columns = 32;  // from so many of a side on it is worth turning one

template <class T> int64_t span_of(int64_t B, int64_t units) {
  const int64_t least = summed_units<T>, wanted = B < many_columns ? laid_entries / B / least * least : least;
  return std::min(wanted, (units + least - 1) / least * least);
}
// Of one side of many columns.
template <class T> int64_t laid_of(int64_t B, int64_t units) { return B < wide_columns ? 0 : B * span_of<T>(B, units); }
template <class T> int64_t sums_of(int64_t B, int64_t units) {
  return B < many_columns ? span_of<T>(B, units) / summed_units<T> * B * B : 0;
}
// What lies below the diagonal from above it, in squares that stay in L1.
void mirror(double* out, int64_t count, int64_t stride) {
  constexpr int64_t side = 16;
  for (int64_t j0 = 0; j0 < count; j0 += side)
    for (int64_t b0 = 0; b0 <= j0; b0 += side)
      for (int64_t j = j0; j < std::min(count, j0 + side); j++)
        for (int64_t b = b0; b < std::min(j, b0 + side); b++) out[j * stride + b] = out[b * stride + j];
}
int64_t whole_panels(int64_t columns) { return panels_of(columns) * panel_units; }

}  // namespace

template <class T>
InnerProducts<T>::InnerProducts(int64_t B, int64_t units)
    : kernels_(matrix_free_table<T>()), span_(span_of<T>(B, units)) {
  for (auto& laid : laid_) laid.resize((size_t)laid_of<T>(B, units));
  sums_.resize((size_t)sums_of<T>(B, units));
}
template <class T> int64_t InnerProducts<T>::bytes(int64_t B, int64_t units) {
  return 2 * taken<T>(laid_of<T>(B, units)) + taken<double>(sums_of<T>(B, units));
}
template <class T> int64_t InnerProducts<T>::scratch_bytes(int64_t B) {
  return 2 * std::min(B, wide_columns - 1) * summed_units<T> * (int64_t)sizeof(T);
}

// lay(first, last): chunks that are near the cores from now on. multiply(place among them, first panel, panels, b0, b1,
// add, out, stride): a chunk's inner products with columns b0 .. b1 - 1.
template <class T>
template <class Lay, class Multiply>
void InnerProducts<T>::sum(const Product& of, int64_t chunk_units, Team& team, Lay lay, Multiply multiply) {
  const int64_t panels = chunk_units / panel_units, all = panels_of(of.units), chunks = (all + panels - 1) / panels,
                J = of.a.count, B = of.y.count;
  const bool at_once = team.size() == 1 || sums_.empty() || chunks == 1;  // one after the other to where they belong
  const int64_t together = at_once ? 1 : span_ / summed_units<T>, strips = (B + strip_columns - 1) / strip_columns;
  for (int64_t first = 0; first < chunks; first += together) {
    const int64_t last = std::min(chunks, first + together);
    lay(first, last);
    team.each((last - first) * strips, [&](int64_t task) {
      const int64_t place = task / strips, p = (first + place) * panels,
                    strip = of.triangle ? strips - 1 - task % strips : task % strips, b = strip * strip_columns;
      multiply(place, p, (int)std::min(panels, all - p), b, std::min(B, b + strip_columns), at_once && first > 0,
               at_once ? of.out : sums_.data() + place * J * B, at_once ? of.stride : B);
    });
    for (int64_t place = 0; !at_once && place < last - first; place++)
      for (int64_t j = 0; j < J; j++) {
        const double* found = sums_.data() + (place * J + j) * B;
        double* to = of.out + j * of.stride;
        for (int64_t b = of.triangle ? j : 0; b < B; b++) to[b] = first + place ? to[b] + found[b] : found[b];
      }
  }
  if (of.triangle) mirror(of.out, J, of.stride);
}

// A chunk's draws are in use where they are made, in L1 or near it.
template <class T> void InnerProducts<T>::few(const Product& of, Team& team) {
  const auto columns = [&](const Side<T>& side, T* drawn, int64_t p, int panels) -> Columns<T> {
    if (side.block) return {side.block + p * panel_units * side.count, panel_units, panel_units * side.count};
    for (int64_t i = 0; i < panels; i += group_panels)
      kernels_.draw(side.draws, (p + i) / group_panels, of.units, drawn + i * panel_units, summed_units<T>,
                    panel_units);
    return {drawn, summed_units<T>, panel_units};
  };
  sum(
      of, summed_units<T>, team, [](int64_t, int64_t) {},
      [&](int64_t, int64_t p, int panels, int64_t b0, int64_t b1, bool add, double* out, int64_t stride) {
        T* drawn = of.a.block && of.y.block
                       ? nullptr
                       : (T*)thread_scratch((size_t)scratch_bytes(std::max(of.a.count, of.y.count)));
        const Columns<T> a = columns(of.a, drawn, p, panels);
        const Columns<T> y = of.triangle ? a : columns(of.y, drawn + of.a.count * summed_units<T>, p, panels);
        kernels_.inner(a, of.a.count, y, b0, b1, panels, of.careful, of.triangle, add, out, stride);
      });
}

// One group of a side in S, turned or as it lies.
template <class T>
template <class S>
void InnerProducts<T>::pack(const Side<T>& side, bool turned, int64_t group, int64_t units, S* out) {
  constexpr bool careful = sizeof(S) > sizeof(T);
  const int64_t panel = panel_units * side.count;
  const int panels = (int)std::min<int64_t>(group_panels, panels_of(units) - group * group_panels);
  const T* from = side.block + group * group_panels * panel;
  if (!side.block) {
    T* drawn = careful || turned ? (T*)thread_scratch((size_t)(group_panels * panel) * sizeof(T)) : (T*)out;
    kernels_.draw(side.draws, group, units, drawn, panel_units, panel);
    from = drawn;
  }
  if (turned)
    kernels_.turn(from, side.count, panel, panels, careful, out);
  else if (careful)
    kernels_.widen(from, panels * panel, (double*)out);
}

template <class T> template <class S> void InnerProducts<T>::many(const Product& of, Team& team) {
  constexpr bool careful = sizeof(S) > sizeof(T);
  const int64_t groups = wide_units<S> / group_units, all = (of.units + group_units - 1) / group_units, J = of.a.count,
                width = whole_panels(of.y.count);
  S *laid = (S*)laid_[0].data(), *turned = (S*)laid_[1].data();
  const bool in_place = of.triangle || (of.a.block && !careful);
  sum(
      of, wide_units<S>, team,
      [&](int64_t first, int64_t last) {
        const int64_t begin = first * groups, count = std::min(last * groups, all) - begin;
        team.each(count, [&](int64_t i) {
          pack(of.y, true, begin + i, of.units,
               turned + i / groups * wide_units<S> * width + i % groups * group_units * panel_units);
          if (!in_place) pack(of.a, false, begin + i, of.units, laid + i * group_units * J);
        });
      },
      [&](int64_t place, int64_t p, int panels, int64_t b0, int64_t b1, bool add, double* out, int64_t stride) {
        const S* y = turned + place * wide_units<S> * width;
        const void* a = of.triangle ? y : laid + place * wide_units<S> * J;
        if (in_place && !of.triangle) a = of.a.block + p * panel_units * J;
        kernels_.multiply(a, panel_units * J, J, y, b0, b1, panels, careful, of.triangle, add, out, stride);
      });
}

template <class T>
void InnerProducts<T>::operator()(const Side<T>& a, const Side<T>* y, int64_t units, bool careful, double* out,
                                  int64_t stride, Team& team) {
  const Product of = {a, y ? *y : a, !y, careful, units, out, stride};
  if (std::max(of.a.count, of.y.count) < wide_columns)
    few(of, team);
  else if (careful)
    many<double>(of, team);
  else
    many<T>(of, team);
}

template class InnerProducts<float>;
template class InnerProducts<double>;

}  // namespace pykernel
