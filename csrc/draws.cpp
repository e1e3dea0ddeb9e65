// Splits tall draws over a team and turns words into targets as pykernel/stream.py does.
// SPDX-License-Identifier: BSD-3-Clause
#include "draws.hpp"

namespace pykernel {
template <class T> void draw_tall(T* out, int64_t units, int64_t B, const Tall& address, Team& team) {
  constexpr int64_t group = 64;  // panels: a multiple of four
  const int64_t panels = panels_of(units);
  team.each((panels + group - 1) / group, [&](int64_t c) {
    product_table<T>().tall(address, units, B, c * group, panels < (c + 1) * group ? panels : (c + 1) * group, out);
  });
}
template void draw_tall(float*, int64_t, int64_t, const Tall&, Team&);
template void draw_tall(double*, int64_t, int64_t, const Tall&, Team&);

namespace {

// Word 0 of Philox4x32-10 at (0, line, layer | purpose << 24, replica): unit 0 of a tall array, as a word
uint32_t first_word(const Tall& a, uint32_t line) {
  uint32_t c[4] = {0, line, a.layer | a.purpose << 24, a.replica}, k0 = (uint32_t)a.seed, k1 = (uint32_t)(a.seed >> 32);
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
    const uint64_t p0 = (uint64_t)0xD2511F53 * c[0], p1 = (uint64_t)0xCD9E8D57 * c[2];
    c[0] = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, c[2] = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
    c[1] = (uint32_t)p1, c[3] = (uint32_t)p0;
  }
  return c[0];
}

}  // namespace

std::vector<double> draw_targets(Tall address, int loss, int64_t outputs, int64_t B, Team& team) {
  std::vector<double> t((size_t)(outputs * B));
  if (loss == softmax) {
    for (int64_t b = 0; b < B; b++)
      t[(size_t)((int64_t)(((uint64_t)first_word(address, (uint32_t)b) * (uint64_t)outputs) >> 32) * B + b)] = 1;
    return t;
  }
  std::vector<double> block((size_t)((outputs + 15) / 16 * 16 * B));
  address.draw = loss == mse || loss == linear_loss ? TallDraw::normal : TallDraw::bit;
  draw_tall(block.data(), outputs, B, address, team);
  for (int64_t o = 0; o < outputs; o++)
    for (int64_t b = 0; b < B; b++) t[(size_t)(o * B + b)] = block[(size_t)((o / 16 * B + b) * 16 + o % 16)];
  return t;
}

}  // namespace pykernel
