// Gradients of weights that layers share: their sums over all uses, and the norms of those.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "buffer.hpp"
#include "layer.hpp"
#include "pykernel/program.hpp"

namespace pykernel {

// dJ/dW is the sum of delta u^T over the uses. Columns of delta and u wait side by side until there are enough for one
// product, which is added to the sum; where all that there will be are few beside the width they wait to the end, and
// the norm follows from Gram matrices of all of them, as that of one use does. Uses may differ by many decades: every
// column has its exponent, the sum has one.
template <class T> class Totals {
 public:
  Totals(const Program& program, Layer<T>& layer, Team& team);
  // What one takes of a workspace, and of a thread's scratch.
  static int64_t bytes(const Program& program);
  static int64_t scratch_bytes(const Program& program);

  void begin();
  // Use `number` (a layer, from 0); blocks of the run's columns.
  void add(int64_t number, const Block<T>& delta, const Block<T>& u);
  void finish(const Rows& rows);

 private:
  struct Shape {
    int64_t rows, columns;  // of the weight
    int64_t room;           // columns of uses that wait together
    int64_t most;           // columns of one use at most
    bool multiplies;        // or all of them wait to the end
  };
  struct Sum {
    Shape shape;
    Buffer<T> deltas, inputs;  // of the uses that wait, in panels of `room` columns
    Buffer<T> turned, total;   // where they are multiplied
    Buffer<T> bias;
    Vector<int64_t> exponents = {};  // of the columns that wait
    int64_t exponent = 0, bias_exponent = 0;
    bool any = false, any_bias = false;  // whether there is something in the sum
    int64_t waiting() const { return (int64_t)exponents.size(); }
  };
  static Vector<Shape> shapes_of(const Program& program);
  bool is_finite(const Block<T>& x) const;
  void add_bias(const Block<T>& delta, Sum& sum);
  void wait(const Block<T>& x, Buffer<T>& to, const Sum& sum) const;
  void multiply(Sum& sum);
  double log2_product(Sum& sum);
  double log2_by_grams(const Sum& sum);
  void gram(const Buffer<T>& columns, int64_t units, const Sum& sum, Vector<double>& out);

  const Program& program_;
  Layer<T>& layer_;
  Team& team_;
  Vector<Sum> sums_;
  Vector<double> squares_, parts_, grams_[2];
};

}  // namespace pykernel
