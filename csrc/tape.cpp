// What is kept follows from the table of ops: one walk over a repetition, without numbers, says what its forward pass
// will keep. SPDX-License-Identifier: BSD-3-Clause
#include "tape.hpp"

#include <math.h>

#include <algorithm>

namespace pykernel {
namespace {

bool reads(const Op& op, int32_t reg) {
  const auto inputs = std::begin(op.ins);
  return std::find(inputs, inputs + facts_of(op.kind).inputs, reg) != inputs + facts_of(op.kind).inputs;
}
bool keeps_block(const Op& op, const Keep& keep) {
  return facts_of(op.kind).keeps_inputs || (facts_of(op.kind).keeps_gram && keep.inputs);
}

// Whether op j multiplies patches that no other op reads.
bool is_patch_layer(const Stretch& stretch, int64_t j) {
  const Op &gather = stretch.ops[j - 1], &layer = stretch.ops[j];
  if (gather.kind != OpKind::gather || layer.kind != OpKind::linear || layer.ins[0] != gather.out) return false;
  if (layer.out == gather.out) return true;
  for (int64_t k = j + 1; k < stretch.op_count; k++) {
    if (reads(stretch.ops[k], gather.out)) return false;
    if (stretch.ops[k].out == gather.out) return true;
  }
  return gather.out != 0;
}

// What has been kept of the values in the registers.
struct State {
  bool value, block, gram, moving[centred_count];
};

Amount amount_of(const Program& program, const Routine& routine, int64_t repetition, const Keep& keep, Shapes& shapes,
                 Vector<State>& registers) {
  Amount amount;
  registers.assign(registers.size(), State{});
  for (const Step& step : routine.steps) {
    const Op& op = step.op;
    const OpFacts& facts = facts_of(op.kind);
    const int64_t number = number_of(*routine.stretch, op, repetition);
    const int64_t columns = shapes.of(op.ins[0]).columns;
    const Shape out = shapes.after(op, number);
    const bool remade = remakes_patches(program, step, repetition, step.before_layer ? out.columns : columns),
               block = remade ? step.before_layer : keeps_block(op, keep),
               on_tape = step.on_tape && !(remade && step.before_layer),
               gram = facts.keeps_gram && (keep.grams || !forms_gradient(program, number, columns));
    const int64_t centred = gram ? program.centred[number] : (int64_t)not_centred;
    const bool moving = columns_centred(program, centred, columns) > 1;
    for (int k = 0; k < facts.inputs && (block || gram); k++) {
      State& state = registers[(size_t)op.ins[k]];
      amount.claims++;
      amount.values += !state.value;
      if (block && !state.block) amount.entries += block_entries(shapes.of(op.ins[k]).units, columns);
      amount.grams += columns * columns * ((gram && !state.gram) + (moving && !state.moving[centred]));
      state.value = true, state.block |= block, state.gram |= gram, state.moving[centred] |= moving;
    }
    if (op.kind == OpKind::node) {
      std::swap(registers[(size_t)op.ins[0]], registers[(size_t)op.out]);
    } else {
      registers[(size_t)op.out] = {on_tape, on_tape, false, {}};
      amount.values += on_tape;
      if (on_tape) amount.entries += block_entries(out.units, out.columns);
    }
    shapes.run(op, number);
  }
  shapes.end_repetition();
  return amount;
}

Segments cut(const Vector<AmountOf>& amounts, int64_t length) {
  Segments s = {0, length, 0, {}, 0};
  Amount segment;
  for (const AmountOf& run : amounts)
    for (int64_t left = run.repetitions, part; left > 0; left -= part) {
      const int64_t done = s.repetitions % length;
      part = std::min(left, length - done);
      if (done == 0) {
        segment = {};
        s.count++;
      }
      segment.add(run.amount, part);
      s.largest.grow(segment);
      s.repetitions += part;
    }
  return s;
}

}  // namespace

Vector<int64_t> columns_of_layers(const Program& program) {
  Vector<int64_t> columns;
  if (!program.counts[Table::window]) return columns;
  columns.resize((size_t)program.counts[Table::layer]);
  each_op(program, [&](const Op& op, int64_t number, const Shapes& shapes) {
    if (op.kind == OpKind::linear) columns[(size_t)number] = shapes.of(op.ins[0]).columns;
  });
  return columns;
}

Keep keep_of(const Program& program, bool linear_needs_input) {
  bool inputs = program.clip_value > 0 || program.weight_count > 0 || linear_needs_input;
  if (!inputs)
    each_new(program, [&](const Op& op, int64_t number, const Shapes& shapes) {
      inputs |= op.kind == OpKind::linear && forms_gradient(program, number, shapes.of(op.ins[0]).columns);
    });
  return {inputs, linear_needs_input, linear_needs_input && program.weight_count > 0};
}

Vector<Routine> routines_of(const Program& program, const Keep& keep) {
  Vector<Routine> routines;
  routines.reserve((size_t)program.stretch_count);
  for (int64_t s = 0; s < program.stretch_count; s++) {
    const Stretch& stretch = program.stretches[s];
    Routine& routine = routines.emplace_back(Routine{&stretch, {}});
    routine.steps.reserve((size_t)stretch.op_count);
    for (int64_t j = 0; j < stretch.op_count; j++) {
      const Op& op = stretch.ops[j];
      const OpFacts& facts = facts_of(op.kind);
      Step step = {};
      step.op = op, step.inputs = facts.inputs;
      step.first = number_of(stretch, op, 0), step.each = stretch.each[facts.table];
      // Whether anything reads register reg (keeping: and keeps it) behind op j before it is written again.
      const auto read_later = [&](int32_t reg, bool keeping) {
        for (int64_t k = j + 1; k < stretch.op_count; k++) {
          const Op& later = stretch.ops[k];
          if (reads(later, reg) && (!keeping || keeps_block(later, keep))) return true;
          if (later.out == reg) return false;
        }
        return reg == 0 && !keeping;  // the signal goes on to the next repetition
      };
      if (j + 1 < stretch.op_count && stretch.ops[j + 1].ins[0] == op.out) {
        const Op& next = stretch.ops[j + 1];
        step.before_node = next.kind == OpKind::node, step.before_phi = next.kind == OpKind::phi;
        step.phi_first = number_of(stretch, next, 0), step.phi_each = stretch.each[facts_of(next.kind).table];
      }
      const int64_t near = op.kind == OpKind::gather ? j + 1 : op.kind == OpKind::linear ? j : 0;
      if (!keep.grams && near > 0 && near < stretch.op_count && is_patch_layer(stretch, near)) {
        step.before_layer = near == j + 1, step.behind_gather = near == j;
        step.window_first = number_of(stretch, stretch.ops[near - 1], 0),
        step.window_each = stretch.each[Table::window];
        step.layer_first = number_of(stretch, stretch.ops[near], 0), step.layer_each = stretch.each[Table::layer];
      }
      step.on_tape = op.kind != OpKind::node && read_later(op.out, true);
      for (int k = 0; k < facts.inputs; k++) step.dies[k] = op.ins[k] == op.out || !read_later(op.ins[k], false);
      routine.steps.push_back(step);
    }
  }
  return routines;
}

int64_t bytes_of_routines(const Program& program) {
  int64_t bytes = taken<Routine>(program.stretch_count);
  for (int64_t s = 0; s < program.stretch_count; s++) bytes += taken<Step>(program.stretches[s].op_count);
  return bytes;
}

void Amount::add(const Amount& other, int64_t times) {
  entries += times * other.entries;
  grams += times * other.grams;
  values += times * other.values;
  claims += times * other.claims;
}
void Amount::grow(const Amount& other) {
  entries = std::max(entries, other.entries);
  grams = std::max(grams, other.grams);
  values = std::max(values, other.values);
  claims = std::max(claims, other.claims);
}

Vector<AmountOf> amounts_of(const Program& program, const Vector<Routine>& routines, const Keep& keep) {
  Vector<AmountOf> amounts;
  const auto each = [&](auto use) {
    Shapes shapes(program);
    Vector<State> registers((size_t)program.registers);
    Amount amount;
    for (const Routine& routine : routines) {
      Shape before;
      for (int64_t i = 0; i < routine.stretch->count; i++) {
        const Shape begin = shapes.of(0);
        if (!repeats(program, *routine.stretch, i) || !(begin == before))
          amount = amount_of(program, routine, i, keep, shapes, registers);
        before = begin;
        use(amount);
      }
    }
  };
  if (is_lent()) {  // a vector that grows would leave its traces in the workspace
    size_t changes = 0;
    Amount before;
    each([&](const Amount& amount) {
      changes += !changes || !(amount == before);
      before = amount;
    });
    amounts.reserve(changes);
  }
  each([&](const Amount& amount) {
    if (amounts.empty() || !(amounts.back().amount == amount)) amounts.push_back({amount, 0});
    amounts.back().repetitions++;
  });
  return amounts;
}

int64_t largest_width(const Program& program) {
  int64_t most = std::max(program.nodes[0], program.head.loss ? program.head.outputs : 0);
  for (int64_t l = 0; l < program.counts[Table::layer]; l++)
    most = std::max({most, program.units[l], program.columns[l] * groups_of(program, l)});
  return most;
}

Largest largest_of(const Program& program, const Keep& keep) {
  Largest most = {largest_width(program), columns_of(program), block_entries(program.nodes[0], columns_of(program)), 1};
  const auto grow = [&](const Shape& shape) {
    most.width = std::max(most.width, shape.units), most.columns = std::max(most.columns, shape.columns);
    most.block = std::max(most.block, block_entries(shape.units, shape.columns));
  };
  each_new(program, [&](const Op& op, int64_t number, const Shapes& shapes) {
    const Shape &in = shapes.of(op.ins[0]), out = shapes.after(op, number);
    grow(in), grow(out);
    const bool formed = op.kind == OpKind::linear && !keep.grams && forms_gradient(program, number, in.columns);
    if (formed) most.block = std::max(most.block, padded(in.columns) * out.units);  // dJ/dz, turned
    if ((op.kind == OpKind::linear && !formed) || (op.kind == OpKind::node && !sums_directions(in)))
      most.gram = std::max(most.gram, in.columns * in.columns);
  });
  if (program.head.loss) grow({program.head.outputs, columns_out_of(program)});
  return most;
}

template <class T> int64_t Segments::bytes() const {
  return Buffer<T>::bytes(largest.entries) + taken<double>(largest.grams) + taken<Kept<T>>(largest.values) +
         taken<int32_t>(largest.claims) +
         (count > 1 ? Buffer<T>::bytes(count * checkpoint) + taken<Block<T>>(count) : 0);
}
template int64_t Segments::bytes<float>() const;
template int64_t Segments::bytes<double>() const;

template <class T>
Segments segments_of(const Program& program, const Vector<AmountOf>& amounts, const Keep& keep, int64_t bytes) {
  int64_t repetitions = 0;
  for (const AmountOf& run : amounts) repetitions += run.repetitions;
  Segments best = cut(amounts, std::max<int64_t>(1, repetitions));
  if (keep.all || best.bytes<T>() <= bytes) return best;
  const int64_t block = largest_of(program, {false, false}).block;
  const auto cut_into = [&](int64_t count) {
    Segments s = cut(amounts, std::max<int64_t>(1, (repetitions + count - 1) / count));
    s.checkpoint = s.count > 1 ? block : 0;
    return s;
  };
  for (int64_t count = 2; best.bytes<T>() > bytes && count <= repetitions; count += std::max<int64_t>(1, count / 4)) {
    const Segments next = cut_into(count);
    if (next.bytes<T>() < best.bytes<T>())
      best = next;
    else if (count * count > 4 * repetitions)
      break;
  }
  return best;
}
template Segments segments_of<float>(const Program&, const Vector<AmountOf>&, const Keep&, int64_t);
template Segments segments_of<double>(const Program&, const Vector<AmountOf>&, const Keep&, int64_t);

template <class T>
Tape<T>::Tape(const Segments& segments)
    : blocks_((size_t)segments.largest.entries, Content::undefined), grams_((size_t)segments.largest.grams) {
  values_.reserve((size_t)segments.largest.values);
  claims_.reserve((size_t)segments.largest.claims);
}

template <class T> void Tape<T>::clear() {
  values_.clear();
  claims_.clear();
  entries_ = gram_entries_ = 0;
}
template <class T> int64_t Tape<T>::add(int64_t n) {
  values_.push_back({{nullptr, n, 0, 0}, nullptr, 0, {}, {}});
  return (int64_t)values_.size() - 1;
}
template <class T> T* Tape<T>::take_block(int64_t n, int64_t columns) {
  T* block = blocks_.get() + entries_;
  entries_ += block_entries(n, columns);
  const int64_t panel = block_entries(1, columns);
  std::fill_n(blocks_.get() + entries_ - panel, panel, T(0));  // padding
  return block;
}
template <class T> double* Tape<T>::take_gram(int64_t columns) {
  double* gram = grams_.data() + gram_entries_;
  gram_entries_ += columns * columns;
  return gram;
}
template <class T> Kept<T>& Tape<T>::pop() {
  Kept<T>& kept = values_[(size_t)claims_.back()];
  claims_.pop_back();
  return kept;
}
template class Tape<float>;
template class Tape<double>;

}  // namespace pykernel
