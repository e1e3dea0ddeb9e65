// The stream's public door over the tables: panel layouts in, plain rows and columns out, by way of a few kilobytes on
// the stack. SPDX-License-Identifier: BSD-3-Clause
#include "pykernel/stream.hpp"

#include <string.h>

#include <algorithm>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>

#include "isa.hpp"
#include "pykernel/block.hpp"

namespace pykernel {
namespace {

constexpr int64_t largest = (int64_t)1 << 32;

void check(const Address& a, int64_t rows, int64_t columns, const void* out) {
  if (a.purpose > 255 || a.layer >= 1 << 24)
    throw std::invalid_argument("purpose must be below 256 and layer below 2^24");
  if (rows < 0 || columns < 0 || rows > largest || columns > largest)
    throw std::invalid_argument("units, rows and columns must be from 0 to 2^32");
  if (!out && rows && columns) throw std::invalid_argument("out must be given");
}

void tall(const Address& a, TallDraw draw, int64_t units, int64_t columns, float* out) {
  check(a, units, columns, out);
  constexpr int64_t piece = 16;
  alignas(64) float block[64 * piece];
  const Tall address = {a.seed, a.purpose, a.layer, a.replica, draw};
  for (int64_t b = 0; b < columns; b += piece)
    for (int64_t unit = 0; unit < units; unit += 64) {
      const int64_t B = std::min(piece, columns - b), n = std::min<int64_t>(64, units - unit);
      product_table<float>().tall(address, units, b, B, unit / 16, unit / 16 + panels_of(n), block);
      for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < B; j++) out[(unit + i) * columns + b + j] = block[entry_at(i, j, B)];
    }
}

}  // namespace

Distribution distribution_called(const char* name) {
  std::string known;
  int i = 0;
  for (const char* one : distribution_names) {
    if (name && !strcmp(name, one)) return (Distribution)i;
    i++;
  }
  for (const char* one : distribution_names) known += (known.empty() ? "" : ", ") + std::string(one);
  throw std::invalid_argument("unknown distribution " + std::string(name ? name : "(null)") +
                              "; drawn by address are " + known);
}

void check_parameter(Distribution distribution, double parameter) {
  const ParameterRange& range = product_table<float>().parameters[(int)distribution];
  if (!range.what ||
      (parameter >= range.least && parameter <= range.most && !(range.above && parameter == range.least)))
    return;
  std::ostringstream said;
  said << range.what << " of \"" << distribution_names[(int)distribution] << "\" must be "
       << (range.above ? "above " : "at least ") << range.least << " and at most " << range.most;
  throw std::invalid_argument(said.str());
}

void draw_words(const Address& a, int64_t units, int64_t columns, uint32_t* out) {
  check(a, units, columns, out);
  for (int64_t b = 0; b < columns; b++)
    for (int64_t g = 0; g * 64 < units; g++)
      for (int64_t lane = 0; lane < std::min<int64_t>(16, units - g * 64); lane++) {
        const uint32_t counter[] = {(uint32_t)(16 * g + lane), (uint32_t)b, a.layer | a.purpose << 24, a.replica};
        uint32_t words[4];
        philox(counter, a.seed, words);
        for (int64_t w = 0, i = g * 64 + lane; w < 4 && i < units; w++, i += 16) out[i * columns + b] = words[w];
      }
}
void draw_uniforms(const Address& a, int64_t units, int64_t columns, float* out) {
  tall(a, TallDraw::uniform, units, columns, out);
}
void draw_normals(const Address& a, int64_t units, int64_t columns, float* out) {
  tall(a, TallDraw::normal, units, columns, out);
}

void draw_weights(const Address& a, Distribution distribution, double parameter, int64_t first_row,
                  int64_t first_column, int64_t rows, int64_t columns, float* out) {
  check(a, rows, columns, out);
  if (first_row < 0 || first_column < 0 || first_row > largest - rows || first_column > largest - columns)
    throw std::invalid_argument("the tile must lie within rows and columns 0 to 2^32");
  if (distribution < Distribution::normal || (size_t)distribution >= std::size(distribution_names))
    throw std::invalid_argument("unknown distribution");
  check_parameter(distribution, parameter);
  constexpr int64_t piece = 256;
  alignas(64) float tile[16 * piece];
  const int64_t last_row = first_row + rows, last_column = first_column + columns;
  const Weights<float> w = {last_row, last_column, 1,         distribution, parameter,
                            a.seed,   a.layer,     a.replica, nullptr,      nullptr};
  for (int64_t p = first_row / 16; p * 16 < last_row; p++)
    for (int64_t k = first_column / 4 * 4; k < last_column; k += piece) {
      const int64_t end = std::min(k + piece, last_column);
      product_table<float>().draw(w, p, p + 1, k, end, tile);
      for (int64_t i = std::max(first_row, p * 16); i < std::min(last_row, p * 16 + 16); i++)
        for (int64_t j = std::max(first_column, k); j < end; j++)
          out[(i - first_row) * columns + j - first_column] = tile[(j - k) * 16 + i % 16];
    }
}

}  // namespace pykernel
