// Drawn arrays of one network, over the tables of the chosen instruction set.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "isa.hpp"
#include "memory.hpp"
#include "pykernel/program.hpp"
#include "pykernel/stream.hpp"
#include "team.hpp"

namespace pykernel {

// What stands behind a weight: draws by address, or one of the few that need a whole matrix or none.
enum class Source { drawn, given, identity, constant, haar };
struct Unit {
  Source source;
  Distribution distribution;  // where it is drawn
  double parameter;
};
// Throws std::invalid_argument for an unknown name or parameter.
Unit unit_of(const Draw& draw);

// Layer l of a program, from 1; the one behind the last is the head.
struct LayerOf {
  int64_t rows, columns, address;
  Draw draw;
  double scale;
  const double* given;  // the caller's matrix, or null
};
inline LayerOf layer_of(const Program& p, int64_t l) {
  const int64_t L = p.counts[Table::layer], i = l - 1;
  if (l > L) return {p.head.outputs, p.nodes[p.counts[Table::node]], L + 1, p.head.draw, p.head.scale, p.head.weight};
  return {p.units[i], p.columns[i], p.address[i], p.draws[p.draw[i]], p.scale[i], p.weights ? p.weights[i] : nullptr};
}
// Which weight layer l has, from 0 in order of first use; the head's is behind all others.
inline int64_t weight_of(const Program& p, int64_t l) {
  if (!p.weight) return l - 1;
  return l > p.counts[Table::layer] ? p.weight_count : p.weight[l - 1];
}
// How many there are, the head included.
inline int64_t all_layers(const Program& p) { return p.counts[Table::layer] + (p.head.loss != no_loss); }
// use(l) of every layer from `first` on that is the first with its weight
template <class Use> void each_weight(const Program& p, int64_t first, Use use) {
  int64_t next = weight_of(p, first);
  for (int64_t l = first; l <= all_layers(p); l++)
    if (weight_of(p, l) == next) use(l), next++;
}

// The block of a tall array, the team splits it.
template <class T> void draw_tall(T* out, int64_t units, int64_t B, const Tall& address, Team& team);
// (outputs, B) row-major: normals, fair bits, or one-hot columns of uniform classes
Vector<double> draw_targets(Tall address, int loss, int64_t outputs, int64_t B, Team& team);

}  // namespace pykernel
