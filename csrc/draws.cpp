// Splits tall draws over a team and turns words into targets as pykernel/stream.py does.
// SPDX-License-Identifier: BSD-3-Clause
#include "draws.hpp"

#include <string.h>

#include <utility>

#include "pykernel/block.hpp"

namespace pykernel {

Unit unit_of(const Draw& draw) {
  constexpr std::pair<const char*, Source> whole[] = {
      {"given", Source::given}, {"identity", Source::identity}, {"constant", Source::constant}, {"haar", Source::haar}};
  for (const auto& [name, source] : whole)
    if (draw.distribution && !strcmp(draw.distribution, name))
      return {source, Distribution::normal, source == Source::haar ? draw.parameter : 0};
  const Distribution distribution = distribution_called(draw.distribution);
  check_parameter(distribution, draw.parameter);
  return {Source::drawn, distribution, draw.parameter};
}

template <class T> void draw_tall(T* out, int64_t units, int64_t B, const Tall& address, Team& team) {
  constexpr int64_t group = 64;  // panels: a multiple of four
  const int64_t panels = panels_of(units);
  team.each((panels + group - 1) / group, [&](int64_t c) {
    product_table<T>().tall(address, units, 0, B, c * group, panels < (c + 1) * group ? panels : (c + 1) * group,
                            out + c * group * 16 * B);
  });
}
template void draw_tall(float*, int64_t, int64_t, const Tall&, Team&);
template void draw_tall(double*, int64_t, int64_t, const Tall&, Team&);

namespace {

uint32_t first_word(const Tall& a, uint32_t line) {
  const uint32_t counter[] = {0, line, a.layer | a.purpose << 24, a.replica};
  uint32_t words[4];
  philox(counter, a.seed, words);
  return words[0];
}

}  // namespace

Vector<double> draw_targets(Tall address, int loss, int64_t outputs, int64_t B, Team& team) {
  Vector<double> t((size_t)(outputs * B));
  if (loss == softmax) {
    for (int64_t b = 0; b < B; b++)
      t[(size_t)((int64_t)(((uint64_t)first_word(address, (uint32_t)b) * (uint64_t)outputs) >> 32) * B + b)] = 1;
    return t;
  }
  Vector<double> block((size_t)((outputs + 15) / 16 * 16 * B));
  address.draw = loss == mse || loss == linear_loss ? TallDraw::normal : TallDraw::bit;
  draw_tall(block.data(), outputs, B, address, team);
  for (int64_t o = 0; o < outputs; o++)
    for (int64_t b = 0; b < B; b++) t[(size_t)(o * B + b)] = block[(size_t)(entry_at(o, b, B))];
  return t;
}

}  // namespace pykernel
