// Patches: what each window of positions sees, side by side as units. A convolution's layer keeps the patches that it
// multiplies, or makes them anew of what is kept here. SPDX-License-Identifier: BSD-3-Clause
#include <string.h>

#include <algorithm>

#include "field.hpp"
#include "isa.hpp"
#include "network.hpp"

namespace pykernel {
namespace {

// The unit of patches that tap `tap` of unit `unit` becomes, of `units`.
int64_t unit_of(const Window& w, int64_t units, int64_t unit, int64_t tap) {
  return w.by_units ? unit * w.all_taps() + tap : tap * units + unit;
}
// Whether panels stay panels: then whole vectors move.
bool by_panels(const Window& w, int64_t units) { return !w.by_units && units % panel_units == 0; }

template <class T>
void lay(const Window& w, int64_t inputs, const Block<T>& x, int64_t C, T* out, int64_t to_columns, Team& team) {
  const int64_t taps = w.all_taps(), panels = panels_of(x.n);
  if (by_panels(w, x.n)) {
    team.each(taps * panels, [&](int64_t p) {
      const T* from = x.data + p % panels * C * 16;
      T* to = out + p * to_columns * 16;
      each_run(w, p / panels, inputs, [&](int64_t window, int64_t position, int64_t length) {
        if (position == outside)
          std::fill_n(to + window * 16, length * 16, T(0));
        else if (w.stride[1] == 1)
          memcpy(to + window * 16, from + position * 16, sizeof(T) * (size_t)(length * 16));
        else
          for (int64_t i = 0; i < length; i++)
            memcpy(to + (window + i) * 16, from + (position + i * w.stride[1]) * 16, sizeof(T) * 16);
      });
    });
    return;
  }
  const int64_t units = x.n * taps;
  team.each(panels_of(units), [&](int64_t p) {
    T* to = out + p * to_columns * 16;
    for (int64_t lane = 0; lane < 16; lane++) {
      const int64_t unit = p * 16 + lane;
      if (unit >= units) {
        for (int64_t b = 0; b < to_columns; b++) to[b * 16 + lane] = 0;
        continue;
      }
      const int64_t own = w.by_units ? unit / taps : unit % x.n, tap = w.by_units ? unit % taps : unit / x.n;
      const T* from = x.data + entry_at(own, 0, C);
      each_run(w, tap, inputs, [&](int64_t window, int64_t position, int64_t length) {
        for (int64_t i = 0; i < length; i++)
          to[(window + i) * 16 + lane] = position == outside ? T(0) : from[(position + i * w.stride[1]) * 16];
      });
    }
  });
}

// To each position the sum over the taps that see it, tap after tap.
template <class T>
void add_patches(const Window& w, int64_t inputs, const T* g, int64_t from_columns, Block<T>& x, int64_t C,
                 Team& team) {
  const int64_t taps = w.all_taps(), panels = panels_of(x.n);
  const bool whole = by_panels(w, x.n);
  const Elementwise<T>& kernels = elementwise_table<T>();
  team.each(panels, [&](int64_t p) {
    T* to = x.data + p * C * 16;
    std::fill_n(to, C * 16, T(0));
    for (int64_t tap = 0; tap < taps; tap++) {
      if (whole) {
        const T* from = g + (tap * panels + p) * from_columns * 16;
        each_run(w, tap, inputs, [&](int64_t window, int64_t position, int64_t length) {
          if (position != outside) kernels.add_columns(to + position * 16, w.stride[1], from + window * 16, length);
        });
        continue;
      }
      for (int64_t lane = 0; lane < 16 && p * 16 + lane < x.n; lane++) {
        const T* from = g + entry_at(unit_of(w, x.n, p * 16 + lane, tap), 0, from_columns);
        each_run(w, tap, inputs, [&](int64_t window, int64_t position, int64_t length) {
          for (int64_t i = 0; i < length && position != outside; i++)
            to[(position + i * w.stride[1]) * 16 + lane] += from[(window + i) * 16];
        });
      }
    }
  });
}

template <class T> void forward(Network<T>& net, const Step& as_planned, int64_t number) {
  const Window& w = window_of(net.program, number);
  const int64_t columns = net.program.batch * w.count();
  Step step = as_planned;
  const bool remade = net.remakes_patches(step, columns);
  if (remade) step.on_tape = false;
  const Block<T> x = remade ? net.keep(step.op.ins[0]) : net.value(step.op.ins[0]);
  net.look_at(columns);
  Block<T> out = net.fresh(step, x.n * w.all_taps());
  lay_patches(net, w, x, out);
  // As a copy it is in range; of patches what entries sum up to is asked of one column only, or by who looks.
  const bool asked = net.columns == 1 || net.traced || w.by_units;
  net.put(step, out, asked ? net.layer.settle(out) : Measure{0, 0, out.exponent});
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  const Window& w = window_of(net.program, number);
  if (net.remakes_patches(step, net.program.batch * w.count())) net.kept();
  const Gradient<T> g = net.take(step.op.out);
  const int64_t from_columns = net.columns, inputs = net.program.batch;
  net.look_at(inputs * w.positions());
  Block<T> out = net.scratch();
  out.n = g.block.n / w.all_taps(), out.exponent = g.block.exponent;
  add_patches(w, inputs, g.block.data, from_columns, out, net.columns, net.team);
  net.release(g.block);
  net.give(step.op.ins[0], {out, net.layer.settle(out)});
}

}  // namespace

template <class T> void lay_patches(Network<T>& net, const Window& w, const Block<T>& x, Block<T>& out) {
  const int64_t inputs = net.program.batch;
  lay(w, inputs, x, inputs * w.positions(), out.data, inputs * w.count(), net.team);
  out.n = x.n * w.all_taps(), out.exponent = x.exponent, out.largest = x.largest;
}
template void lay_patches(Network<float>&, const Window&, const Block<float>&, Block<float>&);
template void lay_patches(Network<double>&, const Window&, const Block<double>&, Block<double>&);

PK_OP(gather, .table = Table::window);

}  // namespace pykernel
