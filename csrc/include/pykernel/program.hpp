// A network as stretches of ops over registers, and the numbers of its layers in arrays: the C++ face of
// pykernel/program.py. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "formats.hpp"
#include "plan.hpp"
#include "pykernel/lists.hpp"
#include "rows.hpp"

namespace pykernel {

// OpKind, in lists.hpp, is what a step does with the blocks in its registers: linear, z = W u + b; phi, v =
// phi(Norm(h)); norm; gate, phi(g) v; add, skip a + branch v; scale, a factor times x; mask, x under a mask; node,
// nothing but to look at a block's end; affine, weight x + bias by unit; mix, attention of q, k, v; gather, what
// windows of positions see, side by side as units; pool, the mean or the largest entry of each window; drive, an input
// that arrives on the way. What has numbers of its own: weight layers, activation steps (phi and gate), norms that no
// activation follows, scales and shifts by unit, sums with a skip, factors, masks, attentions, windows (gather and
// pool), nodes (block ends), inputs that arrive on the way.
enum class Table : int32_t { layer, activation, norm, affine, join, factor, mask, mix, window, node, drive };
constexpr int table_count = 11, most_inputs = 3;

// A register names a running block (units x columns). Register 0 is the signal from repetition to repetition, all
// others are dead then.
struct Op {
  OpKind kind;
  int32_t out;               // the register that is written; it may be one of ins
  int32_t ins[most_inputs];  // those that are read
  int64_t at;                // place in its table from the beginning of the repetition, from 0
};
struct Counts {
  int64_t of[table_count];
  int64_t operator[](Table table) const { return of[(int)table]; }
};
// `count` repetitions of the same ops. In repetition i (from 0) an op has number first + i each + at of its table.
struct Stretch {
  const Op* ops;
  int64_t op_count, count;
  Counts first, each;
};

// Fills in what follows from the order of ops: their places, and a stretch of `count` repetitions of them that counts
// on from `first`. Returns what there is then. At first nothing: Counts{}.
Counts add_stretch(Stretch& stretch, Op* ops, int64_t op_count, int64_t count, const Counts& first);

// Unit draws: "normal", "uniform" (on (-1, 1)), "truncated" (normal at +-2), "sparse" (normal with density parameter),
// "student" (parameter degrees of freedom), "stable" (alpha = parameter), "haar"; or "identity", "constant", "given".
struct Draw {
  const char* distribution;
  double parameter;
};
struct NormRow {
  int kind;    // as in Norm
  double eps;  // what it adds to the variance
};
// Scale and shift of every unit
struct AffineRow {
  int64_t units;
  const double* weight;
  const double* bias;  // or null: none
};
// Windows of `taps` positions, `stride` apart, over a field with `padding` on every side; rows, then columns. Of an
// input with one axis the first numbers are 1, and no padding.
struct Window {
  int64_t field[2], taps[2], stride[2], padding[2];
  bool circular;                 // taps beyond an edge see the other side; else zeros
  bool largest;                  // of a pool: the largest entry; else the mean
  bool by_units;                 // of patches: the taps of a unit stand together; else the units of a tap
  int64_t dilation[2] = {1, 1};  // positions from one tap to the next
  int64_t span(int axis) const { return dilation[axis] * (taps[axis] - 1) + 1; }
  int64_t out(int axis) const { return (field[axis] + 2 * padding[axis] - span(axis)) / stride[axis] + 1; }
  int64_t count() const { return out(0) * out(1); }
  int64_t all_taps() const { return taps[0] * taps[1]; }
  int64_t positions() const { return field[0] * field[1]; }
};
enum BiasDraw { zero_bias, normal_bias, uniform_bias, given_bias };
// Over what a layer's gradient sums to zero, so that a mean of its input over the same is not seen by dJ/dW: all
// columns where its output goes straight into a batch norm, the positions of each input where it is an attention's key.
enum Centred { not_centred, over_all_columns, over_each_input, centred_count };

// What a head reads of every input: a loss at each position, or one loss of its first or last, or of their mean.
enum Over { over_positions, over_first, over_last, over_mean };
// One more weight layer behind the last node, and a loss; loss no_loss: none, and the rest does not matter.
struct HeadSpec {
  int loss = no_loss;
  int64_t outputs = 0;
  Draw draw = {nullptr, 0};
  double scale = 0;
  const double* weight = nullptr;   // (outputs, n[N]) row-major in place of draws, or null
  const double* bias = nullptr;     // (outputs), or null: none
  const double* targets = nullptr;  // (outputs, columns that it reads), or null: drawn
  int over = over_positions;
};

// Arrays have as many numbers as `counts` says of their table. Layers are counted from 1 in the stream, from 0 in
// arrays. Pointers stay the caller's.
struct Program {
  const Stretch* stretches;
  int64_t stretch_count, registers;
  Counts counts;                 // of everything
  const int64_t* nodes;          // (N + 1): units of the input and of every block's end
  int64_t batch, positions = 1;  // inputs, and columns of each
  int64_t positions_out = 0;     // of the last node; 0: the same, as where there are no windows

  // W[l] (units, columns) = scale times the unit draws at `address` (from 1; uses of one weight share it), or times the
  // caller's weights
  const int64_t *units, *columns, *address, *draw;
  const double* scale;
  // Parts that units are cut into, each a product of its own, with columns of one; and the taps whose units the input
  // has one after another. Null: 1.
  const int64_t *groups = nullptr, *taps = nullptr;
  const int64_t* bias_draw;  // as in BiasDraw
  const double* bias_scale;
  const int64_t* centred;  // as in Centred
  // Where layers share weights: of each layer the number of its weight, from 0 in order of first use, and how many
  // there are; layers of one number must agree in all that makes a weight. Null and 0: each has its own, and no totals.
  const int64_t* weight = nullptr;
  int64_t weight_count = 0;
  const Draw* draws;
  int64_t draw_count;
  const double* const* weights;  // per layer row-major, or null; null entries are drawn
  const double* const* biases;   // per layer, or null

  const int64_t *step_activation,
      *step_norm;  // of an activation step: its function, and the norm that acts on its input
  const ActivationRow* activations;
  int64_t activation_count;
  const int64_t* norm_steps;
  const NormRow* norms;  // norms[0] is none
  int64_t norm_count;
  const int64_t* affine_steps;
  const AffineRow* affines;
  int64_t affine_count;
  const double *skip, *branch;  // of a sum
  const double* factors;
  const double* masks;  // the probability that an entry is zeroed
  // Of an attention: heads of query and of key and value (a divisor); whether a query sees no later key; the factor on
  // the scores.
  const int64_t *heads, *kv_heads;
  const bool* causal;
  const double* mix_scale;
  const int64_t* window_steps = nullptr;
  const Window* windows = nullptr;
  int64_t window_count = 0;

  const int64_t* drives = nullptr;       // units of the inputs that arrive on the way
  const double* const* drive = nullptr;  // of each (units, columns) row-major, or null: drawn
  const double* x;                       // (n[0], columns) row-major, or null: drawn
  double correlation;                    // of the drawn inputs
  const double* cotangent;               // (n[N], columns), or null: drawn
  HeadSpec head;
  double clip_value;  // 0 for none
  uint64_t seed;
  bool exponent;
  const Formats* formats = nullptr;  // what is rounded, or null: nothing, and no rows of it
  bool common = false;               // one drawn cotangent for all columns, iid N(0, 1/n[N])
};

// Of every layer of a program, whose stretches, steps and norms must be set, what it is centred over.
void find_centred(const Program& program, int64_t* out);

// Columns of the input, and of every block without windows before it; and of the last node.
inline int64_t columns_of(const Program& program) { return program.batch * program.positions; }
inline int64_t columns_out_of(const Program& program) {
  return program.batch * (program.positions_out ? program.positions_out : program.positions);
}
inline int64_t groups_of(const Program& program, int64_t layer) { return program.groups ? program.groups[layer] : 1; }
// Of a gather or a pool, by its number.
inline const Window& window_of(const Program& program, int64_t number) {
  return program.windows[program.window_steps[number]];
}
// Of every mean that is taken out of a layer's input of so many columns, 0 for none.
inline int64_t columns_centred(const Program& program, int64_t centred, int64_t columns) {
  return centred == over_all_columns ? columns : centred == over_each_input ? columns / program.batch : 0;
}
// Those that the head reads: all, or one an input.
inline int64_t read_columns_of(const Program& program) {
  return program.head.over == over_positions ? columns_out_of(program) : program.batch;
}
inline RowExtents extents_of(const Program& program) {
  return {program.counts[Table::layer],
          program.counts[Table::node],
          program.counts[Table::activation],
          program.counts[Table::mix],
          program.formats ? program.counts[Table::node] : 0,
          program.weight_count};
}

}  // namespace pykernel
