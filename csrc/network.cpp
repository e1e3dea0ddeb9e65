// The loop over segments, repetitions and ops. Ops are in ops/; here is what they share: memory, gradients that add up,
// Gram matrices. SPDX-License-Identifier: BSD-3-Clause
#include "network.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "isa.hpp"

namespace pykernel {
namespace {

// Blocks at work beside the registers' own: the gradient that waits while values are made again, a result, what an op
// needs on the way.
constexpr int64_t spare_blocks = 5;

bool needs_column(const Program& program) {
  return program.head.bias || program.common || program.counts[Table::affine] ||
         std::any_of(program.bias_draw, program.bias_draw + program.counts[Table::layer],
                     [](int64_t draw) { return draw != zero_bias; });
}

Program without_formats(const Program& program) {
  Program plain = program;
  plain.formats = nullptr;
  return plain;
}
int64_t most_of_a_row(const Program& program) {
  const RowExtents extents = extents_of(program);
  int64_t most = 1;
  for (const RowFact& row : row_facts) most = std::max(most, extents.of(row.extent));
  return most;
}

template <class T> void copy(const Block<T>& from, Block<T>& to, int64_t columns) {
  memcpy(to.data, from.data, sizeof(T) * (size_t)block_entries(from.n, columns));
  to.n = from.n, to.exponent = from.exponent, to.largest = from.largest;
}

}  // namespace

template <class T> int64_t Network<T>::fixed_bytes(const Program& program, const Keep& keep) {
  if (program.formats)
    return 2 * fixed_bytes(without_formats(program), keep) + 2 * Rounding<T>::bytes(largest_of(program, keep).width) +
           taken<double>(most_of_a_row(program)) + (int64_t)sizeof(Network<T>) +
           (program.head.over == over_positions ? 0 : taken<double>(program.batch * program.batch));  // Gram matrix
  const Largest most = largest_of(program, keep);
  const int64_t registers = program.registers, grams = registers + 1;
  return bytes_of_routines(program) +
         taken<AmountOf>((int64_t)amounts_of(program, routines_of(program, keep), keep).size()) +
         Layer<T>::bytes(program.exponent, most.width, most.block) + Norms<T>::bytes(most.columns, most.width) +
         Mixer<T>::bytes(program) + Totals<T>::bytes(program) + Grams<T>::bytes(most.gram, most.width) +
         Objective<T>::bytes(program) + taken<Phi<T>>(program.activation_count) +
         taken<char>(program.activation_count) + taken<Register>(registers) + taken<Gradient<T>>(registers) +
         grams * taken<double>(most.gram) +
         (registers + spare_blocks) * (Buffer<T>::bytes(most.block) + taken<Buffer<T>>(1) + taken<T*>(1)) +
         (needs_column(program) ? taken<T>(padded(most.width)) : 0) + taken<double>(most.columns) +
         taken<double>(most.width) +  // while sums over directions or rows are taken
         (program.clip_value > 0 ? taken<double>(most.width) + taken<T>(most.width) : 0);
}

template <class T> int64_t Network<T>::tape_bytes(const Program& program, const Keep& keep, int64_t limit) {
  if (program.formats) return 2 * tape_bytes(without_formats(program), keep, limit / 2);
  const Vector<AmountOf> amounts = amounts_of(program, routines_of(program, keep), keep);
  return segments_of<T>(program, amounts, keep, limit).template bytes<T>();
}

template <class T>
Network<T>::Network(const Program& program_, Linear<T>& linear_, Team& team_, int64_t bytes)
    : program(program_),
      keeping(keep_of(program_, linear_.needs_input())),
      most(largest_of(program_, keeping)),
      columns(columns_of(program_)),
      linear(linear_),
      team(team_),
      layer(program_.exponent, columns, most.width, most.block, team_),
      norms(most.columns, most.width, layer),
      rounding(most.width, layer, team_),
      mixer(program_, team_),
      formats_(program_.formats ? *program_.formats : Formats()),
      routines_(routines_of(program_, keeping)),
      segments_(segments_of<T>(program_, amounts_of(program_, routines_, keeping), keeping,
                               program_.formats ? bytes / 2 : bytes)),
      tape_(segments_),
      objective_(program_),
      registers_((size_t)program_.registers),
      gradients_((size_t)program_.registers),
      checkpoint_room_(segments_.count > 1 ? (size_t)(segments_.count * segments_.checkpoint) : 0, Content::undefined),
      checkpoints_(segments_.count > 1 ? (size_t)segments_.count : 0),
      grams_(most.gram, most.width, linear_, layer, team_),
      gram_of_gradient_((size_t)most.gram),
      plain_(without_formats(program_)) {
  if (program.weight_count) totals.emplace(program, layer, team);
  phis_.reserve((size_t)program.activation_count);
  for (int64_t i = 0; i < program.activation_count; i++) phis_.push_back(phi_of<T>(program.activations[i]));
  passes_.reserve((size_t)program.activation_count);
  for (int64_t i = 0; i < program.activation_count; i++)
    passes_.push_back(!strcmp(program.activations[i].name, "linear") || !strcmp(program.activations[i].name, "relu"));
  if (needs_column(program)) column_.resize((size_t)padded(most.width));
  for (size_t s = 0; s < checkpoints_.size(); s++)
    checkpoints_[s].block.data = checkpoint_room_.get() + (int64_t)s * segments_.checkpoint;
  if (program.formats) {
    beside_ = std::make_unique<Network>(plain_, linear, team, bytes / 2);
    beside_->is_beside_ = true;
    beside_->unwanted_.resize((size_t)most_of_a_row(program));
  }
  const size_t buffers = (size_t)(program.registers + spare_blocks);
  buffers_.reserve(buffers), pool_.reserve(buffers);
  if (!is_lent()) return;  // a workspace is a stack: what a network needs is taken at once
  for (Register& r : registers_) r.gram.resize((size_t)most.gram);
  while (buffers_.size() < buffers) pool_.push_back(buffers_.emplace_back((size_t)most.block).get());
}

template <class T> void Network<T>::replica(int64_t replica, const Rows& all, int64_t index, double* tangent_kernel) {
  if (tangent_kernel) {
    if (!tangent) tangent = std::make_unique<Tangent>(program.batch, program.positions);
    tangent->begin();
  }
  const RowExtents extents = extents_of(program);
  Rows mine;
  for (const RowFact& row : row_facts) mine.*row.of = all.*row.of + index * extents.of(row.extent);
  linear.begin(replica, team);
  begin(replica, mine);
  const auto start = [&](int64_t s) { return s * segments_.length; };
  const auto end = [&](int64_t s) { return std::min((s + 1) * segments_.length, segments_.repetitions); };
  for (int64_t s = 0; s < segments_.count; s++) {
    checkpoint(s);
    forward(start(s), end(s));
  }
  *rows.loss = objective();
  observing = false;
  for (int64_t s = segments_.count; s-- > 0;) {
    if (s + 1 < segments_.count) {
      resume(s);
      forward(start(s), end(s));
    }
    backward(start(s), end(s));
  }
  if (totals) totals->finish(rows);
  if (tangent_kernel) tangent->finish(tangent_kernel);
  const Gradient<T> g = take(0);
  rows.log10_grad_activation[0] = log10_2 * g.norm;
  release(g.block);
}

template <class T> void Network<T>::begin(int64_t replica, const Rows& mine) {
  if (beside_) {
    Rows unwanted;
    for (const RowFact& row : row_facts) unwanted.*row.of = beside_->unwanted_.data();
    beside_->begin(replica, unwanted);
  }
  replica_ = replica;
  rows = mine;
  if (totals) totals->begin();
  forget();
  input();
  observing = true;
}

// -- the loop

template <class T> int64_t Network<T>::ops_in_all() const {
  int64_t count = 0;
  for (const Routine& routine : routines_) count += routine.stretch->count * (int64_t)routine.steps.size();
  return count;
}

template <class T> void Network<T>::forward(int64_t first, int64_t last) {
  int64_t begin = 0, before = 0;  // repetitions and ops of the routines before
  for (const Routine& routine : routines_) {
    const int64_t end = begin + routine.stretch->count;
    for (int64_t r = std::max(first, begin); r < std::min(last, end); r++) {
      if (team.stopped()) throw Stopped{};
      at_repetition(r - begin);
      at_ = before + (r - begin) * (int64_t)routine.steps.size();
      for (const Step& step : routine.steps) {
        at_++;
        const OpRow<T>& op = ops_[(int)step.op.kind];
        const int32_t in = step.op.ins[0];
        look_at(registers_[(size_t)in].columns);
        if (beside_) {
          beside_->look_at(columns);
          op.forward(*beside_, step, step.first + (r - begin) * step.each);
        }
        op.forward(*this, step, step.first + (r - begin) * step.each);
        if (traced && observing) trace(value(step.op.out), measure(step.op.out), formats_.signals);
      }
    }
    begin = end, before += routine.stretch->count * (int64_t)routine.steps.size();
  }
}

template <class T> void Network<T>::backward(int64_t first, int64_t last) {
  for (Network* network : {this, beside()})
    for (size_t r = 0; network && r < registers_.size(); r++)
      if (network->registers_[r].own.data) network->release(std::exchange(network->registers_[r].own, {}));
  int64_t end = segments_.repetitions, behind = ops_in_all();
  for (size_t i = routines_.size(); i-- > 0;) {
    const Routine& routine = routines_[i];
    const int64_t begin = end - routine.stretch->count;
    behind -= routine.stretch->count * (int64_t)routine.steps.size();
    for (int64_t r = std::min(last, end); r-- > std::max(first, begin);) {
      if (team.stopped()) throw Stopped{};
      at_repetition(r - begin);
      at_ = behind + (r - begin + 1) * (int64_t)routine.steps.size();
      for (size_t j = routine.steps.size(); j-- > 0;) {
        const Step& step = routine.steps[j];
        const OpRow<T>& op = ops_[(int)step.op.kind];
        if (beside_) op.backward(*beside_, step, step.first + (r - begin) * step.each);
        op.backward(*this, step, step.first + (r - begin) * step.each);
        at_--;
        if (traced) trace_gradients(step);
      }
    }
    end = begin;
  }
}

template <class T> void Network<T>::trace(const Block<T>& block, const Measure& measure, const Format& format) {
  Block<T> as_stored = scratch();  // what is rounded later, by a node or by whoever takes it, lies unrounded still
  copy(block, as_stored, columns);
  const Measure m = format.stochastic ? measure : rounding.round(as_stored, format, measure, {});
  traced->push_back({as_stored.exponent, m.log2_norm()});
  release(as_stored);
}

template <class T> void Network<T>::trace_gradients(const Step& step) {
  const int32_t* ins = step.op.ins;
  for (int k = 0; k < step.inputs; k++) {
    if (std::find(ins, ins + k, ins[k]) != ins + k) continue;
    const Gradient<T>& g = gradients_[(size_t)ins[k]];
    if (g.held)
      trace(g.block, g.measure, formats_.gradients);
    else
      traced->push_back({0, NAN});
  }
}

template <class T> void Network<T>::draw_input(Block<T>& x, int64_t layer) {
  x.exponent = 0;
  draw_tall(x.data, x.n, columns, address(Purpose::input, layer), team);
  if (program.correlation == 0) return;
  const Block<T> common = scratch();
  draw_tall(common.data, x.n, 1, address(Purpose::input_common, layer), team);
  const T shared = (T)sqrt(program.correlation), own = (T)sqrt(1 - program.correlation);
  for (int64_t i = 0; i < padded(x.n); i++)
    for (int64_t b = 0; b < columns; b++) {
      T& entry = x.data[entry_at(i, b, columns)];
      entry = shared * common.data[i] + own * entry;
    }
  release(common);
}

template <class T> void Network<T>::input() {
  look_at(columns_of(program));
  Block<T> a = scratch();
  a.n = program.nodes[0];
  if (program.x)
    pack(program.x, a.n, columns, a, program.exponent);
  else
    draw_input(a, 0);
  registers_[0].measure = rounding.round(a, formats_.signals, layer.settle(a), chance(Purpose::round_signal, 0));
  registers_[0].own = a;
  registers_[0].columns = columns;
}

// One read-out vector of all columns.
template <class T> void Network<T>::common_cotangent(Block<T>& g) {
  draw_tall(column(), g.n, 1, address(Purpose::cotangent, program.counts[Table::layer]), team);
  for (int64_t p = 0; p < panels_of(g.n); p++)
    for (int64_t b = 0; b < columns; b++) memcpy(g.data + (p * columns + b) * 16, column() + p * 16, 16 * sizeof(T));
  layer.settle(g);
  layer.scale(g, 1 / sqrt((double)g.n), g);
}

// J, and into g its gradient at the last node; both of logits of what is read where formats round these.
template <class T> double Network<T>::through_head(Block<T>& g) {
  const HeadSpec& head = program.head;
  const int64_t l = program.counts[Table::layer] + 1, behind = ops_in_all() + 1;
  const bool reads_first = objective_.reads_first();
  Block<T> y = scratch(), dy = scratch();
  y.n = dy.n = head.outputs;
  Block<T> read = reads_first ? scratch() : value(0);
  Vector<double> gram_of_read;
  const double* signal_gram = nullptr;
  int64_t exponent;
  if (reads_first) {
    objective_.read(value(0), read);
    look_at(read_columns_of(program));
    const Measure of_read = layer.settle(read);
    gram_of_read.resize((size_t)(keeping.grams ? columns * columns : 0));
    if (keeping.grams) grams_.make(read, of_read, gram_of_read.data(), &exponent);
    signal_gram = gram_of_read.data();
  } else if (keeping.grams) {
    signal_gram = gram(0);
  }
  linear.forward(l, columns, read, signal_gram, y, team, formats_.weights);
  if (team.stopped()) throw Stopped{};
  Measure of_y = layer.settle(y);
  if (head.bias) {
    Block<T> b = {column(), head.outputs, 0, 0};
    pack(head.bias, head.outputs, 1, b, program.exponent);
    of_y = layer.add_bias(y, b.data, b.largest, ldexp(1, (int)b.exponent));
  }
  rounding.round(y, formats_.signals, of_y, chance(Purpose::round_signal, behind));
  const double loss = objective_.differentiate(y, address(Purpose::target, l), team, dy);
  Measure m = layer.settle(dy);
  if (formats_.loss_scale != 1) m = layer.scale(dy, formats_.loss_scale, dy);
  m = rounding.round(dy, formats_.gradients, m, chance(Purpose::round_gradient, behind));
  const double* dy_gram = keeping.grams ? gram_of_gradient({dy, m}, &exponent) : nullptr;
  linear.backward(l, columns, read, signal_gram, dy, dy_gram, g, team, formats_.weights);
  release(y);
  release(dy);
  if (!reads_first) return loss;
  release(read);
  look_at(registers_[0].columns);
  Block<T> all = scratch();
  objective_.spread(g, all);
  release(g);
  g = all;
  return loss;
}

template <class T> double Network<T>::objective() {
  if (beside_) beside_->objective();
  look_at(registers_[0].columns);
  const int64_t n = value(0).n;
  double loss = NAN;
  Block<T> g = scratch();
  g.n = n;
  if (program.head.loss) {
    loss = through_head(g);
  } else if (program.cotangent) {
    pack(program.cotangent, n, columns, g, program.exponent);
  } else if (program.common) {
    common_cotangent(g);
  } else {
    draw_tall(g.data, n, columns, address(Purpose::cotangent, program.counts[Table::layer]), team);
    layer.settle(g);
    layer.scale(g, 1 / sqrt((double)n * (double)columns), g);
  }
  Measure m = layer.settle(g);
  if (!program.head.loss && formats_.loss_scale != 1) m = layer.scale(g, formats_.loss_scale, g);
  gradients_[0] = {g, m};
  gradients_[0].columns = columns;
  return loss;
}

template <class T> void Network<T>::checkpoint(int64_t s) {
  if (beside_) beside_->checkpoint(s);
  Register& r = registers_[0];
  if (segments_.count > 1) {
    Checkpoint& to = checkpoints_[(size_t)s];
    copy(value(0), to.block, r.columns);
    to.columns = r.columns;
    if (r.kept >= 0 && tape_.at(r.kept).block.data) {
      if (!r.own.data) r.own = scratch();
      copy(to.block, r.own, r.columns);
    }
  }
  r.kept = -1;
  tape_.clear();
}

template <class T> void Network<T>::resume(int64_t s) {
  if (beside_) beside_->resume(s);
  Register& r = registers_[0];
  if (!r.own.data) r.own = scratch();
  const Checkpoint& from = checkpoints_[(size_t)s];
  copy(from.block, r.own, from.columns);
  r.columns = from.columns;
  look_at(r.columns);
  r.measure = layer.settle(r.own);
  r.gram_made = false;
  r.kept = -1;
  tape_.clear();
}

// -- memory

template <class T> T* Network<T>::acquire() {
  if (pool_.empty()) return buffers_.emplace_back((size_t)most.block).get();
  T* data = pool_.back();
  pool_.pop_back();
  return data;
}

template <class T> void Network<T>::forget() {
  pool_.clear();
  for (const Buffer<T>& buffer : buffers_) pool_.push_back(buffer.get());
  for (Register& r : registers_) {
    r.own = {};
    r.kept = -1;
    r.gram_made = false;
  }
  std::fill(gradients_.begin(), gradients_.end(), Gradient<T>{});
  tape_.clear();
}

template <class T> Block<T>& Network<T>::value(int32_t reg) {
  Register& r = registers_[(size_t)reg];
  return r.kept >= 0 && tape_.at(r.kept).block.data ? tape_.at(r.kept).block : r.own;
}

template <class T> int64_t Network<T>::on_tape(Register& r) {
  if (r.kept < 0) r.kept = tape_.add(r.own.n);
  tape_.claim(r.kept);
  return r.kept;
}

template <class T> Block<T>& Network<T>::keep(int32_t reg) {
  Register& r = registers_[(size_t)reg];
  Block<T>& kept = tape_.at(on_tape(r)).block;
  if (!kept.data) {
    T* const room = tape_.take_block(r.own.n, r.columns);
    // Nothing is taken off the tape of a single segment: it may have the block itself and give room as large for it.
    if (segments_.count == 1 && block_entries(r.own.n, r.columns) == most.block) {
      kept = r.own;
      r.own.data = room;
    } else {
      kept.data = room;
      copy(r.own, kept, r.columns);
    }
    release(std::exchange(r.own, {}));
  }
  return kept;
}

template <class T> Kept<T>& Network<T>::keep_input(int32_t reg, int64_t number) {
  Register& r = registers_[(size_t)reg];
  if (keeping.inputs)
    keep(reg);
  else
    on_tape(r);
  Kept<T>& kept = tape_.at(r.kept);
  if (forms(number)) return kept;
  if (!kept.gram) {
    kept.gram = tape_.take_gram(columns);
    if (r.gram_made) {
      memcpy(kept.gram, r.gram.data(), sizeof(double) * (size_t)(columns * columns));
      kept.gram_exponent = r.gram_exponent;
    } else {
      grams_.make(value(reg), r.measure, kept.gram, &kept.gram_exponent);
    }
  }
  const int64_t centred = program.centred[number], count = columns_centred(program, centred, columns);
  if (count > 1 && !kept.moving[centred]) {
    kept.moving[centred] = tape_.take_gram(columns);
    Block<T> moving = scratch();
    const Measure m = layer.centre(value(reg), count, moving);
    grams_.make(moving, m, kept.moving[centred], &kept.moving_exponent[centred]);
    release(moving);
  }
  return kept;
}

template <class T> Block<T> Network<T>::fresh(const Step& step, int64_t n) {
  if (step.on_tape) return {tape_.take_block(n, columns), n, 0, 0};
  for (int k = facts_of(step.op.kind).in_place ? step.inputs : 0; k-- > 0;) {
    Register& r = registers_[(size_t)step.op.ins[k]];
    if (step.dies[k] && r.own.data) return {std::exchange(r.own.data, nullptr), n, 0, 0};
  }
  return {acquire(), n, 0, 0};
}

template <class T> void Network<T>::put(const Step& step, const Block<T>& block, const Measure& measure) {
  for (int k = 0; k < step.inputs; k++) {
    Register& r = registers_[(size_t)step.op.ins[k]];
    if (step.dies[k] && r.own.data) release(std::exchange(r.own, {}));
  }
  Register& r = registers_[(size_t)step.op.out];
  if (r.own.data) release(r.own);
  r.own = block;
  r.columns = columns, r.writer = at_;
  const bool later =
      step.before_node || (step.before_phi && passes_formats(step.phi_first + repetition_ * step.phi_each));
  r.measure = later ? measure : rounding.round(r.own, formats_.signals, measure, chance(Purpose::round_signal, at_));
  r.gram_made = false;
  r.kept = -1;
  if (!step.on_tape) return;
  r.kept = tape_.add(block.n);
  tape_.at(r.kept).block = std::exchange(r.own, {});
}

template <class T> void Network<T>::move(int32_t from, int32_t to) {
  if (from != to) std::swap(registers_[(size_t)from], registers_[(size_t)to]);
}

// -- gradients

template <class T> void Network<T>::store_input(Block<T>& h) {
  rounding.round(h, formats_.signals, {}, chance(Purpose::round_signal, at_));
}

template <class T> void Network<T>::round_node(int32_t reg, int64_t number) {
  if (!beside_) return;
  Register& r = registers_[(size_t)reg];
  Block<T>& x = value(reg);
  const Chance by = chance(Purpose::round_signal, r.writer);
  if (observing)
    rounding.compare(x, 1, beside_->value(reg), formats_.signals,
                     {rows.flushed_signal + number, rows.overflowed_signal + number, rows.log10_error_signal + number,
                      nullptr, rows.log10_smallest_signal + number, rows.log10_largest_signal + number},
                     by);
  r.measure = rounding.round(x, formats_.signals, r.measure, by);
  r.gram_made = false;
}

template <class T> Gradient<T> Network<T>::taken_from(int32_t reg) {
  Gradient<T>& g = gradients_[(size_t)reg];
  if (!g.held) throw std::logic_error("an op's result has no gradient");
  look_at(g.columns);
  return std::exchange(g, {});
}

template <class T> void Network<T>::store(Gradient<T>& g) {
  if (!formats_.gradients.fraction || g.stored) return;
  const Measure m = rounding.round(g.block, formats_.gradients, g.measure, chance(Purpose::round_gradient, at_));
  g = {g.block, m};
  g.stored = true, g.columns = columns;
}

template <class T> Gradient<T> Network<T>::take(int32_t reg) {
  Gradient<T> g = taken_from(reg);
  store(g);
  return g;
}

template <class T> Gradient<T> Network<T>::take_node(const Op& node, int64_t number) {
  Gradient<T> g = taken_from(node.out);
  if (beside_)
    rounding.compare(
        g.block, formats_.loss_scale, beside_->gradients_[(size_t)node.ins[0]].block, formats_.gradients,
        {rows.flushed_gradient + number, rows.overflowed_gradient + number, rows.log10_error_gradient + number,
         rows.gradient_cosine + number, rows.log10_smallest_gradient + number, rows.log10_largest_gradient + number},
        chance(Purpose::round_gradient, at_));
  store(g);
  return g;
}

template <class T> void Network<T>::give(int32_t reg, const Gradient<T>& gradient) {
  Gradient<T>& held = gradients_[(size_t)reg];
  if (!held.held) {
    held = gradient;
    held.columns = columns;
    return;
  }
  Block<T> sum = gradient.block;
  const Measure m = layer.add(gradient.block, 1, held.block, 1, sum);
  release(held.block);
  held = {sum, m};
  held.columns = columns;
}

template <class T> Gradient<T> Network<T>::times(const Gradient<T>& gradient, double factor) {
  Block<T> out = scratch();
  if (factor != 1) {
    const Measure m = layer.scale(gradient.block, factor, out);
    return {out, m};
  }
  Gradient<T> same = gradient;
  same.block = out;
  copy(gradient.block, same.block, columns);
  return same;
}

template <class T> void Network<T>::observe_slopes(int64_t number, int64_t units, const SlopeCount& count) {
  rows.saturated[number] = (double)count.saturated / ((double)units * (double)columns);
  rows.dead[number] = (double)count.dead / (double)units;
}

// -- Gram matrices

template <class T> const double* Network<T>::gram(int32_t reg) {
  Register& r = registers_[(size_t)reg];
  if (r.kept >= 0 && tape_.at(r.kept).gram) return tape_.at(r.kept).gram;
  if (!r.gram_made) {
    r.gram.resize((size_t)(columns * columns));
    grams_.make(value(reg), r.measure, r.gram.data(), &r.gram_exponent);
    r.gram_made = true;
  }
  return r.gram.data();
}

template <class T> const double* Network<T>::gram_of_gradient(const Gradient<T>& g, int64_t* exponent) {
  grams_.make(g.block, g.measure, gram_of_gradient_.data(), exponent);
  return gram_of_gradient_.data();
}

template class Network<float>;
template class Network<double>;

}  // namespace pykernel
