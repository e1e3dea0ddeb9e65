// What the run loop needs of a weight matrix: its product with a block, forward and transposed. Engines differ only in
// who stands behind this. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdint.h>

#include "pykernel/block.hpp"
#include "pykernel/formats.hpp"
#include "pykernel/rows.hpp"
#include "team.hpp"

namespace pykernel {

// The state of one worker: made once, used for one replica after another.
template <class T> class Linear {
 public:
  virtual ~Linear() = default;
  virtual bool needs_input() const { return false; }  // u in backward
  // x^T x of a block's mantissas of `columns` columns, where the engine wants it other than as a product in the run's
  // precision; false where it does not.
  virtual bool gram(const Block<T>& /*x*/, int64_t /*columns*/, double* /*out*/, Team&) { return false; }
  // Runs a whole replica and writes its rows, where the engine knows a shorter way than layer by layer; false where it
  // does not.
  virtual bool alone(int64_t /*replica*/, const Rows&, int64_t /*index*/, Team&) { return false; }
  virtual void begin(int64_t /*replica*/, Team&) {}
  // Whether the forward pass keeps all that the backward pass can take from it; with fewer workers it may.
  virtual bool keeps_all() const { return true; }
  // Bytes that it keeps of a replica, where they grow with depth.
  virtual int64_t kept_bytes() const { return 0; }
  // Multiply-adds of a layer's product, or what takes as long; 0 where a team cannot share it.
  virtual double work(int64_t layer, int64_t columns) const = 0;
  // z = W u without bias, of blocks of B columns. `gram` is u^T u of the mantissas, (B, B), or null where the engine
  // needs no input. Sets z's data (padding zero) and exponent; z.n is
  // set by the caller. Layer L + 1 is the head. Long products look at team.stopped() now and then and return early.
  // format: what the weight is rounded to.
  virtual void forward(int64_t layer, int64_t B, const Block<T>& u, const double* gram, Block<T>& z, Team&,
                       const Format& format) = 0;
  // du = W^T delta. `u` and `gram` as given to forward (u.data null unless needs_input), `delta_gram` delta^T delta.
  virtual void backward(int64_t layer, int64_t B, const Block<T>& u, const double* gram, const Block<T>& delta,
                        const double* delta_gram, Block<T>& du, Team&, const Format& format) = 0;

  // The same for two runs with the same weights, the one without formats first.
  struct Forward {
    const Block<T>& u;
    const double* gram;
    Block<T>& z;
    const Format& format;
  };
  struct Backward {
    const Block<T>& u;
    const double* gram;
    const Block<T>& delta;
    const double* delta_gram;
    Block<T>& du;
    const Format& format;
  };
  virtual void forward_both(int64_t layer, int64_t B, const Forward (&asked)[2], Team& team) {
    for (const Forward& a : asked) forward(layer, B, a.u, a.gram, a.z, team, a.format);
  }
  virtual void backward_both(int64_t layer, int64_t B, const Backward (&asked)[2], Team& team) {
    for (const Backward& a : asked) backward(layer, B, a.u, a.gram, a.delta, a.delta_gram, a.du, team, a.format);
  }
};

}  // namespace pykernel
