// A weight that layers share and nobody draws: W u and W^T d in any order and any number of times, from their exact
// joint law. SPDX-License-Identifier: BSD-3-Clause
//
// pykernel/oracle.py is the definition, docs/matrix-free.md the derivation. What was asked is kept as orthonormal
// directions, with what the matrix makes of each; draws are addressed by the number of the column among all that were
// asked the same way. The same question may be asked again, but the answer's last bits depend on what was asked before.
#pragma once
#include <stdint.h>

#include <algorithm>

#include "buffer.hpp"
#include "factor.hpp"
#include "kernels/matrix_free.hpp"
#include "memory.hpp"
#include "pykernel/block.hpp"
#include "pykernel/program.hpp"
#include "team.hpp"

namespace pykernel {

// Columns side by side: unit i of column k at [(i / 16 * room + k) * 16 + i % 16], so that more can join them.
template <class T> struct Beside {
  T* data;
  int64_t units, count, room;
  T* column(int64_t k) const { return data + k * 16; }
  Beside from(int64_t k, int64_t many) const { return {column(k), units, many, room}; }
};

// Work of the oracles of one worker, which answer one after another.
template <class T> class Desk {
 public:
  // The most columns of a question, directions that an oracle knows, units, and whether some weight is orthogonal.
  Desk(int64_t columns, int64_t directions, int64_t units, bool haar);
  static int64_t bytes(int64_t columns, int64_t directions, int64_t units, bool haar);

  // out (x.count, y.count), rows `stride` apart: x^T y. Of a block with itself in double (`careful`), the triangle
  // alone is summed.
  void inner(const Beside<T>& x, const Beside<T>& y, bool careful, double* out, int64_t stride, Team& team);
  // to (+)= x F, F (x.count, to.count), rows `stride` apart.
  void combine(const Beside<T>& x, const double* F, int64_t stride, bool careful, bool add, const Beside<T>& to,
               Team& team);
  void draw(const Draws& draws, const Beside<T>& to, Team& team);

  const MatrixFree<T>& kernels;
  Buffer<T> rest, fresh;  // of a question, and of an orthogonal matrix's answer, what lies outside the known
  SmallFactor factor, frame;
  Directions directions, frame_directions;
  Vector<double> gram, lengths, powers, inverse;  // of a question's columns
  Vector<double> inside, again, seen, lost;       // a row for each direction known

 private:
  static int64_t sums_of(int64_t columns, int64_t directions, int64_t units);
  Vector<double> sums_;  // of groups of units
  Vector<char> packed_;
  const int64_t columns_;
};

template <class T> class Oracle {
 public:
  struct Size {
    int64_t rows, columns;  // of the weight
    int64_t asked;          // columns either way, all together
    bool haar;              // orthogonal instead of Gaussian
    int64_t full() const { return std::max(rows, columns); }
    int64_t directions(bool back) const {
      return haar ? std::min(2 * asked, full()) : std::min(asked, back ? rows : columns);
    }
  };
  Oracle(const Size& size, Desk<T>& desk);
  static int64_t bytes(const Size& size);
  const Size& size() const { return size_; }

  void begin(uint64_t seed, uint32_t address, uint32_t replica);
  // z = scale W u, or W^T u (`back`), of so many columns; gram: u^T u. nan where an entry of u is not finite.
  void ask(bool back, const Block<T>& u, const double* gram, int64_t columns, double scale, Block<T>& z, Team& team);

 private:
  // Directions, and what W makes of each; of an orthogonal W that is the other side's directions.
  struct Known {
    Buffer<T> basis, image;
    int64_t units, others, room;  // of a direction, and of what W makes of it; directions at most
    int64_t count = 0, asked = 0;
    Beside<T> directions() const { return {basis.get(), units, count, room}; }
    Beside<T> images() const { return {image.get(), others, count, room}; }
  };
  void take(const Block<T>& u, const double* gram, const Beside<T>& rest, Team& team);
  void split(const Known& known, const Beside<T>& columns, double* inside, Team& team);
  void normalise(const SmallFactor& factor, const Directions& directions, const Beside<T>& from, const Beside<T>& to,
                 Team& team);
  void learn(Known& mine, const Known& other, const Draws& draws, const Beside<T>& rest, const double* rows,
             Team& team);
  void learn_frame(Known& mine, Known& other, const Draws& draws, const Beside<T>& rest, Team& team);

  const Size size_;
  Desk<T>& desk_;
  Known known_[2];  // of questions forward and back
  uint64_t seed_ = 0;
  uint32_t address_ = 0, replica_ = 0;
  int64_t stride_ = 0;  // of rows of small matrices
};

// The oracles of a program: one for each weight that more than one layer uses.
template <class T> class Oracles {
 public:
  explicit Oracles(const Program& program);
  static int64_t bytes(const Program& program);

  void begin(int64_t replica);
  // Of a layer, from 1, or null where it has a weight of its own.
  Oracle<T>* of(int64_t layer) {
    const int32_t place = place_[(size_t)program_.weight[layer - 1]];
    return place < 0 ? nullptr : &oracles_[(size_t)place];
  }
  // Columns that a layer's weight is asked for in all, either way; 0 where it has no oracle.
  int64_t asked(int64_t layer) const {
    const int32_t place = place_[(size_t)program_.weight[layer - 1]];
    return place < 0 ? 0 : oracles_[(size_t)place].size().asked;
  }

 private:
  struct Needs;
  Oracles(const Program& program, const Needs& needs);

  const Program& program_;
  Desk<T> desk_;
  Vector<Oracle<T>> oracles_;
  Vector<int32_t> place_;      // of each weight, or -1
  Vector<int64_t> addresses_;  // of each oracle
};

}  // namespace pykernel
