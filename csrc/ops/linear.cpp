// z = W u + b. Kept is the Gram matrix of u: with that of delta = dJ/dz it gives the norm of dJ/dW = delta u^T.
// SPDX-License-Identifier: BSD-3-Clause
#include <math.h>

#include <algorithm>

#include "clip.hpp"
#include "grouped.hpp"
#include "isa.hpp"
#include "network.hpp"

namespace pykernel {
namespace {

template <class T> Measure add_bias(Network<T>& net, int64_t number, Block<T>& z) {
  const Program& p = net.program;
  Block<T> b = {net.column(), z.n, 0, 0};
  if (p.bias_draw[number] == given_bias) {
    pack(p.biases[number], z.n, 1, b, false);
  } else {
    const TallDraw draw = p.bias_draw[number] == uniform_bias ? TallDraw::uniform : TallDraw::normal;
    draw_tall(b.data, z.n, 1, net.address(Purpose::bias, p.address[number], draw), net.team);
  }
  return net.layer.add_bias(z, b.data, largest_of(b), p.bias_scale[number]);
}

// The input kept, and room for the product.
template <class T> Block<T> open(Network<T>& net, const Step& step, int64_t number) {
  if (!net.remakes_patches(step, net.columns)) net.keep_input(step.op.ins[0], number);
  Block<T> z = net.fresh(step, net.program.units[number]);
  z.n = net.program.units[number];
  return z;
}

// Bias and rows of the product.
template <class T> void close(Network<T>& net, const Step& step, int64_t number, Block<T>& z) {
  Measure m = net.layer.settle(z);
  if (net.program.bias_draw[number] != zero_bias) m = add_bias(net, number, z);
  net.put(step, z, m);
  if (!net.observing) return;
  net.rows.log10_mean_square_preactivation[number] = log10_2 * (2 * m.log2_norm() - net.log2_size(z.n));
}

template <class T> void forward(Network<T>& net, const Step& step, int64_t number) {
  if (net.is_beside()) return;
  const int32_t in = step.op.ins[0];
  Block<T> z = open(net, step, number);
  if (Network<T>* plain = net.beside()) {
    Block<T> z_plain = open(*plain, step, number);
    net.linear.forward_both(number + 1, net.columns,
                            {{plain->value(in), plain->known_gram(in), z_plain, plain->weights_format()},
                             {net.value(in), net.known_gram(in), z, net.weights_format()}},
                            net.team);
    if (net.team.stopped()) throw Stopped{};
    close(*plain, step, number, z_plain);
  } else {
    net.linear.forward(number + 1, net.columns, net.value(in), net.known_gram(in), z, net.team, net.weights_format());
    if (net.team.stopped()) throw Stopped{};
  }
  close(net, step, number, z);
}

// log2 of the norm of delta u^T by its Gram matrices
double log2_outer_norm(const double* delta_gram, const double* gram, int64_t columns, int64_t exponent) {
  double square = 0;
  for (int64_t e = 0; e < columns * columns; e++) square += delta_gram[e] * gram[e];
  if (square < 0) square = 0;  // rounding, where the gradient cancels
  return .5 * log2(square) + (double)exponent;
}

// The same of delta u^T itself: turned, delta is the block that u, in panels as a weight is, is multiplied with.
template <class T> double log2_formed_norm(Network<T>& net, int64_t number, const Block<T>& delta, const Block<T>& u) {
  const auto power_of = [](const Block<T>& x) {
    return x.largest > 0 && isfinite(x.largest) ? (int64_t)ilogb(x.largest) : 0;
  };
  if (const Grouping groups = groups_of_layer(net.program, number); groups.count > 1) {
    const double d = ldexp(1., -(int)power_of(delta)), v = ldexp(1., -(int)power_of(u));
    const double square =
        sum_of_gradient(groups, delta, u, net.columns, net.team, [](double x) { return x * x; }, d, v);
    return .5 * log2(square) + (double)(delta.exponent + power_of(delta) + u.exponent + power_of(u));
  }
  const Mixing<T>& kernels = mixing_table<T>();
  const int64_t C = net.columns, rows = delta.n, step = outer_panels * panel_units, tasks = (u.n + step - 1) / step;
  Block<T> turned = net.scratch();
  const Block<T> d = net.layer.presentable(delta);
  kernels.turn(d.data, rows, C, turned.data);
  const Block<T> v = net.layer.presentable(u);
  const int64_t power = net.program.exponent ? power_of(delta) + power_of(u) : 0;
  const T factor = (T)ldexp(1., -(int)power);
  Vector<double> squares((size_t)tasks);
  net.team.each(tasks, [&](int64_t task) {
    T* out = (T*)thread_scratch(outer_scratch<T>(rows));
    const int64_t units = std::min(step, u.n - task * step);
    kernels.product(v.data + task * step * C, C * panel_units, units, C, turned.data, rows, out, true, factor);
    squares[(size_t)task] = net.layer.kernels.observe(out, units, rows, T(1)).square;
  });
  net.release(turned);
  double square = 0;
  for (const double x : squares) square += x;
  return .5 * log2(square) + (double)(d.exponent + v.exponent + power);
}

// Every entry of delta u^T clamped, one after the other
template <class T>
double log2_clipped_weight(const Network<T>& net, int64_t number, const Block<T>& delta, const Block<T>& u) {
  const int64_t B = net.columns;
  const Clip clip(net.program.clip_value, delta.exponent + u.exponent);
  if (groups_of(net.program, number) > 1)
    return clip.log2_norm(sum_of_gradient(groups_of_layer(net.program, number), delta, u, B, net.team,
                                          [&](double x) { return clip.square(x); }));
  Vector<double> squares((size_t)delta.n);
  net.team.each((delta.n + 63) / 64, [&](int64_t block) {
    Vector<T> row((size_t)u.n);
    for (int64_t i = block * 64; i < std::min(delta.n, block * 64 + 64); i++) {
      std::fill(row.begin(), row.end(), T(0));
      for (int64_t b = 0; b < B; b++) {
        const T d = delta.data[entry_at(i, b, B)];
        for (int64_t p = 0; p * 16 < u.n; p++)
          for (int64_t j = 0; j < std::min<int64_t>(16, u.n - p * 16); j++)
            row[(size_t)(p * 16 + j)] += d * u.data[(p * B + b) * 16 + j];
      }
      double square = 0;
      for (const T x : row) square += clip.square((double)x);
      squares[(size_t)i] = square;
    }
  });
  double square = 0;
  for (const double x : squares) square += x;
  return clip.log2_norm(square);
}

template <class T> double log2_clipped_bias(const Network<T>& net, const Block<T>& delta) {
  const Clip clip(net.program.clip_value, delta.exponent);
  double square = 0;
  for (int64_t i = 0; i < delta.n; i++) {
    T sum = 0;
    for (int64_t b = 0; b < net.columns; b++) sum += delta.data[entry_at(i, b, net.columns)];
    square += clip.square((double)sum);
  }
  return clip.log2_norm(square);
}

// What is asked of the transposed weight, and what is known of it then.
template <class T> struct Question {
  Question(Network<T>& net, const Step& step, int64_t number)
      : delta(net.take(step.op.out)), du(net.scratch()), remade(net.remakes_patches(step, net.columns)) {
    if (remade) {
      u.block = net.scratch();
      lay_patches(net, net.window_of(step), net.kept_before().block, u.block);  // rounded, as what they are of
    } else {
      u = net.kept();
    }
    gram = net.forms(number) ? nullptr : net.gram_of_gradient(delta, &exponent);
    du.n = net.program.columns[number] * groups_of(net.program, number);
  }
  Kept<T> u = {};
  const Gradient<T> delta;
  Block<T> du;
  const bool remade;  // of what the op before kept
  const double* gram;
  int64_t exponent = 0;
};

// The rows of the parameter gradients.
template <class T> void measure(Network<T>& net, int64_t number, const Question<T>& q) {
  net.rows.log10_grad_preactivation[number] = log10_2 * q.delta.norm;
  if (net.tangent) {
    net.tangent->add(q.gram, q.u.gram, q.exponent + q.u.gram_exponent);
    if (net.program.bias_draw[number] != zero_bias) net.tangent->add(q.gram, nullptr, q.exponent);
  }
  if (net.program.clip_value > 0 && !net.totals) {  // of shared weights the totals are clipped
    net.rows.log10_grad_weight[number] = log10_2 * log2_clipped_weight(net, number, q.delta.block, q.u.block);
    net.rows.log10_grad_bias[number] = log10_2 * log2_clipped_bias(net, q.delta.block);
    return;
  }
  const int64_t centred = net.program.centred[number];
  const int64_t count = columns_centred(net.program, centred, net.columns);
  if (net.forms(number)) {
    net.rows.log10_grad_weight[number] = log10_2 * log2_formed_norm(net, number, q.delta.block, q.u.block);
  } else {
    const double* moving = q.u.moving[centred];
    const double* input_gram = moving ? moving : q.u.gram;
    const int64_t exponent = q.exponent + (moving ? q.u.moving_exponent[centred] : q.u.gram_exponent);
    net.rows.log10_grad_weight[number] = log10_2 * log2_outer_norm(q.gram, input_gram, net.columns, exponent);
  }
  const double bias = net.columns == 1 ? q.delta.norm : net.layer.log2_bias_norm(q.delta.block);
  net.rows.log10_grad_bias[number] = log10_2 * bias;
  if (!net.totals) return;
  if (count < 2) return net.totals->add(number, q.delta.block, q.u.block);
  Block<T> moving = net.scratch();
  net.layer.centre(q.u.block, count, moving);
  net.totals->add(number, q.delta.block, moving);
  net.release(moving);
}

template <class T> void answer(Network<T>& net, const Step& step, int64_t number, Question<T>& q) {
  const Measure m = net.layer.settle(q.du);
  const Gradient<T> back(q.du, m);
  net.rows.log10_weight_factor[number] = log10_2 * (back.norm - q.delta.norm);
  net.release(q.delta.block);
  if (q.remade) net.release(q.u.block);
  net.give(step.op.ins[0], back);
}

template <class T> void backward(Network<T>& net, const Step& step, int64_t number) {
  if (net.is_beside()) return;
  Question<T> q(net, step, number);
  measure(net, number, q);
  if (Network<T>* plain = net.beside()) {
    Question<T> p(*plain, step, number);
    net.linear.backward_both(number + 1, net.columns,
                             {{p.u.block, p.u.gram, p.delta.block, p.gram, p.du, plain->weights_format()},
                              {q.u.block, q.u.gram, q.delta.block, q.gram, q.du, net.weights_format()}},
                             net.team);
    if (net.team.stopped()) throw Stopped{};
    answer(*plain, step, number, p);
  } else {
    net.linear.backward(number + 1, net.columns, q.u.block, q.u.gram, q.delta.block, q.gram, q.du, net.team,
                        net.weights_format());
    if (net.team.stopped()) throw Stopped{};
  }
  answer(net, step, number, q);
}

}  // namespace

PK_OP(linear, .table = Table::layer, .keeps_gram = true);

}  // namespace pykernel
