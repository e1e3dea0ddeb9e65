// The table of attention's kernels for one instruction set; compiled once for each.
// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/mix.hpp"

#include "kernels/maths-inl.hpp"
#include "kernels/product.hpp"
// after its table
#include "kernels/product-inl.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

// -- products: all five are Z (+)= factor W U with W in panels of 16 rows, which one way or the other is how heads lie

template <class T>
static void product(const T* w, int64_t stride, int64_t rows, int64_t n, const T* u, int64_t columns, T* z, bool first,
                    T factor) {
  const int64_t panels = panels_of(rows), groups = (columns + block_inputs<T> - 1) / block_inputs<T>;
  for (int64_t p = 0; p < panels; p += tile_panels) {
    const int count = (int)(panels - p < tile_panels ? panels - p : tile_panels);
    for (int64_t k = 0; k < n; k += tile_columns) {
      const int depth = (int)(n - k < tile_columns ? n - k : tile_columns);
      for (int64_t g = 0, b = 0; g < groups; g++) {
        const int inputs = (int)((columns - b + groups - g - 1) / (groups - g));
        multiply_inputs<T, T>(inputs, w + p * stride + k * panel_lanes, {stride}, count, depth,
                              u + k * columns + b * panel_lanes, columns, z + (p * columns + b) * panel_lanes,
                              first && k == 0, factor, k + depth == n);
        b += inputs;
      }
    }
  }
}

// -- a query's keys below `last`, in panels `stride` apart

// f(offset, lanes that are seen, place in the virtual vector) for every vector
template <class T, class F> PK_INLINE void over_keys(int64_t last, int64_t stride, F f) {
  int64_t p = 0;
  for (; (p + 1) * panel_lanes <= last; p++)
#pragma GCC unroll 8
    for (int j = 0; j < panel_vectors<T>; j++) f(p * stride + j * lanes<T>, Bits<T>{} == 0, j);
  if (p * panel_lanes < last)
#pragma GCC unroll 8
    for (int j = 0; j < panel_vectors<T>; j++)
      f(p * stride + j * lanes<T>, lane_numbers<T>(j) < (T)(last - p * panel_lanes), j);
}
#define PK_LOOK [&](int64_t o, Bits<T> seen, int j) __attribute__((always_inline))

template <class T> PK_INLINE T largest_score(const T* s, int64_t last, int64_t stride, T* sum) {
  Vec<T> top[panel_vectors<T>], total[panel_vectors<T>] = {};
#pragma GCC unroll 8
  for (int j = 0; j < panel_vectors<T>; j++) top[j] = broadcast((T)-INFINITY);
  over_keys<T>(
      last, stride, PK_LOOK {
        const Vec<T> x = load(s + o);
        top[j] = max(seen ? x : broadcast((T)-INFINITY), top[j]);
        total[j] += seen ? x : Vec<T>{};
      });
  *sum = sum_lanes<T>(total);
  return max_lanes<T>(top);
}

// What a softmax leaves behind: the sum of e^(power (x - top)), that without the largest, and of itself times its
// logarithm.
template <class T> struct Total {
  T sum, rest, product, square;  // square: of x - mean
};

// s = shares of the largest weight, whose sum is left to divide what comes of them: means of numbers of a format are
// then exact, and ties of theirs what they are; plain: the weights.
template <class T> PK_INLINE Total<T> weigh(T* s, int64_t last, int64_t stride, T top, T power, bool plain, T mean) {
  Vec<T> below[panel_vectors<T>] = {}, equal[panel_vectors<T>] = {}, product[panel_vectors<T>] = {},
         square[panel_vectors<T>] = {};
  over_keys<T>(
      last, stride, PK_LOOK {
        const Vec<T> x = load(s + o), t = max(broadcast((T)-1000), (x - top) * power), d = seen ? x - mean : Vec<T>{};
        const Vec<T> e = seen ? exp(t) : Vec<T>{};
        store(s + o, e);
        below[j] += t < 0 ? e : Vec<T>{}, equal[j] += t < 0 ? Vec<T>{} : e;
        product[j] = fma(e, t, product[j]), square[j] = fma(d, d, square[j]);
      });
  const T rest = sum_lanes<T>(below), ties = sum_lanes<T>(equal), sum = rest + ties, inverse = 1 / sum;
  if (plain)
    over_keys<T>(
        last, stride, PK_LOOK {
          (void)seen, (void)j;
          store(s + o, load(s + o) * inverse);
        });
  return {sum, plain ? sum - 1 : rest + (ties - 1), sum_lanes<T>(product), sum_lanes<T>(square)};
}

template <class T> PK_INLINE void clear_unseen(T* s, int64_t last, int64_t keys, int64_t stride) {
  for (int64_t k = (last + panel_lanes - 1) / panel_lanes; k < panels_of(keys); k++)
    __builtin_memset(s + k * stride, 0, panel_lanes * sizeof(T));
}
template <class T> int64_t keys_of(const MixHead<T>& h, const MixTile<T>& t) {
  return h.causal ? t.first + t.count : h.positions;
}
template <class T> int64_t keys_of(const MixHead<T>& h, const MixTile<T>& t, int64_t query) {
  return h.causal ? t.first + query + 1 : h.positions;
}
template <class T> void make_scores(const MixHead<T>& h, const MixTile<T>& t) {
  product(h.keys_turned, h.units * panel_lanes, keys_of(h, t), h.units, t.queries, t.count, t.scores, true, h.factor);
}

// -- forward

template <class T> void forward(const MixHead<T>& h, const MixTile<T>& t, T* out, MixSums* sums) {
  const int64_t keys = keys_of(h, t), stride = t.count * panel_lanes;
  T divisors[most_queries];
  make_scores(h, t);
  for (int64_t b = 0; b < t.count; b++) {
    T* s = t.scores + b * panel_lanes;
    const int64_t last = keys_of(h, t, b);
    T sum;
    const T top = largest_score(s, last, stride, &sum), mean = sum / (T)last;
    const Total<T> total = weigh(s, last, stride, h.plain ? T(0) : top, h.power, h.plain, mean);
    divisors[b] = total.sum;
    clear_unseen(s, last, keys, stride);
    if (!sums) continue;
    const double log_sum = h.plain ? ::log((double)total.sum) : ::log1p((double)total.rest);
    sums->add({log_sum - (double)total.product / (double)total.sum, (double)last, (double)mean, (double)total.square});
  }
  product(h.values, h.positions * panel_lanes, h.units, keys, t.scores, t.count, out, true, T(1));
  if (h.plain) return;
  for (int64_t o = 0; o < panels_of(h.units) * stride; o += lanes<T>)
    store(out + o, load(out + o) / divisors[o % stride / panel_lanes]);
}

// -- backward

// A query's largest score, where it first stands, and of each lane the two largest.
template <class T> struct Largest {
  Vec<T> first[panel_vectors<T>], second[panel_vectors<T>];
  T top;
  int64_t place;
  T runner_up() const {
    T a[panel_lanes], b[panel_lanes], best = (T)-INFINITY;
    __builtin_memcpy(a, first, sizeof a), __builtin_memcpy(b, second, sizeof b);
    bool met = false;
    for (int i = 0; i < panel_lanes; i++) {
      const bool own = !met && a[i] == top;
      met |= own;
      const T x = own ? b[i] : a[i];
      best = x > best ? x : best;
    }
    return best;
  }
};
template <class T> PK_INLINE Largest<T> two_largest(const T* s, int64_t last, int64_t stride) {
  const Vec<T> none = broadcast((T)-INFINITY);
  Largest<T> l;
#pragma GCC unroll 8
  for (int j = 0; j < panel_vectors<T>; j++) l.first[j] = l.second[j] = none;
  over_keys<T>(
      last, stride, PK_LOOK {
        const Vec<T> x = seen ? load(s + o) : none;
        l.second[j] = max(min(x, l.first[j]), l.second[j]), l.first[j] = max(x, l.first[j]);
      });
  l.top = max_lanes<T>(l.first), l.place = 0;
  for (int64_t k = 0; k < last; k++)
    if (s[k / panel_lanes * stride + k % panel_lanes] == l.top) {
      l.place = k / panel_lanes * stride + k % panel_lanes;
      break;
    }
  return l;
}

// flow = A (flow - from - mean) with A = shares / sum
template <class T>
PK_INLINE void through_softmax(const T* a, T* flow, int64_t last, int64_t stride, T from, T inverse) {
  Vec<T> sum[panel_vectors<T>] = {};
  over_keys<T>(
      last, stride, PK_LOOK {
        (void)seen;
        sum[j] = fma(load(a + o), load(flow + o) - from, sum[j]);
      });
  const T mean = sum_lanes<T>(sum) * inverse;
  over_keys<T>(
      last, stride, PK_LOOK {
        (void)seen, (void)j;
        store(flow + o, (load(a + o) * inverse) * ((load(flow + o) - from) - mean));
      });
}
// The same times e^(-power gap), of scores, where the weights but the largest are too small for T.
template <class T>
PK_INLINE void through_one_hot(const T* s, T* flow, int64_t last, int64_t stride, T top, T gap, T power,
                               int64_t place) {
  const T from = flow[place];
  Vec<T> sum[panel_vectors<T>] = {};
  over_keys<T>(
      last, stride, PK_LOOK {
        const Vec<T> below = load(s + o) - top, share = exp(max(broadcast((T)-1000), (below - gap) * power));
        const Vec<T> x = seen && below < 0 ? share * (load(flow + o) - from) : Vec<T>{};
        store(flow + o, x);
        sum[j] += x;
      });
  flow[place] = -sum_lanes<T>(sum);
}

// A query of turned units over its sum.
template <class T> PK_INLINE void divide_query(T* turned, int64_t units, T divisor) {
  for (int64_t i = 0; i < units; i++) turned[i * panel_lanes] /= divisor;
}

template <class T> constexpr T next_to_nothing = sizeof(T) == 4 ? T(0x1p-40) : T(0x1p-400);

template <class T> T backward(const MixHead<T>& h, const MixTile<T>& t, T* dq, T* dk, T* dv) {
  const int64_t keys = keys_of(h, t), stride = t.count * panel_lanes;
  T gap = (T)-INFINITY;
  make_scores(h, t);
  product(h.values_turned, h.units * panel_lanes, keys, h.units, t.gradient, t.count, t.flow, true, T(1));
  for (int64_t b = 0; b < t.count; b++) {
    T *s = t.scores + b * panel_lanes, *flow = t.flow + b * panel_lanes;
    const int64_t last = keys_of(h, t, b);
    const Largest<T> largest = two_largest(s, last, stride);
    const T top = largest.top;
    if (h.gap < 0) through_one_hot(s, flow, last, stride, top, h.gap, h.power, largest.place);
    const Total<T> total = weigh(s, last, stride, h.plain ? T(0) : top, h.power, h.plain, T(0));
    clear_unseen(s, last, keys, stride);
    clear_unseen(flow, last, keys, stride);
    const T divisor = h.plain ? T(1) : total.sum;
    if (!(h.gap < 0)) through_softmax(s, flow, last, stride, h.plain ? T(0) : flow[largest.place], 1 / divisor);
    divide_query(t.gradient_turned + b / panel_lanes * h.units * panel_lanes + b % panel_lanes, h.units, divisor);
    const T own = total.rest < next_to_nothing<T> ? largest.runner_up() - top : T(0);
    gap = own > gap ? own : gap;
  }
  product(h.keys, h.positions * panel_lanes, h.units, keys, t.flow, t.count, dq, true, T(1));
  product(t.scores, stride, keys, t.count, t.gradient_turned, h.units, dv, false, T(1));
  product(t.flow, stride, keys, t.count, t.queries_turned, h.units, dk, false, T(1));
  return h.plain ? T(0) : gap;
}

// -- how heads lie

template <class T>
void gather(const T* block, int64_t C, int64_t first_unit, int64_t units, int64_t first, int64_t count, T factor,
            T* out) {
  if (first_unit % panel_lanes == 0) {
    for (int64_t p = 0; p < panels_of(units); p++) {
      const T* from = block + ((first_unit / panel_lanes + p) * C + first) * panel_lanes;
      for (int64_t o = 0; o < count * panel_lanes; o += lanes<T>)
        store(out + p * count * panel_lanes + o, load(from + o) * factor);
    }
    if (units % panel_lanes) clear_padding(out + (panels_of(units) - 1) * count * panel_lanes, units, count);
    return;
  }
  for (int64_t i = 0; i < padded(units); i++)
    for (int64_t b = 0; b < count; b++)
      out[entry_at(i, b, count)] = i < units ? block[entry_at(first_unit + i, first + b, C)] * factor : T(0);
}

template <class T>
void scatter(const T* in, int64_t C, int64_t first_unit, int64_t units, int64_t first, int64_t count, T factor,
             T* block) {
  if (first_unit % panel_lanes == 0 && units % panel_lanes == 0) {
    for (int64_t p = 0; p < panels_of(units); p++) {
      T* to = block + ((first_unit / panel_lanes + p) * C + first) * panel_lanes;
      for (int64_t o = 0; o < count * panel_lanes; o += lanes<T>)
        store(to + o, load(in + p * count * panel_lanes + o) * factor);
    }
    return;
  }
  for (int64_t i = 0; i < units; i++)
    for (int64_t b = 0; b < count; b++)
      block[entry_at(first_unit + i, first + b, C)] = in[entry_at(i, b, count)] * factor;
}

template <class T> void turn(const T* in, int64_t m, int64_t n, T* out) {
  constexpr int w = lanes<T>;
  for (int64_t i = 0; i < m; i += w)
    for (int64_t j = 0; j < n; j += w) {
      Vec<T> v[w];
#pragma GCC unroll 16
      for (int k = 0; k < w; k++)
        v[k] = j + k < n ? load(in + (i / panel_lanes * n + j + k) * panel_lanes + i % panel_lanes) : Vec<T>{};
      transpose<T>(v);
#pragma GCC unroll 16
      for (int k = 0; k < w; k++)
        if (i + k < m) store(out + (j / panel_lanes * m + i + k) * panel_lanes + j % panel_lanes, v[k]);
    }
  for (int64_t j = (n + w - 1) / w * w; j < padded(n); j += w)  // vectors beyond the last
    for (int64_t i = 0; i < m; i++) store(out + (j / panel_lanes * m + i) * panel_lanes + j % panel_lanes, Vec<T>{});
}

template <class T> constexpr Mixing<T> table = {gather<T>, scatter<T>, turn<T>, product<T>, forward<T>, backward<T>};

}  // namespace

const Mixing<float>& mixing(float) { return table<float>; }
const Mixing<double>& mixing(double) { return table<double>; }

}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
