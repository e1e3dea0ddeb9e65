// The random stream by address: any word, uniform, normal or tile of a weight matrix, made again by whoever knows where
// it lies. SPDX-License-Identifier: BSD-3-Clause
//
// Philox4x32-7 (Salmon et al. 2011). Key: the seed. Counter: (block, line, layer | purpose << 24, replica);
// docs/design.md, section 3. Tall arrays: entry (unit i, column b) is word (i / 16) % 4 of block 16 (i / 64) + i % 16
// on line b. Matrices: row i is line i, column k word k % 4 of block k / 4. Layers count from 1. Drawn numbers are
// float32, the same bits on every machine.
#pragma once
#include <stdint.h>

#include "pykernel/lists.hpp"

namespace pykernel {

enum class Purpose : uint32_t {
  weight,
  mask,
  bias,
  input,
  input_common,
  cotangent,
  target,
  forward,
  backward,
  sampler,
  dropout,
  round_weight,
  round_signal,
  round_gradient
};
// In the order of Distribution, which lists.hpp has from pykernel/distributions.py.
#define PK_NAME(name) #name,
inline constexpr const char* distribution_names[] = {PK_DISTRIBUTIONS(PK_NAME)};
#undef PK_NAME

// By its lower-case name. Throws std::invalid_argument.
Distribution distribution_called(const char* name);
// Throws std::invalid_argument where the distribution takes no such parameter.
void check_parameter(Distribution distribution, double parameter);

struct Address {
  uint64_t seed;
  uint32_t purpose, layer, replica;
};

constexpr int philox_rounds = 7;

// The four words of one block.
inline void philox(const uint32_t counter[4], uint64_t seed, uint32_t words[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = (uint32_t)seed,
           k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < philox_rounds; round++, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
    const uint64_t p0 = (uint64_t)0xD2511F53 * c0, p1 = (uint64_t)0xCD9E8D57 * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1, c3 = (uint32_t)p0;
  }
  words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

// Tall arrays, out (units, columns) row by row: words, uniforms on (-1, 1), standard normals.
void draw_words(const Address& address, int64_t units, int64_t columns, uint32_t* out);
void draw_uniforms(const Address& address, int64_t units, int64_t columns, float* out);
void draw_normals(const Address& address, int64_t units, int64_t columns, float* out);

// Rows first_row .. first_row + rows - 1, columns first_column .. of the unit draws of W[layer] (its size does not
// matter), out (rows, columns) row by row. parameter: density of sparse, degrees of freedom of student, alpha of
// stable. address.purpose is not read. Throws std::invalid_argument.
void draw_weights(const Address& address, Distribution distribution, double parameter, int64_t first_row,
                  int64_t first_column, int64_t rows, int64_t columns, float* out);

}  // namespace pykernel
