// Every op, number and pointer of a program is looked at once, before any memory is taken.
// SPDX-License-Identifier: BSD-3-Clause
#include "check.hpp"

#include <math.h>
#include <string.h>

#include <stdexcept>
#include <string>

#include "draws.hpp"
#include "ops.hpp"
#include "pykernel/block.hpp"

namespace pykernel {
namespace {

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}
// a b, and as many numbers in memory
int64_t size_of(int64_t a, int64_t b) {
  int64_t bytes;
  if (__builtin_mul_overflow(a, b, &bytes) || __builtin_mul_overflow(bytes, (int64_t)16, &bytes))
    throw TooLarge("widths and batch are too large");
  return a * b;
}
void index(int64_t i, int64_t count, const char* message) { require(i >= 0 && i < count, message); }

constexpr int64_t large = (int64_t)1 << 32, most_registers = 1 << 16;

void check_pointers(const Program& p) {
  const int64_t L = p.counts[Table::layer];
  for (int t = 0; t < table_count; t++)
    require(p.counts.of[t] >= 0 && p.counts.of[t] < 1 << 24, "counts must be at least 0 and below 2^24");
  require(L < (1 << 24) - 1, "depth must be at least 1 and below 2^24 - 1");
  check_batch(p.batch);
  require(p.positions >= 1 && p.positions < (int64_t)1 << 31 && p.batch * p.positions < large,
          "positions must be at least 1, and inputs times positions below 2^32");
  require(p.registers >= 1 && p.registers <= most_registers, "registers must be at least 1 and at most 65536");
  require(p.stretches && p.stretch_count >= 1 && p.nodes, "stretches and nodes must be given");
  require(!L || (p.units && p.columns && p.address && p.draw && p.scale && p.bias_draw && p.bias_scale && p.centred &&
                 p.draws),
          "every array over layers must be given");
  require(!p.counts[Table::activation] || (p.step_activation && p.step_norm && p.activations && p.norms),
          "activation steps, their functions and norms must be given");
  require(!p.counts[Table::norm] || (p.norm_steps && p.norms), "norm steps and norms must be given");
  require(!p.counts[Table::affine] || (p.affine_steps && p.affines), "affine steps and their rows must be given");
  require(!p.counts[Table::join] || (p.skip && p.branch), "skip and branch must be given");
  require(!p.counts[Table::factor] || p.factors, "factors must be given");
  require(!p.counts[Table::mask] || p.masks, "masks must be given");
  require(!p.counts[Table::drive] || p.drives, "drives must be given");
  require(!p.counts[Table::mix] || (p.heads && p.kv_heads && p.causal && p.mix_scale),
          "heads, kv_heads, causal and mix_scale must be given");
  require(!p.counts[Table::window] || (p.window_steps && p.windows && p.taps),
          "window_steps, windows and the taps of layers must be given");
  require(p.positions_out >= 0 && p.positions_out < (int64_t)1 << 31, "positions_out must be at least 0");
}

// Layers of one weight agree in all that makes it, and weights are numbered in order of first use.
void check_weights(const Program& p) {
  const char* disagree = "layers that share a weight must have its address, shape, draws, scale and bias";
  const auto same = [](const double* const* arrays, int64_t i, int64_t j) { return !arrays || arrays[i] == arrays[j]; };
  Vector<int64_t> first;
  for (int64_t i = 0; i < p.counts[Table::layer]; i++) {
    const int64_t w = p.weight[i];
    index(w, (int64_t)first.size() + 1, "weights must be numbered from 0 in order of first use");
    if (w == (int64_t)first.size()) first.push_back(i);
    const int64_t j = first[(size_t)w];
    require(p.address[i] == p.address[j] && p.units[i] == p.units[j] && p.columns[i] == p.columns[j] &&
                p.draw[i] == p.draw[j] && p.scale[i] == p.scale[j] && same(p.weights, i, j),
            disagree);
    require(p.bias_draw[i] == p.bias_draw[j] && p.bias_scale[i] == p.bias_scale[j] && same(p.biases, i, j), disagree);
  }
  require((int64_t)first.size() == p.weight_count, "weight_count must be how many weights there are");
}

void check_layers(const Program& p) {
  const int64_t L = p.counts[Table::layer];
  Vector<char> given((size_t)p.draw_count);
  for (int64_t i = 0; i < p.draw_count; i++) given[(size_t)i] = unit_of(p.draws[i]).source == Source::given;
  int64_t known = 0;
  for (int64_t i = 0; i < L; i++) {
    check_width(p.units[i]);
    check_width(p.columns[i]);
    require(p.address[i] >= 1 && p.address[i] < 1 << 24, "an address must be at least 1 and below 2^24");
    index(p.draw[i], p.draw_count, "a layer's draw must be one of the program's");
    index(p.bias_draw[i], given_bias + 1, "bias_draw must be 0 (zero) to 3 (given)");
    index(p.centred[i], centred_count, "centred must be 0 (no) to 2 (over each input)");
    const double *weight = p.weights ? p.weights[i] : nullptr, *bias = p.biases ? p.biases[i] : nullptr;
    require(weight || !given[(size_t)p.draw[i]], "weights must be given for every layer whose draw is \"given\"");
    require(bias || p.bias_draw[i] != given_bias, "biases must be given for every layer whose bias_draw is \"given\"");
    require(groups_of(p, i) >= 1 && p.units[i] % groups_of(p, i) == 0, "groups must divide the units of a layer");
    require(!p.taps || (p.taps[i] >= 1 && p.columns[i] % p.taps[i] == 0), "taps must divide the columns of a layer");
    const int64_t entries = size_of(p.units[i], p.columns[i]);
    if (!p.weight || p.weight[i] == known) check_finite(weight, entries, "weights"), known++;  // shared ones once
    check_finite(bias, p.units[i], "biases");
    size_of(padded(p.units[i]), columns_of(p));
  }
  if (p.weight) check_weights(p);
  check_finite(p.scale, L, "scale");
  check_finite(p.bias_scale, L, "bias_scale");
}

void check_rows(const Program& p) {
  for (int64_t i = 0; i < p.activation_count; i++) check(p.activations[i]);
  for (int64_t i = 0; i < p.norm_count; i++) check(p.norms[i]);
  for (int64_t i = 0; i < p.counts[Table::activation]; i++) {
    index(p.step_activation[i], p.activation_count, "a step's activation must be one of the program's");
    index(p.step_norm[i], p.norm_count, "a step's norm must be one of the program's");
  }
  for (int64_t i = 0; i < p.counts[Table::norm]; i++) {
    index(p.norm_steps[i], p.norm_count, "a step's norm must be one of the program's");
    require(p.norms[p.norm_steps[i]].kind != no_norm, "a norm step must have a norm");
  }
  for (int64_t i = 0; i < p.affine_count; i++) {
    check_width(p.affines[i].units);
    require(p.affines[i].weight, "the weights of an affine row must be given");
    check_finite(p.affines[i].weight, p.affines[i].units, "the weights of an affine row");
    check_finite(p.affines[i].bias, p.affines[i].units, "the biases of an affine row");
  }
  for (int64_t i = 0; i < p.counts[Table::affine]; i++)
    index(p.affine_steps[i], p.affine_count, "an affine step's row must be one of the program's");
  for (int64_t i = 0; i < p.counts[Table::mask]; i++)
    require(p.masks[i] >= 0 && p.masks[i] < 1, "masks must be at least 0 and below 1");
  check_finite(p.skip, p.counts[Table::join], "skip");
  check_finite(p.branch, p.counts[Table::join], "residual_scale");
  check_finite(p.factors, p.counts[Table::factor], "factors");
  for (int64_t i = 0; i < p.counts[Table::mix]; i++)
    require(p.kv_heads[i] >= 1 && p.heads[i] >= 1 && p.heads[i] % p.kv_heads[i] == 0,
            "attention heads must be at least 1, those of keys a divisor of them");
  check_finite(p.mix_scale, p.counts[Table::mix], "mix_scale");
  for (int64_t i = 0; i < p.counts[Table::drive]; i++) {
    check_width(p.drives[i]);
    if (p.drive) check_finite(p.drive[i], size_of(p.drives[i], columns_of(p)), "drive");
  }
}

void check_window(const Window& w) {
  for (int axis = 0; axis < 2; axis++)
    require(w.field[axis] >= 1 && w.taps[axis] >= 1 && w.stride[axis] >= 1 && w.padding[axis] >= 0 &&
                w.dilation[axis] >= 1 && w.dilation[axis] < (int64_t)1 << 31 && w.taps[axis] < (int64_t)1 << 31 &&
                w.field[axis] < (int64_t)1 << 31 && w.padding[axis] <= w.span(axis) &&
                w.stride[axis] < (int64_t)1 << 31 && w.span(axis) <= w.field[axis] + 2 * w.padding[axis],
            "a window must fit into its field with the padding");
  require(w.padding[0] < w.span(0) && w.padding[1] < w.span(1), "padding must be less than a window");
}

// Registers hold what is read, in shapes as the numbers say.
void check_op(const Program& p, const Op& op, int64_t number, const Shapes& shapes) {
  const OpFacts& facts = facts_of(op.kind);
  index(number, p.counts[facts.table], "an op's number must be below what counts says of its table");
  const Shape in = shapes.of(op.ins[0]);
  const int64_t n = in.units;
  for (int k = 0; k < facts.inputs; k++) {
    require(shapes.of(op.ins[k]).units > 0, "an op must read a register that was written in its repetition");
    require(shapes.of(op.ins[k]).columns == in.columns, "blocks that an op reads must have as many columns");
  }
  if (op.kind == OpKind::mix) {
    const int64_t heads = p.heads[number], units_of_keys = n / heads * p.kv_heads[number];
    require(n % heads == 0, "attention heads must divide the units of the query");
    require(shapes.of(op.ins[1]).units == units_of_keys && shapes.of(op.ins[2]).units == units_of_keys,
            "key and value must have as many units a head as the query");
  }
  for (int k = 1; k < facts.inputs && op.kind != OpKind::mix; k++)
    require(shapes.of(op.ins[k]).units == n, "blocks that are added or multiplied must have as many units");
  if (op.kind == OpKind::linear)
    require(p.columns[number] * groups_of(p, number) == n, "a layer must have as many columns as its input has units");
  if (op.kind == OpKind::gather || op.kind == OpKind::pool) {
    index(p.window_steps[number], p.window_count, "a step's window must be one of the program's");
    const Window& window = window_of(p, number);
    check_window(window);
    require(window.positions() * p.batch == in.columns, "a window's field must have as many positions as its input");
    const Shape out = shapes.after(op, number);
    check_width(out.units);
    size_of(padded(out.units), out.columns);
  }
  if (op.kind == OpKind::affine)
    require(p.affines[p.affine_steps[number]].units == n, "an affine row must have as many units as its input");
  if (op.kind == OpKind::node) require(p.nodes[number + 1] == n, "a node's units must be those of its block");
}

// Whether every result reaches the end: then every op finds a gradient on the way back.
void check_gradients(const Stretch& stretch, Vector<char>& held) {
  std::fill(held.begin(), held.end(), 0);
  held[0] = 1;
  for (int64_t j = stretch.op_count; j-- > 0;) {
    const Op& op = stretch.ops[j];
    require(held[(size_t)op.out],
            "every result must be read before its register is written again or the repetition ends");
    held[(size_t)op.out] = 0;
    for (int k = 0; k < facts_of(op.kind).inputs && op.kind != OpKind::drive; k++) held[(size_t)op.ins[k]] = 1;
  }
  require(held[0], "a repetition must read register 0");
  for (size_t r = 1; r < held.size(); r++) require(!held[r], "a repetition must read of earlier ones register 0 only");
}

void check_ops(const Program& p) {
  check_width(p.nodes[0]);
  size_of(padded(p.nodes[0]), columns_of(p));
  Counts counts = {};
  Vector<char> held((size_t)p.registers);
  for (int64_t s = 0; s < p.stretch_count; s++) {
    const Stretch& stretch = p.stretches[s];
    require(stretch.ops && stretch.op_count >= 1 && stretch.count >= 1 && stretch.count < 1 << 24,
            "a stretch must have ops and a count");
    Counts each = {};
    for (int64_t j = 0; j < stretch.op_count; j++) {
      const Op& op = stretch.ops[j];
      index((int64_t)op.kind, op_kinds, "unknown kind of op");
      index(op.out, p.registers, "an op's registers must be below the program's");
      for (int k = 0; k < facts_of(op.kind).inputs; k++)
        index(op.ins[k], p.registers, "an op's registers must be below the program's");
      require(op.at == each.of[(int)facts_of(op.kind).table]++,
              "an op's place in its table must follow that of the one before");
    }
    check_gradients(stretch, held);
    for (int t = 0; t < table_count; t++) {
      require(stretch.first.of[t] == counts.of[t] && stretch.each.of[t] == each.of[t],
              "a stretch must count on from the one before");
      counts.of[t] += stretch.count * each.of[t];
      require(counts.of[t] <= p.counts.of[t], "counts must be those of the stretches");
    }
  }
  for (int t = 0; t < table_count; t++)
    require(counts.of[t] == p.counts.of[t], "counts must be those of the stretches");
  const Shape end =
      each_new(p, [&](const Op& op, int64_t number, const Shapes& shapes) { check_op(p, op, number, shapes); });
  require(end.units == p.nodes[p.counts[Table::node]], "a program must end in a node");
  require(end.columns == columns_out_of(p), "positions_out must be those of the last node");
}

void check_ends(const Program& p) {
  const int64_t n = p.nodes[p.counts[Table::node]], columns = columns_of(p);
  const HeadSpec& head = p.head;
  require(head.loss >= no_loss && head.loss <= linear_loss, "loss must be 0 to 4");
  if (head.loss) {
    require(head.outputs >= 1 && head.outputs < large, "outputs must be at least 1 and below 2^32");
    require(head.weight || unit_of(head.draw).source != Source::given,
            "the head's weight must be given where its draw is \"given\"");
    check_finite(&head.scale, 1, "head_scale");
    check_finite(head.weight, size_of(head.outputs, n), "the head's weight");
    check_finite(head.bias, head.outputs, "the head's bias");
    require(head.over >= over_positions && head.over <= over_mean, "over must be 0 to 3");
    check_finite(head.targets, size_of(head.outputs, read_columns_of(p)), "targets");
  }
  require(p.correlation >= 0 && p.correlation <= 1, "correlation must be within 0 and 1");
  require(p.clip_value >= 0, "clip_value must not be negative");
  check_finite(p.x, p.x ? p.nodes[0] * columns : 0, "x");
  check_finite(p.cotangent, p.cotangent ? n * columns_out_of(p) : 0, "cotangent");
}

}  // namespace

void check_finite(const double* x, int64_t n, const char* what) {
  for (int64_t i = 0; x && i < n; i++)
    if (!isfinite(x[i])) throw std::invalid_argument(std::string(what) + " must be finite");
}
void check_width(int64_t width) { require(width >= 1 && width < large, "widths must be at least 1 and below 2^32"); }
void check_batch(int64_t batch) {
  require(batch >= 1 && batch < (int64_t)1 << 31, "batch must be at least 1 and below 2^31");
}

void check(const ActivationRow& f) {
  require(f.name, "the activation's name must be given");
  require(isfinite(f.left) && isfinite(f.right) && isfinite(f.before_zero) && isfinite(f.after_zero) &&
              isfinite(f.at_zero) && isfinite(f.max_slope),
          "the activation's slopes and value at zero must be finite");
}

void check(const NormRow& norm) {
  require(norm.kind >= no_norm && norm.kind <= rms_norm, "norm must be 0 to 3");
  require(norm.eps >= 1e-30 && norm.eps <= 1e30, "norm_eps must be from 1e-30 to 1e30");
}

void check(const Program& program) {
  check_pointers(program);
  check_layers(program);
  check_rows(program);
  check_ops(program);
  check_ends(program);
}

}  // namespace pykernel
