// What a run measures: names and extents, which lists.hpp has from pykernel/observables.py, and the arrays that a run
// fills. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "pykernel/lists.hpp"

namespace pykernel {

// Arrays (count, extent), null where a row is not wanted. In a chain all extents are the depth, but for those that
// row_facts says.
struct Rows {
#define PK_POINTER(name, extent) double* name;
  PK_ROWS(PK_POINTER)
#undef PK_POINTER
};

// What a row has one number of: each weight layer, each activation step, each attention, each node (block end), each
// node of a run with formats, each weight that layers share, the input and each node, or the replica.
enum class RowExtent { layer, activation, mix, node, rounded, weight, input, replica };

struct RowFact {
  const char* name;
  RowExtent extent;
  double* Rows::* of;
};
#define PK_FACT(name, extent) {#name, RowExtent::extent, &Rows::name},
inline constexpr RowFact row_facts[] = {PK_ROWS(PK_FACT)};
#undef PK_FACT
constexpr int row_count = sizeof row_facts / sizeof *row_facts;

// How many there are of what rows have numbers of.
struct RowExtents {
  int64_t layers, nodes, activations, mixes, rounded, weights;
  int64_t of(RowExtent extent) const {
    switch (extent) {
      case RowExtent::layer:
        return layers;
      case RowExtent::node:
        return nodes;
      case RowExtent::input:
        return nodes + 1;
      case RowExtent::activation:
        return activations;
      case RowExtent::mix:
        return mixes;
      case RowExtent::rounded:
        return rounded;
      case RowExtent::weight:
        return weights;
      case RowExtent::replica:
        return 1;
    }
    return 0;
  }
};

}  // namespace pykernel
