// Attention over whole blocks: exponents, memory, and which thread does what.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "buffer.hpp"
#include "kernels/mix.hpp"
#include "memory.hpp"
#include "pykernel/block.hpp"
#include "pykernel/program.hpp"
#include "team.hpp"

namespace pykernel {

// How an attention is cut into tasks: one input, one head of keys and a share of its queries each, whatever the team.
struct MixShape {
  // columns: of the blocks that it reads
  MixShape(const Program& program, int64_t number, int64_t units_of_head, int64_t columns);
  int64_t units, positions;  // of a head; of an input
  int64_t heads, kv_heads;
  bool causal;
  int64_t tile, tiles;    // queries of a tile; tiles of a head
  int64_t shares, tasks;  // of a head of keys; in all
  // Entries of a head of all positions, of a tile of its queries, and of a tile's scores.
  int64_t whole() const { return padded(units) * padded(positions); }
  int64_t piece() const { return padded(units) * tile; }
  int64_t square() const { return padded(positions) * tile; }
  int64_t room() const { return 4 * whole() + 5 * piece() + 2 * square(); }  // of a task's MixRoom
};

// What a program's attentions need at most: entries of a task's room and of parts, tasks; and their multiply-adds
// forward, of all and of the largest.
struct MixNeeds {
  int64_t room = 0, parts = 0, tasks = 0;
  double work = 0, largest_work = 0;
};
MixNeeds mix_needs(const Program& program);

template <class T> class Mixer {
 public:
  Mixer(const Program& program, Team& team);
  static int64_t bytes(const Program& program);

  // What is seen of the queries and scores of all heads and inputs; of scores, mantissas.
  struct Seen {
    MixSums sums;
    int64_t exponent;
  };
  // o = V A: its data and exponent.
  Seen forward(int64_t number, int64_t columns, const Block<T>& q, const Block<T>& k, const Block<T>& v, Block<T>& o);
  // From g = dJ/do: data and exponents of the others.
  void backward(int64_t number, int64_t columns, const Block<T>& q, const Block<T>& k, const Block<T>& v,
                const Block<T>& g, Block<T>& dq, Block<T>& dk, Block<T>& dv);

 private:
  struct Unit {  // a block's power of two
    T factor;    // takes it to order one
    int64_t exponent;
  };
  struct Scores {
    Unit q, k;
    T factor, power;  // as in MixHead
    int64_t exponent;
  };
  struct Found {
    MixSums sums;
    T gap;
  };
  MixShape shape(int64_t number, int64_t units) const {
    return {program_, number, units / program_.heads[number], columns_};
  }
  Unit unit(const Block<T>& x) const;
  Scores scores(int64_t number, const Block<T>& q, const Block<T>& k) const;
  template <class F> void each_task(const MixShape& shape, F f);
  void flow_back(const MixShape& shape, MixHead<T> head, const Scores& s, const Block<T>& q, const Block<T>& k,
                 const Block<T>& v, const Block<T>& g, T factor, Block<T>& dq);
  T gap(const MixShape& shape) const;
  void add_parts(const MixShape& shape, int64_t which, T factor, Block<T>& out);
  void clear_padding(const Block<T>& x) const;

  const Program& program_;
  const Mixing<T>& kernels_;
  int64_t columns_ = 0;  // of the blocks at work
  Team& team_;
  Buffer<T> parts_;  // turned gradients of values and keys, of every task
  Vector<Found> found_;
};

}  // namespace pykernel
