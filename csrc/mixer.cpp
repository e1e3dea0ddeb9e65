// Blocks are brought to order one as heads are gathered, so that products of their entries stay within the range of T.
// SPDX-License-Identifier: BSD-3-Clause
#include "mixer.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "constants.hpp"
#include "exponents.hpp"
#include "isa.hpp"
#include "ops.hpp"

namespace pykernel {
namespace {

constexpr int64_t enough_tasks = 16;                                      // a head is shared where there are fewer
template <class T> constexpr int64_t held = sizeof(T) == 4 ? 126 : 1000;  // powers of two that T holds

// f(number, units of a head, columns) for every attention.
template <class F> void each_mix(const Program& p, F f) {
  if (!p.counts[Table::mix]) return;
  each_op(p, [&](const Op& op, int64_t number, const Shapes& shapes) {
    const Shape& in = shapes.of(op.ins[0]);
    if (op.kind == OpKind::mix) f(number, in.units / p.heads[number], in.columns);
  });
}

// The arrays of a task, in the memory of its thread: both ways to lay a head's keys and values, a tile's queries and
// gradient; what comes of a tile; its scores and what flows back through them.
template <class T> struct MixRoom {
  MixRoom(const MixShape& s, T* room) {
    for (T** array : {&keys, &keys_turned, &values, &values_turned}) *array = room, room += s.whole();
    for (T** array : {&queries, &queries_turned, &gradient, &gradient_turned, &out}) *array = room, room += s.piece();
    for (T** array : {&scores, &flow}) *array = room, room += s.square();
  }
  T *keys, *keys_turned, *values, *values_turned, *queries, *queries_turned, *gradient, *gradient_turned, *out, *scores,
      *flow;
};

struct MixTask {
  MixTask(const MixShape& s, int64_t index)
      : index(index),
        column(index / s.shares / s.kv_heads * s.positions),
        kv_head(index / s.shares % s.kv_heads),
        head(kv_head * (s.heads / s.kv_heads)),
        end(head + s.heads / s.kv_heads),
        first(index % s.shares * s.tiles / s.shares * s.tile),
        last(std::min(s.positions, (index % s.shares + 1) * s.tiles / s.shares * s.tile)) {}
  int64_t index, column;  // the input's first
  int64_t kv_head, head, end;
  int64_t first, last;  // queries
};

}  // namespace

void MixSums::add(const MixSums& other) {
  if (!(other.count > 0)) return;
  const double all = count + other.count, distance = other.mean - mean;
  square += other.square + distance * distance * (count * other.count / all);
  mean += distance * (other.count / all);
  entropy += other.entropy;
  count = all;
}

MixShape::MixShape(const Program& p, int64_t number, int64_t units_of_head, int64_t columns)
    : units(units_of_head),
      positions(columns / p.batch),
      heads(p.heads[number]),
      kv_heads(p.kv_heads[number]),
      causal(p.causal[number]),
      tile(mix_tile(positions, causal)),
      tiles((positions + tile - 1) / tile),
      shares(std::min(tiles, std::max<int64_t>(1, enough_tasks / (p.batch * kv_heads)))),
      tasks(p.batch * kv_heads * shares) {}

MixNeeds mix_needs(const Program& program) {
  MixNeeds needs;
  each_mix(program, [&](int64_t number, int64_t units, int64_t columns) {
    const MixShape s(program, number, units, columns);
    needs.room = std::max(needs.room, s.room());
    needs.parts = std::max(needs.parts, 2 * s.tasks * s.whole());
    needs.tasks = std::max(needs.tasks, s.tasks);
    const double work = (s.causal ? 1. : 2.) * (double)(s.heads * units * s.positions) * (double)columns;
    needs.work += work, needs.largest_work = std::max(needs.largest_work, work);
  });
  return needs;
}

template <class T>
Mixer<T>::Mixer(const Program& program, Team& team) : program_(program), kernels_(mixing_table<T>()), team_(team) {
  const MixNeeds needs = mix_needs(program);
  if (!needs.tasks) return;
  parts_ = Buffer<T>((size_t)needs.parts, &team);
  found_.resize((size_t)needs.tasks);
}
template <class T> int64_t Mixer<T>::bytes(const Program& program) {
  const MixNeeds needs = mix_needs(program);
  return needs.tasks ? Buffer<T>::bytes(needs.parts) + taken<Found>(needs.tasks) : 0;
}

template <class T> auto Mixer<T>::unit(const Block<T>& x) const -> Unit {
  const bool plain = !program_.exponent || !(x.largest > 0) || !isfinite(x.largest);
  const int h = plain ? 0 : ilogb(x.largest);
  return {(T)ldexp(1., -h), h};
}

template <class T> auto Mixer<T>::scores(int64_t number, const Block<T>& q, const Block<T>& k) const -> Scores {
  Scores s = {unit(q), unit(k), (T)program_.mix_scale[number], 1, 0};
  if (!program_.exponent) return s;
  int e = 0;
  s.factor = (T)frexp(program_.mix_scale[number], &e);
  s.exponent = q.exponent + s.q.exponent + k.exponent + s.k.exponent + e;
  s.power = (T)ldexp(1., (int)std::clamp(s.exponent, -held<T>, held<T>));
  return s;
}

// f(task, its memory), where the team is asked between tiles.
template <class T> template <class F> void Mixer<T>::each_task(const MixShape& shape, F f) {
  if (team_.stopped()) throw Stopped{};
  team_.each(shape.tasks, [&](int64_t index) {
    f(MixTask(shape, index), MixRoom<T>(shape, (T*)thread_scratch((size_t)shape.room() * sizeof(T))));
  });
  if (team_.stopped()) throw Stopped{};
}

template <class T>
auto Mixer<T>::forward(int64_t number, int64_t columns, const Block<T>& q, const Block<T>& k, const Block<T>& v,
                       Block<T>& o) -> Seen {
  columns_ = columns;
  const MixShape shape = this->shape(number, q.n);
  const Scores s = scores(number, q, k);
  const Unit unit_v = unit(v);
  const int64_t d = shape.units, C = columns_;
  each_task(shape, [&](const MixTask& t, const MixRoom<T>& room) {
    kernels_.gather(k.data, C, t.kv_head * d, d, t.column, shape.positions, s.k.factor, room.keys);
    kernels_.turn(room.keys, d, shape.positions, room.keys_turned);
    kernels_.gather(v.data, C, t.kv_head * d, d, t.column, shape.positions, unit_v.factor, room.values);
    const MixHead<T> head = {d, shape.positions, shape.causal,     !program_.exponent, s.factor, s.power,
                             0, room.keys,       room.keys_turned, room.values,        nullptr};
    MixSums sums;
    for (int64_t h = t.head; h < t.end; h++)
      for (int64_t first = t.first; first < t.last; first += shape.tile) {
        if (team_.stopped()) return;
        const int64_t count = std::min(shape.tile, t.last - first);
        kernels_.gather(q.data, C, h * d, d, t.column + first, count, s.q.factor, room.queries);
        kernels_.forward(head, {first, count, room.queries, nullptr, nullptr, nullptr, room.scores, nullptr}, room.out,
                         &sums);
        kernels_.scatter(room.out, C, h * d, d, t.column + first, count, 1 / unit_v.factor, o.data);
      }
    found_[(size_t)t.index].sums = sums;
  });
  o.n = q.n, o.exponent = v.exponent;
  clear_padding(o);
  Seen seen = {{}, s.exponent};
  for (int64_t i = 0; i < shape.tasks; i++) seen.sums.add(found_[(size_t)i].sums);
  return seen;
}

// Gradients of all queries into dq, of keys and values into parts; and each task's gap.
template <class T>
void Mixer<T>::flow_back(const MixShape& shape, MixHead<T> head, const Scores& s, const Block<T>& q, const Block<T>& k,
                         const Block<T>& v, const Block<T>& g, T factor, Block<T>& dq) {
  const int64_t d = shape.units, n = shape.positions, C = columns_;
  const T to_v = unit(v).factor, to_g = unit(g).factor;
  each_task(shape, [&](const MixTask& t, const MixRoom<T>& room) {
    kernels_.gather(k.data, C, t.kv_head * d, d, t.column, n, s.k.factor, room.keys);
    kernels_.turn(room.keys, d, n, room.keys_turned);
    kernels_.gather(v.data, C, t.kv_head * d, d, t.column, n, to_v, room.values);
    kernels_.turn(room.values, d, n, room.values_turned);
    MixHead<T> mine = head;
    mine.keys = room.keys, mine.keys_turned = room.keys_turned, mine.values_turned = room.values_turned;
    T *dv = parts_.get() + 2 * t.index * shape.whole(), *dk = dv + shape.whole(), gap = (T)-INFINITY;
    memset(dv, 0, (size_t)(2 * shape.whole()) * sizeof(T));
    for (int64_t h = t.head; h < t.end; h++)
      for (int64_t first = t.first; first < t.last; first += shape.tile) {
        if (team_.stopped()) return;
        const int64_t count = std::min(shape.tile, t.last - first);
        kernels_.gather(q.data, C, h * d, d, t.column + first, count, s.q.factor, room.queries);
        kernels_.turn(room.queries, d, count, room.queries_turned);
        kernels_.gather(g.data, C, h * d, d, t.column + first, count, to_g, room.gradient);
        kernels_.turn(room.gradient, d, count, room.gradient_turned);
        gap = std::max(gap, kernels_.backward(mine,
                                              {first, count, room.queries, room.queries_turned, room.gradient,
                                               room.gradient_turned, room.scores, room.flow},
                                              room.out, dk, dv));
        kernels_.scatter(room.out, C, h * d, d, t.column + first, count, factor, dq.data);
      }
    found_[(size_t)t.index].gap = gap;
  });
}

template <class T> T Mixer<T>::gap(const MixShape& shape) const {
  T most = (T)-INFINITY;
  for (int64_t i = 0; i < shape.tasks; i++) most = std::max(most, found_[(size_t)i].gap);
  return most;
}

// out = factor times the sum of the parts, which: 0 for values, 1 for keys
template <class T> void Mixer<T>::add_parts(const MixShape& shape, int64_t which, T factor, Block<T>& out) {
  const int64_t d = shape.units, n = shape.positions;
  team_.each(shape.tasks / shape.shares, [&](int64_t head) {
    const MixTask t(shape, head * shape.shares);
    T* sum = parts_.get() + (2 * t.index + which) * shape.whole();
    T* by_units = (T*)thread_scratch((size_t)shape.room() * sizeof(T));
    for (int64_t share = 1; share < shape.shares; share++)
      for (int64_t i = 0; i < padded(n) * d; i++) sum[i] += sum[2 * share * shape.whole() + i];
    kernels_.turn(sum, n, d, by_units);
    kernels_.scatter(by_units, columns_, t.kv_head * d, d, t.column, n, factor, out.data);
  });
  clear_padding(out);
}

template <class T> void Mixer<T>::clear_padding(const Block<T>& x) const {
  for (int64_t i = x.n; i < padded(x.n); i++)
    for (int64_t b = 0; b < columns_; b++) x.data[entry_at(i, b, columns_)] = 0;
}

template <class T>
void Mixer<T>::backward(int64_t number, int64_t columns, const Block<T>& q, const Block<T>& k, const Block<T>& v,
                        const Block<T>& g, Block<T>& dq, Block<T>& dk, Block<T>& dv) {
  columns_ = columns;
  const MixShape shape = this->shape(number, q.n);
  const Scores s = scores(number, q, k);
  MixHead<T> head = {shape.units, shape.positions, shape.causal, !program_.exponent, s.factor, s.power, 0, nullptr,
                     nullptr,     nullptr,         nullptr};
  dq.n = q.n, dk.n = k.n, dv.n = v.n;
  // dq is what kernels give, times the factor of scores and what took k, v and g to order one; of dk the same with q.
  int e = 0;
  double factor = program_.exponent ? frexp(program_.mix_scale[number], &e) : program_.mix_scale[number];
  int64_t power = e + unit(v).exponent + unit(g).exponent;
  const auto place = [&](const Unit& other, const Block<T>& x, Block<T>& out) {
    const int64_t all = power + other.exponent;
    const bool near = all >= -range<T> && all <= range<T>;
    out.exponent = v.exponent + g.exponent + x.exponent + (near ? 0 : all);
    return (T)ldexp(factor, near ? (int)all : 0);
  };
  flow_back(shape, head, s, q, k, v, g, place(s.k, k, dq), dq);
  dv.exponent = g.exponent;
  add_parts(shape, 0, 1 / unit(g).factor, dv);
  const double gap = (double)this->gap(shape);
  const double below = gap < 0 ? scaled<double>(gap, s.exponent) * log2_e : 0;
  if (below < 0 && below > -0x1p52) {  // weights but one of each query below T: their own power of two
    head.gap = (T)gap;
    power += (int64_t)floor(below), factor *= exp2(below - floor(below));
    flow_back(shape, head, s, q, k, v, g, place(s.k, k, dq), dq);
  }
  clear_padding(dq);
  add_parts(shape, 1, place(s.q, q, dk), dk);
}

template class Mixer<float>;
template class Mixer<double>;

}  // namespace pykernel
