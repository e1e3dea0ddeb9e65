// Rounding to a smaller number format, subnormals included, to nearest, ties to even, or by chance: of blocks and of
// tiles of weights. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kernels/functions-inl.hpp"
#include "pykernel/formats.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

template <class T> constexpr int fraction_bits = sizeof(T) == 4 ? 23 : 52;

// Of a magnitude's bits the lower ones are rounded away, with a carry into the exponent where it comes to that. Below
// the smallest normal number units in the last place are all one, that of `lift`: adding and taking it away rounds.
template <class T> class Rounder {
 public:
  explicit Rounder(const Format& f)
      : drop_(fraction_bits<T> - f.fraction),
        fraction_(f.fraction),
        lowest_(f.lowest),
        half_(((Integer)1 << (drop_ - 1)) - 1),
        keep_(~(((Integer)1 << drop_) - 1)),
        lift_((T)__builtin_ldexp(1, f.lowest + drop_)),
        normal_((T)__builtin_ldexp(1, f.lowest)),
        largest_((T)f.largest),
        beyond_(f.infinite ? (T)__builtin_inf() : largest_) {}
  __attribute__((always_inline)) Vec<T> operator()(Vec<T> x) const {
    const Vec<T> size = abs(x);
    const Bits<T> whole = bits(size), even = (whole + half_ + ((whole >> drop_) & 1)) & keep_;
    return finished(x, size < normal_ ? (size + lift_) - lift_ : from_bits(even));
  }
  // Of k + f units in the last place k + 1 where floor(2^31 f) + floor(word / 2) reaches 2^31, else k.
  __attribute__((always_inline)) Vec<T> by_chance(Vec<T> x, Bits<T> half_word) const {
    const Vec<T> size = abs(x);
    const Bits<T> chance = drop_ > 31 ? half_word << (drop_ > 31 ? drop_ - 31 : 0) : half_word >> (31 - drop_);
    const Bits<T> normal = (bits(size) + chance) & keep_;
    // below the smallest normal number in two steps, since one unit of a bfloat16 is beyond float32 when inverted
    const int unit = lowest_ - fraction_, half = unit / 2;
    const Vec<T> up = broadcast((T)__builtin_ldexp(1, -half)), rest = broadcast((T)__builtin_ldexp(1, half - unit));
    const Vec<T> small = size < normal_ ? size * up * rest : Vec<T>{};
    const Vec<T> below =
        whole_units(small, half_word) * (T)__builtin_ldexp(1, half) * (T)__builtin_ldexp(1, unit - half);
    return finished(x, size < normal_ ? below : from_bits(normal));
  }

 private:
  typedef typename VectorOf<T>::integer Integer;
  __attribute__((always_inline)) Vec<T> finished(Vec<T> x, Vec<T> out) const {
    out = out > largest_ ? broadcast(beyond_) : out;
    return x == x ? copysign(out, x) : x;
  }
  static __attribute__((always_inline)) F32 whole_units(F32 units, I32 half_word) {
    const I32 whole = truncate_to_int(units), share = truncate_to_int((units - to_float(whole)) * 0x1p31f);
    return to_float(whole + (I32)(((U32)share + (U32)half_word) >> 31));
  }
  static __attribute__((always_inline)) F64 whole_units(F64 units, I64 half_word) {
    const I64 share = floor_to_int(units * 0x1p31);  // the units above 31 bits
    return to_float((share + half_word) >> 31);
  }
  // of numbers below 2^50
  static __attribute__((always_inline)) I64 floor_to_int(F64 x) {
    const I64 near = round_to_int(x);
    return near + (to_float(near) > x);
  }
  const int drop_, fraction_, lowest_;
  const Integer half_, keep_;
  const T lift_, normal_, largest_, beyond_;
};

// Half of as many words as Vec<T> has lanes, in its lanes.
template <class T> PK_INLINE Bits<T> load_words(const uint32_t* p) {
  if constexpr (sizeof(T) == 4) {
    return (I32)(load(p) >> 1);
  } else {
    I64 words;
    for (int i = 0; i < lanes<T>; i++) words[i] = p[i] >> 1;
    return words;
  }
}

template <class T> Sums round(T* x, int64_t units, int64_t B, const Format& format, const uint32_t* words) {
  const Rounder<T> rounder(format);
  if (words)
    return reduce<T>(panels(units) * 16, B, [&](int64_t o, Bits<T>) {
      const Vec<T> stored = rounder.by_chance(load(x + o), load_words<T>(words + o));
      store(x + o, stored);
      return stored;
    });
  return reduce<T>(panels(units) * 16, B, [&](int64_t o, Bits<T>) {
    const Vec<T> stored = rounder(load(x + o));
    store(x + o, stored);
    return stored;
  });
}

// n columns of panels of a matrix as stored, scale included: tile[i * stride + o] of those whose blocks of 16 columns
// lie `from_block` apart
template <class T, class W>
PK_INLINE void round_tile(const Format& format, T scale, const W* from, int64_t from_stride, int64_t from_block,
                          int count, int n, T* tile, int64_t stride) {
  const Rounder<T> rounder(format);
  for (int i = 0; i < count; i++)
    for (int o = 0; o < n * 16; o += lanes<T>)
      store(tile + i * stride + o,
            rounder(load_as<T>(from + i * from_stride + o / 256 * from_block + o % 256) * scale));
}

template <class T>
Comparison compare(const T* x, const T* plain, int64_t units, int64_t B, double factor, double plain_factor,
                   const Format& format, const uint32_t* words) {
  constexpr int parts = panel_vectors<double>, width = lanes<double>;
  const Rounder<T> rounder(format);
  const bool rounds = format.fraction;
  const Vec<T> none = {}, inf = broadcast((T)__builtin_inf());
  F64 error[parts] = {}, square[parts] = {}, plain_square[parts] = {}, product[parts] = {};
  Vec<T> smallest[panel_vectors<T>], largest[panel_vectors<T>] = {};
  Bits<T> flushed[panel_vectors<T>] = {}, overflowed[panel_vectors<T>] = {};
  for (int j = 0; j < panel_vectors<T>; j++) smallest[j] = inf;
  for (int64_t o = 0; o < panels(units) * 16 * B; o += 16) {
    for (int j = 0; j < panel_vectors<T>; j++) {
      const Vec<T> v = load(x + o + j * lanes<T>), size = abs(v);
      const Bits<T> alive = (size > 0) & (size < inf);
      const Vec<T> after = !rounds ? size
                           : words ? abs(rounder.by_chance(v, load_words<T>(words + o + j * lanes<T>)))
                                   : abs(rounder(v));
      flushed[j] += alive & (after == 0);
      overflowed[j] += alive & (after >= (rounds ? broadcast((T)format.largest) : inf));
      smallest[j] = min(alive ? size : inf, smallest[j]);
      largest[j] = max(alive ? size : none, largest[j]);
    }
    for (int j = 0; j < parts; j++) {
      const F64 a = load_as<double>(x + o + j * width) * factor,
                b = load_as<double>(plain + o + j * width) * plain_factor;
      const F64 d = a - b;
      error[j] = fma(d, d, error[j]), square[j] = fma(a, a, square[j]);
      plain_square[j] = fma(b, b, plain_square[j]), product[j] = fma(a, b, product[j]);
    }
  }
  Comparison out = {sum_lanes<double>(error),
                    sum_lanes<double>(square),
                    sum_lanes<double>(plain_square),
                    sum_lanes<double>(product),
                    __builtin_inf(),
                    (double)max_lanes<T>(largest),
                    0,
                    0};
  for (int j = 0; j < panel_vectors<T>; j++)
    for (int i = 0; i < lanes<T>; i++) {
      out.smallest = out.smallest < smallest[j][i] ? out.smallest : (double)smallest[j][i];
      out.flushed -= flushed[j][i], out.overflowed -= overflowed[j][i];  // a mask that holds is -1
    }
  return out;
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
