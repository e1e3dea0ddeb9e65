// The mean or the largest entry of each window of positions, unit by unit. The input is kept: of it the largest is
// found again, the first of equal ones. SPDX-License-Identifier: BSD-3-Clause
#include <math.h>

#include <algorithm>
#include <cmath>

#include "field.hpp"
#include "network.hpp"

namespace pykernel {
namespace {

// f(entry of a window, entry that its tap sees) for every lane of a panel.
template <class F> void each_entry(const Window& w, int64_t tap, int64_t inputs, F f) {
  each_run(w, tap, inputs, [&](int64_t window, int64_t position, int64_t length) {
    for (int64_t i = 0; i < length && position != outside; i++)
      for (int64_t lane = 0; lane < 16; lane++) f((window + i) * 16 + lane, (position + i * w.stride[1]) * 16 + lane);
  });
}

// Of every window of a panel its largest entries, and (where asked) the taps that have them.
template <class T> void find_largest(const Window& w, int64_t inputs, const T* x, T* out, int32_t* taps) {
  const int64_t count = inputs * w.count();
  std::fill_n(out, count * 16, (T)-INFINITY);
  if (taps) std::fill_n(taps, count * 16, 0);
  for (int64_t tap = 0; tap < w.all_taps(); tap++)
    each_entry(w, tap, inputs, [&](int64_t window, int64_t position) {
      const T v = x[position];
      if (!(v > out[window]) && !std::isnan(v)) return;  // nan stays
      out[window] = v;
      if (taps) taps[window] = (int32_t)tap;
    });
}

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  const Window& w = window_of(net.program, number);
  const Block<T> x = net.keep(step.op.ins[0]);
  const int64_t C = net.columns, inputs = net.program.batch;
  net.look_at(inputs * w.count());
  Block<T> out = net.fresh(step, x.n);
  out.exponent = x.exponent;
  const T share = T(1) / (T)w.all_taps();
  net.team.each(panels_of(x.n), [&](int64_t p) {
    const T* from = x.data + p * C * 16;
    T* to = out.data + p * net.columns * 16;
    if (w.largest) return find_largest<T>(w, inputs, from, to, nullptr);
    std::fill_n(to, net.columns * 16, T(0));
    for (int64_t tap = 0; tap < w.all_taps(); tap++)
      each_entry(w, tap, inputs, [&](int64_t window, int64_t position) { to[window] += from[position]; });
    for (int64_t i = 0; i < net.columns * 16; i++) to[i] *= share;
  });
  net.put(step, out, net.layer.settle(out));
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  const Window& w = window_of(net.program, number);
  const Block<T>& x = net.kept().block;
  const Gradient<T> g = net.take(step.op.out);
  const int64_t columns = net.columns, inputs = net.program.batch;
  net.look_at(inputs * w.positions());
  Block<T> out = net.scratch();
  out.n = x.n, out.exponent = g.block.exponent;
  const T share = T(1) / (T)w.all_taps();
  net.team.each(panels_of(x.n), [&](int64_t p) {
    const T* from = g.block.data + p * columns * 16;
    T* to = out.data + p * net.columns * 16;
    std::fill_n(to, net.columns * 16, T(0));
    int32_t* taps = nullptr;
    if (w.largest) {
      T* most = static_cast<T*>(thread_scratch((size_t)(columns * 16) * (sizeof(T) + sizeof(int32_t))));
      taps = reinterpret_cast<int32_t*>(most + columns * 16);
      find_largest(w, inputs, x.data + p * net.columns * 16, most, taps);
    }
    for (int64_t tap = 0; tap < w.all_taps(); tap++)
      each_entry(w, tap, inputs, [&](int64_t window, int64_t position) {
        const T one = from[window];
        to[position] += !taps ? one * share : taps[window] == tap ? one : T(0);
      });
  });
  net.release(g.block);
  net.give(step.op.ins[0], {out, net.layer.settle(out)});
}

}  // namespace

PK_OP(pool, .table = Table::window, .keeps_inputs = true);

}  // namespace pykernel
