// What the backward pass needs of the forward pass, on a stack, and how much of it lies in memory together.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "buffer.hpp"
#include "ops/ops.hpp"
#include "pykernel/block.hpp"

namespace pykernel {

// The ops of a stretch with what follows from each other.
struct Routine {
  const Stretch* stretch;
  Vector<Step> steps;
};
// keep_inputs: the inputs of weight layers are kept, beside their Gram matrices.
Vector<Routine> routines_of(const Program& program, bool keep_inputs);
int64_t bytes_of_routines(const Program& program);

// How much is kept: entries of blocks, Gram matrices, values, and ops' claims to values.
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
Vector<AmountOf> amounts_of(const Program& program, const Vector<Routine>& routines, bool keep_inputs);

// Repetitions are cut into segments, one of which is kept at a time; with one segment nothing is computed twice.
struct Segments {
  int64_t repetitions, length, count;  // in all; of a segment; segments
  Amount largest;
  int64_t checkpoint;  // entries of a block that is kept at the beginning of each segment, 0 with one
  template <class T> int64_t bytes(int64_t columns) const;
};
template <class T> Segments segments_of(const Program& program, const Vector<AmountOf>& amounts, int64_t bytes);
// The largest number of units that any register, or the head, holds.
int64_t largest_width(const Program& program);

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
  Tape(const Segments& segments, int64_t columns, const Team& team);

  void clear();
  int64_t add(int64_t n);  // a value of n units, nothing of it kept yet
  Kept<T>& at(int64_t value) { return values_[(size_t)value]; }
  T* take_block(int64_t n);
  double* take_gram();
  void claim(int64_t value) { claims_.push_back((int32_t)value); }
  Kept<T>& pop();

 private:
  const int64_t columns_;
  Buffer<T> blocks_;
  Vector<double> grams_;
  Vector<Kept<T>> values_;
  Vector<int32_t> claims_;
  int64_t entries_ = 0, gram_count_ = 0;
};

}  // namespace pykernel
