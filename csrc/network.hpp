// One worker's interpreter of a program: registers forward, their gradients backward, the tape between them, and the
// rows on the way. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <math.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "activation.hpp"
#include "constants.hpp"
#include "draws.hpp"
#include "gram.hpp"
#include "linear.hpp"
#include "mixer.hpp"
#include "norms.hpp"
#include "objective.hpp"
#include "rounding.hpp"
#include "tangent.hpp"
#include "tape.hpp"
#include "totals.hpp"

namespace pykernel {

// The gradient of a register, with what was measured as it was made.
template <class T> struct Gradient {
  Gradient() = default;
  Gradient(const Block<T>& b, const Measure& m) : block(b), measure(m), norm(m.log2_norm()), held(true) {}
  Block<T> block = {};
  Measure measure = {};
  double norm = 0;  // log2 of it
  int64_t columns = 0;
  bool held = false;
  bool stored = false;  // rounded to its format already
};

// Of a block that an op left: its exponent, and log2 of its norm.
struct Traced {
  int64_t exponent;
  double log2_norm;
};

template <class T> class Network {
 public:
  // bytes: for the tape and checkpoints; the results do not depend on it. With formats, half are for a run without them
  // beside this one, op by op.
  Network(const Program& program, Linear<T>& linear, Team& team, int64_t bytes);
  // Runs one replica and writes its rows at `index` of the arrays.
  // tangent_kernel: (batch, batch), or null.
  void replica(int64_t replica, const Rows& rows, int64_t index, double* tangent_kernel = nullptr);

  // What one takes of a workspace: all but tape and checkpoints, and these within `limit` bytes, or the least there is.
  // Without kernels' scratch.
  static int64_t fixed_bytes(const Program& program, const Keep& keep);
  static int64_t tape_bytes(const Program& program, const Keep& keep, int64_t limit);
  static int64_t least_bytes(const Program& program, bool needs_input) {
    const Keep keep = keep_of(program, needs_input);
    return fixed_bytes(program, keep) + tape_bytes(program, keep, 0);
  }

  // -- what ops see: forward
  const Program& program;
  const Keep keeping;
  const Largest most;
  int64_t columns;  // of the blocks at work: those that an op reads, or whose gradient it takes
  Linear<T>& linear;
  Team& team;
  Layer<T> layer;
  Norms<T> norms;
  Rounding<T> rounding;
  Mixer<T> mixer;
  std::optional<Totals<T>> totals;   // where layers share weights
  Rows rows = {};                    // of this replica
  std::unique_ptr<Tangent> tangent;  // where it is asked for
  bool observing = true;             // false where a segment is computed again
  // What every op wrote, as stored, forward and then backward (of each register that it read), or null.
  std::vector<Traced>* traced = nullptr;

  // From here on blocks of so many columns are at work.
  void look_at(int64_t count) { columns = layer.columns = count; }
  Block<T>& value(int32_t reg);
  const Measure& measure(int32_t reg) const { return registers_[(size_t)reg].measure; }
  // What engines that need no input do not ask for
  const double* known_gram(int32_t reg) { return keeping.grams ? gram(reg) : nullptr; }
  const double* gram(int32_t reg);  // x^T x of the value's mantissas, valid until the register is written
  // The value, which backward will find by kept().
  Block<T>& keep(int32_t reg);
  // The input of a layer: its Gram matrix (and the value, where the program or the engine needs it), and that without
  // the mean over the columns where only that matters; or the value alone, where dJ/dW is formed.
  Kept<T>& keep_input(int32_t reg, int64_t number);
  bool forms(int64_t number) const { return !keeping.grams && forms_gradient(program, number, columns); }
  bool remakes_patches(const Step& step, int64_t patch_columns) const {
    return pykernel::remakes_patches(program, step, repetition_, patch_columns);
  }
  const Window& window_of(const Step& step) const {
    return pykernel::window_of(program, step.window_first + repetition_ * step.window_each);
  }
  // Where the result of a step goes, n units; then the result itself.
  Block<T> fresh(const Step& step, int64_t n);
  void put(const Step& step, const Block<T>& block, const Measure& measure);
  void move(int32_t from, int32_t to);
  // Whether an activation step makes numbers of a format from such: the identity and ReLU, without a norm. What comes
  // in is then rounded behind it, to the same numbers, so that a node sees them as they were.
  bool passes_formats(int64_t step) const {
    return program.formats && !norm_of_step(step).kind && passes_[(size_t)program.step_activation[step]];
  }
  void store_input(Block<T>& h);
  // Input number `layer` (0: the chain's own, else one that arrives on the way), x.n units.
  void draw_input(Block<T>& x, int64_t layer);
  // A node's signal rounded, and what that does to it.
  void round_node(int32_t reg, int64_t number);
  Block<T> scratch() { return {acquire(), 0, 0, 0}; }
  void release(const Block<T>& block) { pool_.push_back(block.data); }

  // -- backward
  Kept<T>& kept() { return tape_.pop(); }
  const Kept<T>& kept_before() { return tape_.top(); }  // by the op before, whose turn is next
  Gradient<T> take(int32_t reg);
  Gradient<T> take_node(const Op& node, int64_t number);  // compared, where the other run has passed the node
  // The network without formats that runs beside this one, or null; and whether this one is such: then whoever it runs
  // beside calls for both where they share something.
  Network* beside() const { return beside_.get(); }
  bool is_beside() const { return is_beside_; }
  const Format& weights_format() const { return formats_.weights; }
  void give(int32_t reg, const Gradient<T>& gradient);
  Gradient<T> times(const Gradient<T>& gradient, double factor);  // in memory of its own
  const double* gram_of_gradient(const Gradient<T>& gradient, int64_t* exponent);
  // log2 of the number of a block's entries
  double log2_size(int64_t units) {
    if (units != sized_units_ || columns != sized_columns_) {
      sized_units_ = units, sized_columns_ = columns;
      log2_size_ = log2((double)units * (double)columns);
    }
    return log2_size_;
  }
  void observe_slopes(int64_t number, int64_t units, const SlopeCount& count);

  // -- numbers of the program
  const Phi<T>& phi_of_step(int64_t number) const { return phis_[(size_t)program.step_activation[number]]; }
  const NormRow& norm_of_step(int64_t number) const { return program.norms[program.step_norm[number]]; }
  Tall address(Purpose purpose, int64_t layer, TallDraw draw = TallDraw::normal) const {
    return {program.seed, (uint32_t)purpose, (uint32_t)layer, (uint32_t)replica_, draw};
  }
  T* column() { return column_.data(); }  // room for one number a unit

 private:
  struct Register {
    Block<T> own = {};  // where the value lies unless the tape has it
    int64_t columns = 0;
    int64_t kept = -1;  // on the tape
    Measure measure = {};
    bool gram_made = false;
    int64_t gram_exponent = 0;
    int64_t writer = 0;  // the number of the op that made the value
    Vector<double> gram;
  };
  Chance chance(Purpose purpose, int64_t op) const { return {program.seed, purpose, (uint32_t)op, (uint32_t)replica_}; }
  T* acquire();
  void begin(int64_t replica, const Rows& rows);
  Gradient<T> taken_from(int32_t reg);
  void store(Gradient<T>& gradient);
  void forget();
  void at_repetition(int64_t repetition) {
    repetition_ = repetition;
    if (beside_) beside_->repetition_ = repetition;
  }
  int64_t ops_in_all() const;
  int64_t on_tape(Register& r);
  void input();
  double objective();
  double through_head(Block<T>& g);
  void common_cotangent(Block<T>& g);
  void forward(int64_t first, int64_t last);
  void trace(const Block<T>& block, const Measure& measure, const Format& format);
  void trace_gradients(const Step& step);
  void backward(int64_t first, int64_t last);
  void checkpoint(int64_t segment);
  void resume(int64_t segment);

  const OpRow<T>* const ops_ = op_rows<T>();
  const Formats formats_;
  Vector<Routine> routines_;
  Segments segments_;
  Tape<T> tape_;
  Objective<T> objective_;
  int64_t replica_ = 0, sized_units_ = 0, sized_columns_ = 0, repetition_ = 0;
  int64_t at_ = 0;  // the op whose turn it is, in the order in which all run, from 1; 0 at the input
  double log2_size_ = 0;
  Vector<Phi<T>> phis_;
  Vector<char> passes_;  // of each function, whether it may pass formats
  Vector<Register> registers_;
  Vector<Gradient<T>> gradients_;
  Vector<Buffer<T>> buffers_;
  Vector<T*> pool_;  // buffers that nobody uses
  Buffer<T> checkpoint_room_;
  struct Checkpoint {
    Block<T> block;
    int64_t columns;
  };
  Vector<Checkpoint> checkpoints_;
  Vector<T> column_;
  Grams<T> grams_;
  Vector<double> gram_of_gradient_;
  const Program plain_;      // without formats
  Vector<double> unwanted_;  // rows of a network that runs beside another
  std::unique_ptr<Network> beside_;
  bool is_beside_ = false;
};

}  // namespace pykernel
