// The public layer: the ops' own steps on the caller's blocks, and the product at the caller's address.
// SPDX-License-Identifier: BSD-3-Clause
#include <math.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "activation.hpp"
#include "check.hpp"
#include "draws.hpp"
#include "isa.hpp"
#include "norms.hpp"
#include "pykernel/layer.hpp"

namespace pykernel {
namespace {

bool is_given(const LayerSpec& layer) { return layer.distribution && !strcmp(layer.distribution, "given"); }
Distribution distribution_of(const LayerSpec& layer) {
  return is_given(layer) ? Distribution::normal : distribution_called(layer.distribution);
}
const char* bias_of(const LayerSpec& layer) { return layer.bias_distribution ? layer.bias_distribution : "zero"; }

void check_spec(const LayerSpec& spec) {
  check_parameter(distribution_of(spec), spec.distribution_parameter);
  if (!spec.layer || spec.layer >= (1 << 24)) throw std::invalid_argument("layer must be at least 1 and below 2^24");
  if (is_given(spec) != (spec.weights != nullptr))
    throw std::invalid_argument("weights must be given with distribution \"given\", and only then");
  check_width(spec.rows);
  check_width(spec.columns);
  check_batch(spec.batch);
  check_finite(&spec.scale, 1, "scale");
  check_finite(&spec.bias_scale, 1, "bias_scale");
  check(spec.activation);
  check(NormRow{spec.norm, spec.norm_eps});
  const char* bias = bias_of(spec);
  if (strcmp(bias, "zero") && strcmp(bias, "normal") && strcmp(bias, "uniform") && strcmp(bias, "given"))
    throw std::invalid_argument("bias_distribution must be \"zero\", \"normal\", \"uniform\" or \"given\"");
  if (!strcmp(bias, "given") && !spec.bias)
    throw std::invalid_argument("biases must be given with bias_distribution \"given\", and only then");
  check_finite(strcmp(bias, "given") ? nullptr : spec.bias, spec.rows, "biases");
}

template <class T> class Room {
 public:
  Room(const LayerSpec& spec, void* workspace, size_t bytes)
      : spec_((check_spec(spec), spec)),
        norm_{spec.norm, spec.norm_eps},
        phi_(phi_of<T>(spec.activation)),
        lent_(workspace, bytes),
        team_(1, never_),
        layer_(spec.exponent, spec.batch, std::max(spec.rows, spec.columns),
               block_entries(std::max(spec.rows, spec.columns), spec.batch), team_),
        norms_(spec.batch, std::max(spec.rows, spec.columns), layer_) {}

  Measure multiply(const Block<T>& u, Block<T>& z) {
    int shift;
    const Weights<T> w = weights(shift);
    expect(u, spec_.columns), expect(z);
    product_table<T>().forward(w, 0, panels_of(w.rows), spec_.batch, u.data, z.data, spec_.draws);
    z.n = spec_.rows, z.exponent = u.exponent + shift;
    const Measure m = layer_.settle(z);
    return strcmp(bias_of(spec_), "zero") ? add_bias(z) : m;
  }

  Measure multiply_transposed(const Block<T>& delta, Block<T>& du) {
    int shift;
    Weights<T> w = weights(shift);
    expect(delta, spec_.rows), expect(du);
    if (!w.given) w.kept = spec_.draws;
    product_table<T>().backward(w, 0, w.columns, spec_.batch, delta.data, du.data,
                                thread_scratch(backward_scratch<T>(w.rows, spec_.batch)));
    du.n = spec_.columns, du.exponent = delta.exponent + shift;
    return layer_.settle(du);
  }

  Measure activate(Block<T>& z, Block<T>& v) {
    expect(z, z.n), expect(v);
    if (!norm_.kind) return pykernel::activate(layer_, phi_, z, v);
    Buffer<T> room((size_t)block_entries(z.n, spec_.batch));
    Block<T> h = {room.get(), z.n, 0, 0};
    norms_.normalise(norm_, z, h);
    return pykernel::activate(layer_, phi_, h, v);
  }

  Measure differentiate(Block<T>& z, const Block<T>& g, Block<T>& delta, SlopeCount& count) {
    expect(z, z.n), expect(g, z.n), expect(delta);
    if (!norm_.kind) return pykernel::differentiate(layer_, phi_, z, g, delta, count);
    Buffer<T> room((size_t)block_entries(z.n, spec_.batch));
    Block<T> h = {room.get(), z.n, 0, 0};
    norms_.normalise(norm_, z, h);
    pykernel::differentiate(layer_, phi_, h, g, delta, count);
    return norms_.normalise_backward(norm_, z, h, delta, delta);
  }

  Measure add(const Block<T>& x, const Block<T>& y, double factor, Block<T>& out) {
    expect(x, x.n), expect(y, x.n), expect(out);
    return layer_.add(x, 1, y, factor, out);
  }

  Measure observe(Block<T> x) {
    expect(x, x.n);
    const Sums sums = layer_.observe(x);
    return {sums.sum, sums.square, x.exponent};
  }

 private:
  void expect(const Block<T>& x, int64_t n) const {
    if (x.n != n || n < 1 || n > std::max(spec_.rows, spec_.columns))
      throw std::invalid_argument("a block's units are not those of the layer");
    if (x.exponent > (int64_t)1 << 60 || x.exponent < -((int64_t)1 << 60))
      throw std::invalid_argument("a block's exponent must be set");
    expect(x);
  }
  static void expect(const Block<T>& x) {
    if (!x.data) throw std::invalid_argument("a block's data must be given");
  }

  // A scale that T might not hold gives its power of two to the block's exponent.
  Weights<T> weights(int& shift) const {
    const bool far = spec_.exponent && spec_.scale != 0 && (fabs(spec_.scale) > 0x1p30 || fabs(spec_.scale) < 0x1p-30);
    shift = 0;
    const double mantissa = far ? frexp(spec_.scale, &shift) : spec_.scale;
    return {spec_.rows,
            spec_.columns,
            (T)mantissa,
            distribution_of(spec_),
            spec_.distribution_parameter,
            spec_.seed,
            spec_.layer,
            spec_.replica,
            nullptr,
            static_cast<const T*>(spec_.weights)};
  }

  Measure add_bias(Block<T>& z) {
    Buffer<T> room((size_t)padded(spec_.rows));
    T* b = room.get();
    if (!strcmp(bias_of(spec_), "given")) {
      for (int64_t i = 0; i < spec_.rows; i++) b[i] = (T)spec_.bias[i];
    } else {
      const TallDraw draw = strcmp(bias_of(spec_), "uniform") ? TallDraw::normal : TallDraw::uniform;
      draw_tall(b, spec_.rows, 1, {spec_.seed, (uint32_t)Purpose::bias, spec_.layer, spec_.replica, draw}, team_);
    }
    return layer_.add_bias(z, b, largest_of(Block<T>{b, spec_.rows, 0, 0}), spec_.bias_scale);
  }

  const LayerSpec& spec_;
  const NormRow norm_;
  const Phi<T> phi_;
  Lent lent_;
  const std::atomic<bool> never_{false};
  Team team_;
  Layer<T> layer_;
  Norms<T> norms_;
};

}  // namespace

template <class T> void pack_weights(const T* matrix, int64_t rows, int64_t columns, T* panels) {
  const int64_t large = (int64_t)1 << 32;
  if (!matrix || !panels || rows < 1 || columns < 1 || rows >= large || columns >= large)
    throw std::invalid_argument("pack_weights needs a matrix, panels, and rows and columns at least 1 and below 2^32");
  product_table<T>().pack(matrix, rows, columns, 0, panels_of(rows), panels);
}

template <class T> size_t layer_bytes(const LayerSpec& s) {
  LayerSpec sizes = {};  // the rest may not be set yet
  sizes.rows = s.rows, sizes.columns = s.columns, sizes.batch = s.batch, sizes.layer = 1, sizes.distribution = "normal";
  sizes.activation = activation_row("linear");
  check_spec(sizes);
  const int64_t largest = std::max(s.rows, s.columns), slack = 16 * 64;  // between the arrays
  return (size_t)(Layer<T>::bytes(s.exponent, largest, block_entries(largest, s.batch)) +
                  Norms<T>::bytes(s.batch, largest) + Buffer<T>::bytes(block_entries(largest, s.batch)) +
                  Buffer<T>::bytes(padded(s.rows)) + (int64_t)backward_scratch<T>(s.rows, s.batch) + slack);
}

template <class T>
Measure multiply(const LayerSpec& layer, const Block<T>& u, Block<T>& z, void* workspace, size_t bytes) {
  return Room<T>(layer, workspace, bytes).multiply(u, z);
}
template <class T> Measure activate(const LayerSpec& layer, Block<T>& z, Block<T>& v, void* workspace, size_t bytes) {
  return Room<T>(layer, workspace, bytes).activate(z, v);
}
template <class T>
Measure differentiate(const LayerSpec& layer, Block<T>& z, const Block<T>& g, Block<T>& delta, SlopeCount& count,
                      void* workspace, size_t bytes) {
  return Room<T>(layer, workspace, bytes).differentiate(z, g, delta, count);
}
template <class T>
Measure multiply_transposed(const LayerSpec& layer, const Block<T>& delta, Block<T>& du, void* workspace,
                            size_t bytes) {
  return Room<T>(layer, workspace, bytes).multiply_transposed(delta, du);
}
template <class T>
Measure add(const LayerSpec& layer, const Block<T>& x, const Block<T>& y, double factor, Block<T>& out, void* workspace,
            size_t bytes) {
  return Room<T>(layer, workspace, bytes).add(x, y, factor, out);
}
template <class T> Measure observe(const LayerSpec& layer, const Block<T>& x, void* workspace, size_t bytes) {
  return Room<T>(layer, workspace, bytes).observe(x);
}
template <class T>
Forward forward(const LayerSpec& layer, const Block<T>& u, Block<T>& z, Block<T>& v, void* workspace, size_t bytes) {
  Room<T> room(layer, workspace, bytes);
  const Measure m = room.multiply(u, z);
  return {m, room.activate(z, v)};
}
template <class T>
Backward backward(const LayerSpec& layer, Block<T>& z, const Block<T>& g, Block<T>& delta, Block<T>& du,
                  void* workspace, size_t bytes) {
  Room<T> room(layer, workspace, bytes);
  SlopeCount count;
  const Measure m = room.differentiate(z, g, delta, count);
  return {m, room.multiply_transposed(delta, du), count};
}

#define PYKERNEL_INSTANTIATE(T)                                                                                        \
  template void pack_weights(const T*, int64_t, int64_t, T*);                                                          \
  template size_t layer_bytes<T>(const LayerSpec&);                                                                    \
  template Measure multiply(const LayerSpec&, const Block<T>&, Block<T>&, void*, size_t);                              \
  template Measure activate(const LayerSpec&, Block<T>&, Block<T>&, void*, size_t);                                    \
  template Measure differentiate(const LayerSpec&, Block<T>&, const Block<T>&, Block<T>&, SlopeCount&, void*, size_t); \
  template Measure multiply_transposed(const LayerSpec&, const Block<T>&, Block<T>&, void*, size_t);                   \
  template Measure add(const LayerSpec&, const Block<T>&, const Block<T>&, double, Block<T>&, void*, size_t);          \
  template Measure observe(const LayerSpec&, const Block<T>&, void*, size_t);                                          \
  template Forward forward(const LayerSpec&, const Block<T>&, Block<T>&, Block<T>&, void*, size_t);                    \
  template Backward backward(const LayerSpec&, Block<T>&, const Block<T>&, Block<T>&, Block<T>&, void*, size_t);
PYKERNEL_INSTANTIATE(float)
PYKERNEL_INSTANTIATE(double)

}  // namespace pykernel
