// The table of ops: what each kind reads and keeps, and its two functions, as its file says. Tape, memory and checks
// follow from it. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <algorithm>

#include "memory.hpp"
#include "pykernel/block.hpp"
#include "pykernel/program.hpp"

namespace pykernel {

template <class T> class Network;

struct OpFacts {
  const char* kind;
  Table table;  // where its number counts
  int inputs = 1;
  bool keeps_inputs = false;  // the backward pass reads them
  bool keeps_gram = false;    // or their Gram matrix (and they themselves, where the program or the engine needs them)
  bool in_place = false;      // the result may lie where an input lies
};
extern const OpFacts* const op_facts[];  // in the order of OpKind
inline const OpFacts& facts_of(OpKind kind) { return *op_facts[(int)kind]; }

// An op within its repetition, and what follows from the others.
struct Step {
  Op op;
  int inputs;
  int64_t first, each;     // its number is first + i each in repetition i
  bool on_tape;            // its result is kept by a later op of the repetition, so it is written to the tape at once
  bool dies[most_inputs];  // nobody reads the input after this op
  bool before_node;        // the next op is the node that its result goes to
  bool before_phi;         // the next op is a phi of its result, with number phi_first + i phi_each
  int64_t phi_first, phi_each;
  // A gather and the layer behind it, its only reader, whose patches are made anew where their layer's gradient is
  // formed: numbers of both are first + i each.
  bool before_layer, behind_gather;
  int64_t window_first, window_each, layer_first, layer_each;
};

// `number` is the op's own in its table, from 0. Forward reads registers, keeps what backward needs, and puts its
// result into op.out; backward takes the gradient of op.out and gives gradients to op.ins.
template <class T> struct OpRow {
  void (*forward)(Network<T>&, const Step&, int64_t number);
  void (*backward)(Network<T>&, const Step&, int64_t number);
};
// What csrc/ops/KIND.cpp ends in: its facts, and its `forward` and `backward`. CMake makes the list of kinds of those
// files.
#define PK_OP(name, ...)                                                        \
  constinit const OpFacts name##_facts = {.kind = #name, __VA_ARGS__};          \
  template <class T> OpRow<T> name##_op() { return {forward<T>, backward<T>}; } \
  template OpRow<float> name##_op();                                            \
  template OpRow<double> name##_op()
#define PK_DECLARED(kind)            \
  extern const OpFacts kind##_facts; \
  template <class T> OpRow<T> kind##_op();
PK_OPS(PK_DECLARED)
#undef PK_DECLARED

// What each window sees of x, side by side as units, into out.
template <class T> void lay_patches(Network<T>& net, const Window& window, const Block<T>& x, Block<T>& out);

// In the order of OpKind.
template <class T> const OpRow<T>* op_rows();

struct Shape {
  int64_t units = 0, columns = 0;
  bool operator==(const Shape&) const = default;
};

// The shape of what is in each register: what a walk through a program follows. No units: nothing there.
class Shapes {
 public:
  explicit Shapes(const Program& program) : program_(program), of_((size_t)program.registers) {
    of_[0] = {program.nodes[0], columns_of(program)};
  }
  const Shape& of(int64_t reg) const { return of_[(size_t)reg]; }
  Shape after(const Op& op, int64_t number) const {
    const Shape in = of(op.ins[0]);
    if (op.kind == OpKind::drive) return {program_.drives[number], in.columns};
    if (op.kind == OpKind::linear) return {program_.units[number], in.columns};
    if (op.kind != OpKind::gather && op.kind != OpKind::pool) return in;
    const Window& window = window_of(program_, number);
    return {op.kind == OpKind::gather ? in.units * window.all_taps() : in.units, program_.batch * window.count()};
  }
  void run(const Op& op, int64_t number) { of_[(size_t)op.out] = after(op, number); }
  void end_repetition() { std::fill(of_.begin() + 1, of_.end(), Shape{}); }

 private:
  const Program& program_;
  Vector<Shape> of_;
};

// Whether repetition i of a stretch has the same shapes as the one before: then a walk through it finds nothing new, if
// register 0 begins alike.
inline bool repeats(const Program& p, const Stretch& stretch, int64_t i) {
  const int64_t layers = stretch.each[Table::layer], nodes = stretch.each[Table::node];
  const int64_t l = stretch.first[Table::layer] + i * layers, n = stretch.first[Table::node] + i * nodes + 1;
  if (!i) return false;
  for (int64_t j = l; j < l + layers; j++)
    if (p.units[j] != p.units[j - layers] || p.columns[j] != p.columns[j - layers] ||
        p.centred[j] != p.centred[j - layers] || groups_of(p, j) != groups_of(p, j - layers))
      return false;
  const int64_t windows = stretch.each[Table::window], w = stretch.first[Table::window] + i * windows;
  for (int64_t j = w; j < w + windows; j++)
    if (p.window_steps[j] != p.window_steps[j - windows]) return false;
  for (int64_t j = n; j < n + nodes; j++)
    if (p.nodes[j] != p.nodes[j - nodes]) return false;
  const int64_t mixes = stretch.each[Table::mix], m = stretch.first[Table::mix] + i * mixes;
  for (int64_t j = m; j < m + mixes; j++)
    if (p.heads[j] != p.heads[j - mixes] || p.kv_heads[j] != p.kv_heads[j - mixes]) return false;
  const int64_t drives = stretch.each[Table::drive], d = stretch.first[Table::drive] + i * drives;
  for (int64_t j = d; j < d + drives; j++)
    if (p.drives[j] != p.drives[j - drives]) return false;
  return true;
}

inline int64_t number_of(const Stretch& stretch, const Op& op, int64_t repetition) {
  const Table table = facts_of(op.kind).table;
  return stretch.first[table] + repetition * stretch.each[table] + op.at;
}

// f(op, number, shapes before it) for every op of a program, or for those whose shapes are not those of a repetition
// before; the shape of register 0 at the end.
template <class F> Shape each_op(const Program& p, F f, bool only_new = false) {
  Shapes shapes(p);
  for (int64_t s = 0; s < p.stretch_count; s++) {
    const Stretch& stretch = p.stretches[s];
    Shape before;
    for (int64_t i = 0; i < stretch.count; i++) {
      const Shape begin = shapes.of(0);
      if (only_new && repeats(p, stretch, i) && begin == before) continue;
      before = begin;
      for (int64_t j = 0; j < stretch.op_count; j++) {
        const int64_t number = number_of(stretch, stretch.ops[j], i);
        f(stretch.ops[j], number, static_cast<const Shapes&>(shapes));
        shapes.run(stretch.ops[j], number);
      }
      shapes.end_repetition();
    }
  }
  return shapes.of(0);
}
template <class F> Shape each_new(const Program& p, F f) { return each_op(p, f, true); }

}  // namespace pykernel
