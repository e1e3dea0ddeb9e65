// What the backward pass needs of the forward pass, on a stack, and how much of it lies in memory together.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "buffer.hpp"
#include "ops.hpp"
#include "pykernel/block.hpp"

namespace pykernel {

// The ops of a stretch with what follows from each other.
struct Routine {
  const Stretch* stretch;
  Vector<Step> steps;
};
// Of the inputs of weight layers: whether all are kept, beside their Gram matrices; and whether these are made of all.
// And whether all is kept at once: an oracle's answers depend on what was asked before, so nothing is computed twice.
struct Keep {
  bool inputs, grams, all = false;
};
Keep keep_of(const Program& program, bool linear_needs_input);
// Whether the norm of dJ/dW is taken of dJ/dW itself: where that costs less than two Gram matrices of the columns, and
// always with groups. Few columns do not matter.
constexpr int64_t few_columns = 64;
inline bool forms_gradient(const Program& program, int64_t layer, int64_t columns) {
  if (program.common) return false;  // the tangent kernel needs Gram matrices
  if (groups_of(program, layer) > 1) return true;
  const double rows = (double)program.units[layer], width = (double)program.columns[layer];
  return columns > few_columns && (double)columns * (rows + width) > 2 * rows * width;
}
// Whether patches are made anew for the gradient of the layer that they are for, and what they are of is kept: where
// windows overlap. `step` is the gather or the layer, `columns` are those of the patches.
inline bool remakes_patches(const Program& program, const Step& step, int64_t repetition, int64_t columns) {
  if (!step.before_layer && !step.behind_gather) return false;
  const Window& w = window_of(program, step.window_first + repetition * step.window_each);
  return w.all_taps() * w.count() > w.positions() &&
         forms_gradient(program, step.layer_first + repetition * step.layer_each, columns);
}
// Panels of dJ/dW, turned, that are made at a time, and the memory that takes.
constexpr int64_t outer_panels = 4;
template <class T> constexpr size_t outer_scratch(int64_t rows) {
  return (size_t)(outer_panels * 16 * rows) * sizeof(T);
}
// Whether the mean cosine of a block's columns is taken without a matrix of all pairs.
inline bool sums_directions(const Shape& shape) { return shape.columns > few_columns && shape.columns > shape.units; }
// Of every layer, where windows make them differ, else none: a walk through all repetitions.
Vector<int64_t> columns_of_layers(const Program& program);
Vector<Routine> routines_of(const Program& program, const Keep& keep);
int64_t bytes_of_routines(const Program& program);

// How much is kept: entries of blocks, of Gram matrices, values, and ops' claims to values.
struct Amount {
  int64_t entries = 0, grams = 0, values = 0, claims = 0;
  void add(const Amount& other, int64_t times);
  void grow(const Amount& other);  // to what is more
  bool operator==(const Amount&) const = default;
};
// Of every repetition, those alike together.
struct AmountOf {
  Amount amount;
  int64_t repetitions;
};
Vector<AmountOf> amounts_of(const Program& program, const Vector<Routine>& routines, const Keep& keep);

// Repetitions are cut into segments, one of which is kept at a time; with one segment nothing is computed twice.
struct Segments {
  int64_t repetitions, length, count;  // in all; of a segment; segments
  Amount largest;
  int64_t checkpoint;  // entries of a block that is kept at the beginning of each segment, 0 with one
  template <class T> int64_t bytes() const;
};
template <class T>
Segments segments_of(const Program& program, const Vector<AmountOf>& amounts, const Keep& keep, int64_t bytes);
// The largest number of units that any register, or the head, holds.
int64_t largest_width(const Program& program);
// The most that any block needs: units, columns, entries; entries of a Gram matrix.
struct Largest {
  int64_t width, columns, block, gram;
};
Largest largest_of(const Program& program, const Keep& keep);

// A value that some op needs again.
template <class T> struct Kept {
  Block<T> block;  // data null where only the Gram matrix is kept
  double* gram;
  int64_t gram_exponent;
  // By Centred: the Gram matrix of the block without its mean over the columns, where only that matters.
  double* moving[centred_count];
  int64_t moving_exponent[centred_count];
};

template <class T> class Tape {
 public:
  explicit Tape(const Segments& segments);

  void clear();
  int64_t add(int64_t n);  // a value of n units, nothing of it kept yet
  Kept<T>& at(int64_t value) { return values_[(size_t)value]; }
  T* take_block(int64_t n, int64_t columns);
  double* take_gram(int64_t columns);
  void claim(int64_t value) { claims_.push_back((int32_t)value); }
  Kept<T>& top() { return values_[(size_t)claims_.back()]; }
  Kept<T>& pop();

 private:
  Buffer<T> blocks_;
  Vector<double> grams_;
  Vector<Kept<T>> values_;
  Vector<int32_t> claims_;
  int64_t entries_ = 0, gram_entries_ = 0;
};

}  // namespace pykernel
