// Random words by address: Philox4x32-7 over the rows of a weight panel and down tall arrays (pykernel/stream.py is
// the definition). SPDX-License-Identifier: BSD-3-Clause
//
// Words live in the low halves of 64-bit lanes, even and odd lanes in two vectors; what lies in the high halves is
// never read, so a round costs 2 products, 2 shifts and 4 exclusive ors for each of the two vectors.
#pragma once
#include "kernels/simd-inl.hpp"
#include "kernels/weights.hpp"

namespace pykernel::PYKERNEL_ISA_NAMESPACE {
namespace {

constexpr uint32_t philox_m0 = 0xD2511F53, philox_m1 = 0xCD9E8D57;
PK_INLINE uint32_t high(uint64_t product) { return (uint32_t)(product >> 32); }

struct Keys {  // the key of each round, once as vectors and once as numbers
  U64 v0[philox_rounds], v1[philox_rounds];
  uint32_t k0[philox_rounds], k1[philox_rounds];
};
PK_INLINE void expand(Keys& keys, uint64_t seed) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int r = 0; r < philox_rounds; r++) {
    keys.k0[r] = k0, keys.k1[r] = k1;
    keys.v0[r] = (U64)broadcast(k0), keys.v1[r] = (U64)broadcast(k1);
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
}

struct Counters {  // lanes<float> / 2 counters
  U64 c0, c1, c2, c3;
};
PK_INLINE void advance(Counters& c, U64 k0, U64 k1) {
  const U64 p0 = mul_even(c.c0, broadcast((uint64_t)philox_m0)), p1 = mul_even(c.c2, broadcast((uint64_t)philox_m1));
  c.c0 = (p1 >> 32) ^ (c.c1 ^ k0);
  c.c2 = (p0 >> 32) ^ (c.c3 ^ k1);
  c.c1 = p1, c.c3 = p0;
}

// Rounds first.. of lanes<float> counters, given as even and odd ones; the four words in lane order.
template <int first> PK_INLINE void finish(Counters even, Counters odd, const Keys& keys, U32 (&words)[4]) {
#pragma GCC unroll 10
  for (int r = first; r < philox_rounds - 1; r++)
    advance(even, keys.v0[r], keys.v1[r]), advance(odd, keys.v0[r], keys.v1[r]);
  const U64 m0 = broadcast((uint64_t)philox_m0), m1 = broadcast((uint64_t)philox_m1);
  const U64 p0 = mul_even(even.c0, m0), q0 = mul_even(odd.c0, m0), p1 = mul_even(even.c2, m1),
            q1 = mul_even(odd.c2, m1);
  words[0] = interleave_high(p1, q1) ^ (interleave_low(even.c1, odd.c1) ^ (U32)keys.v0[philox_rounds - 1]);
  words[1] = interleave_low(p1, q1);
  words[2] = interleave_high(p0, q0) ^ (interleave_low(even.c3, odd.c3) ^ (U32)keys.v1[philox_rounds - 1]);
  words[3] = interleave_low(p0, q0);
}
// The same for n sets of counters.
template <int first, int n>
PK_INLINE void finish(const Counters (&even)[n], const Counters (&odd)[n], const Keys& keys, U32 (&words)[n][4]) {
#pragma GCC unroll 4
  for (int i = 0; i < n; i++) finish<first>(even[i], odd[i], keys, words[i]);
}

// One matrix's words. Only the line varies over lanes. After round 1 only word 0 does (and it does not depend on the
// block), round 2's vector product is the same for all blocks, and one of round 3's products is the same for all lines:
// 9 vector products, not 14.
struct MatrixStream {
  Keys keys;
  uint32_t purpose_layer, replica, p1_low, p1_high;
};
PK_INLINE void open(MatrixStream& s, uint64_t seed, uint32_t layer, uint32_t replica, uint32_t purpose) {
  expand(s.keys, seed);
  s.purpose_layer = layer | purpose << 24, s.replica = replica;
  const uint64_t p1 = (uint64_t)philox_m1 * s.purpose_layer;
  s.p1_low = (uint32_t)p1, s.p1_high = high(p1);
}

struct BlockWords {  // what rounds 1 to 4 need of a block, the same for all lines
  uint32_t x[4];
};
PK_INLINE BlockWords of_block(const MatrixStream& s, uint32_t block) {
  const uint64_t p0 = (uint64_t)philox_m0 * block;
  const uint64_t p1 = (uint64_t)philox_m1 * (high(p0) ^ s.replica ^ s.keys.k1[0]);
  const uint64_t q0 = (uint64_t)philox_m0 * (high(p1) ^ s.p1_low ^ s.keys.k0[1]);
  return {{(uint32_t)p0, (uint32_t)p1 ^ s.keys.k0[2], high(q0) ^ s.keys.k1[2], (uint32_t)q0 ^ s.keys.k1[3]}};
}

struct LineWords {  // what round 2 needs of lanes<float> / 2 lines, the same for all blocks
  U64 high, low;
};
PK_INLINE LineWords of_lines(const MatrixStream& s, U64 lines) {
  const U64 p0 = mul_even(lines ^ broadcast((uint64_t)(s.p1_high ^ s.keys.k0[0])), broadcast((uint64_t)philox_m0));
  return {(p0 >> 32) ^ s.keys.v1[1], p0};
}
PK_INLINE Counters after_round_4(const MatrixStream& s, LineWords line, BlockWords b) {
  const U64 x0 = (U64)broadcast(b.x[0]), x1 = (U64)broadcast(b.x[1]), x2 = (U64)broadcast(b.x[2]),
            x3 = (U64)broadcast(b.x[3]);
  const U64 p1 = mul_even(line.high ^ x0, broadcast((uint64_t)philox_m1));
  const U64 q0 = mul_even((p1 >> 32) ^ x1, broadcast((uint64_t)philox_m0)),
            q1 = mul_even(line.low ^ x2, broadcast((uint64_t)philox_m1));
  return {(q1 >> 32) ^ (p1 ^ s.keys.v0[3]), q1, (q0 >> 32) ^ x3, q0};
}

PK_INLINE U64 even_lanes(uint64_t first) {  // first, first + 2, ...
  U64 step;
  for (int i = 0; i < lanes<double>; i++) step[i] = 2 * (uint64_t)i;
  return broadcast(first) + step;
}

// Words of the 16 rows of a panel and n blocks: word w of block j, row lane, to out[(j * 4 + w) * 16 + lane].
constexpr int buffer_blocks = 16;
PK_INLINE void panel_words(const MatrixStream& s, int64_t panel, const BlockWords* blocks, int n, uint32_t* out) {
  for (int part = 0; part < panel_lanes; part += lanes<float>) {
    const uint64_t line = (uint64_t)panel * panel_lanes + part;
    const LineWords even = of_lines(s, even_lanes(line)), odd = of_lines(s, even_lanes(line + 1));
    uint32_t* to = out + part;
    for (int j = 0; j < n; j++, to += 4 * panel_lanes) {
      U32 words[4];
      finish<4>(after_round_4(s, even, blocks[j]), after_round_4(s, odd, blocks[j]), s.keys, words);
#pragma GCC unroll 4
      for (int w = 0; w < 4; w++) store(to + w * panel_lanes, words[w]);
    }
  }
}

// Words of units 64 group .. 64 group + 63 of one column of a tall array: unit 64 group + j in out[j].
PK_INLINE void tall_words(const Keys& keys, uint32_t purpose_layer, uint32_t replica, int64_t group, uint32_t column,
                          uint32_t* out) {
  for (int part = 0; part < panel_lanes; part += lanes<float>) {
    const uint64_t block = (uint64_t)group * panel_lanes + part;
    const U64 c1 = broadcast((uint64_t)column), c2 = broadcast((uint64_t)purpose_layer),
              c3 = broadcast((uint64_t)replica);
    Counters even[1] = {{even_lanes(block), c1, c2, c3}}, odd[1] = {{even_lanes(block + 1), c1, c2, c3}};
    U32 words[1][4];
    finish<0>(even, odd, keys, words);
    for (int w = 0; w < 4; w++) store(out + w * panel_lanes + part, words[0][w]);
  }
}

}  // namespace
}  // namespace pykernel::PYKERNEL_ISA_NAMESPACE
