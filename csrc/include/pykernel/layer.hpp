// One layer forward and backward, its weights drawn by address, for a simulator's own loop. No threads, no memory but
// the caller's. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "block.hpp"
#include "plan.hpp"

namespace pykernel {

// W is (rows, columns): scale times the unit draws at (seed, replica, layer), or times the caller's own.
// Zero-initialise, then set.
struct LayerSpec {
  int64_t rows, columns, batch;
  uint64_t seed;
  uint32_t layer, replica;   // layers count from 1
  const char* distribution;  // one of those that need no whole matrix ("normal" .. "stable", see plan.hpp), or "given"
  double distribution_parameter;
  double scale;
  float* draws;  // room for panel_entries(rows, columns) draws, which forward fills and backward reads; or null: drawn
                 // again
  const void* weights;            // of "given": pack_weights' panels of the T of the call
  const char* bias_distribution;  // null or "zero", "normal", "uniform", "given"
  double bias_scale;
  const double* bias;  // of "given", (rows)
  ActivationRow activation;
  int norm;
  bool exponent;           // magnitudes may leave the range of T
  double norm_eps = 1e-5;  // what the norm adds to the variance
};

struct SlopeCount {
  int64_t saturated, dead;
};

constexpr int64_t panel_entries(int64_t rows, int64_t columns) { return (rows + 15) / 16 * 16 * columns; }
// matrix (rows, columns) row by row into panels of panel_entries(rows, columns) numbers.
template <class T> void pack_weights(const T* matrix, int64_t rows, int64_t columns, T* panels);

// Bytes of workspace that the functions below need; rows, columns and batch decide. What lies there is lost at the end
// of a call; calls from several threads need a workspace each. All throw std::invalid_argument, and std::bad_alloc
// where `bytes` is too few.
template <class T> size_t layer_bytes(const LayerSpec& layer);

// z = W u + b. u (columns, B), z (rows, B).
template <class T>
Measure multiply(const LayerSpec& layer, const Block<T>& u, Block<T>& z, void* workspace, size_t bytes);
// v = phi(Norm(z)). z may get another exponent.
template <class T> Measure activate(const LayerSpec& layer, Block<T>& z, Block<T>& v, void* workspace, size_t bytes);
// delta = dJ/dz from g = dJ/dv. delta is not g.
template <class T>
Measure differentiate(const LayerSpec& layer, Block<T>& z, const Block<T>& g, Block<T>& delta, SlopeCount& count,
                      void* workspace, size_t bytes);
// du = W^T delta.
template <class T>
Measure multiply_transposed(const LayerSpec& layer, const Block<T>& delta, Block<T>& du, void* workspace, size_t bytes);
// out = x + factor y, exponents aligned; out may be x or y. What a residual sum needs.
template <class T>
Measure add(const LayerSpec& layer, const Block<T>& x, const Block<T>& y, double factor, Block<T>& out, void* workspace,
            size_t bytes);
// What a block sums up to.
template <class T> Measure observe(const LayerSpec& layer, const Block<T>& x, void* workspace, size_t bytes);

struct Forward {
  Measure z, v;
};
struct Backward {
  Measure delta, du;
  SlopeCount count;
};
// The layer of the order "linear-norm-activation": multiply and activate; differentiate and multiply_transposed.
template <class T>
Forward forward(const LayerSpec& layer, const Block<T>& u, Block<T>& z, Block<T>& v, void* workspace, size_t bytes);
template <class T>
Backward backward(const LayerSpec& layer, Block<T>& z, const Block<T>& g, Block<T>& delta, Block<T>& du,
                  void* workspace, size_t bytes);

}  // namespace pykernel
