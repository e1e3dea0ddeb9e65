// The C functions that run programs: what a caller leaves out is filled in here, and ops get their numbers.
// SPDX-License-Identifier: BSD-3-Clause
#include <deque>
#include <iterator>
#include <memory>
#include <vector>

#include "c_door.hpp"
#include "ops.hpp"

namespace {

using namespace pykernel;
using namespace pykernel::c_door;

constexpr int64_t most_ops = 1 << 16, most_numbers = 1 << 24;

// In the order of pk_op_kind
constexpr OpKind c_kinds[] = {OpKind::linear, OpKind::phi,  OpKind::norm,   OpKind::gate, OpKind::add,  OpKind::scale,
                              OpKind::mask,   OpKind::node, OpKind::affine, OpKind::mix,  OpKind::drive};

// A caller's program as C++ has it; what lies here is not a run's memory.
class HeldProgram {
 public:
  explicit HeldProgram(const pk_program* given) : c_(read(given)) {
    read_stretches();
    read_activations();
    read_layers();
    read_ends();
    find_centred(p_, centred_.get());
  }
  HeldProgram(const HeldProgram&) = delete;
  const Program& program() const { return p_; }

 private:
  int64_t count(Table table) const { return p_.counts[table]; }
  template <class T> const T* or_else(const T* given, Table table, T value) {
    if (given) return given;
    if constexpr (std::is_same_v<T, double>)
      return numbers_.emplace_back((size_t)count(table), value).data();
    else
      return integers_.emplace_back((size_t)count(table), value).data();
  }

  void read_stretches() {
    require(c_.stretches && c_.stretch_count >= 1 && c_.stretch_count < most_ops,
            "stretches must be given, at least one");
    stretches_.resize((size_t)c_.stretch_count);
    for (int64_t s = 0; s < c_.stretch_count; s++) {
      const pk_stretch& from = c_.stretches[s];
      require(
          from.ops && from.op_count >= 1 && from.op_count < most_ops && from.count >= 1 && from.count < most_numbers,
          "a stretch must have ops and a count");
      std::vector<Op>& ops = ops_.emplace_back();
      for (int64_t j = 0; j < from.op_count; j++) {
        const pk_op& op = from.ops[j];
        require(op.kind >= 0 && op.kind < (int)std::size(c_kinds),
                "an op's kind must be one of pk_op_kind, which has no convolutions or pools");
        for (const int32_t r : {op.out, op.ins[0], op.ins[1], op.ins[2]})
          require(r >= 0 && r < most_ops, "an op's registers must be at least 0 and below 65536");
        ops.push_back({c_kinds[op.kind], op.out, {op.ins[0], op.ins[1], op.ins[2]}, 0});
        p_.registers = std::max<int64_t>({p_.registers, op.out + 1, op.ins[0] + 1, op.ins[1] + 1, op.ins[2] + 1});
      }
      p_.counts = add_stretch(stretches_[(size_t)s], ops.data(), from.op_count, from.count, p_.counts);
      for (const int64_t n : p_.counts.of) require(n < most_numbers, "there must be fewer than 2^24 ops of a kind");
    }
    p_.stretches = stretches_.data();
    p_.stretch_count = c_.stretch_count;
  }

  void read_activations() {
    require(
        c_.activation_count >= 0 && c_.activation_count < most_ops && c_.norm_count >= 0 && c_.norm_count < most_ops,
        "activation_count and norm_count must be from 0 to 65535");
    require(!c_.activation_count || c_.activations, "activations must be given");
    require(!c_.norm_count || c_.norm_kinds, "norm_kinds must be given");
    for (int64_t i = 0; i < c_.activation_count; i++)
      rows_.push_back(row_of(c_.activations[i], callbacks_.emplace_back()));
    norms_.push_back({no_norm, 1e-5});
    for (int64_t i = 0; i < c_.norm_count; i++)
      norms_.push_back({c_.norm_kinds[i], c_.norm_eps ? c_.norm_eps[i] : 1e-5});
    p_.activations = rows_.data();
    p_.activation_count = c_.activation_count;
    p_.norms = norms_.data();
    p_.norm_count = c_.norm_count + 1;
    p_.step_activation = or_else<int64_t>(c_.step_activation, Table::activation, 0);
    p_.step_norm = or_else<int64_t>(c_.step_norm, Table::activation, 0);
    p_.norm_steps = c_.norm_steps;
    const auto within = [&](const int64_t* steps, Table table, const char* message) {
      require(steps || !count(table), message);
      for (int64_t i = 0; i < count(table); i++) require(steps[i] >= 0 && steps[i] < p_.norm_count, message);
    };
    within(p_.step_norm, Table::activation, "step_norm must be 0 or number a norm, from 1");
    within(p_.norm_steps, Table::norm, "norm_steps must number a norm, from 1");
    require(c_.affine_count >= 0 && c_.affine_count < most_ops, "affine_count must be from 0 to 65535");
    require(!c_.affine_count || (c_.affine_units && c_.affine_weights),
            "affine_units and affine_weights must be given");
    for (int64_t i = 0; i < c_.affine_count; i++)
      affines_.push_back({c_.affine_units[i], c_.affine_weights[i], c_.affine_biases ? c_.affine_biases[i] : nullptr});
    p_.affines = affines_.data();
    p_.affine_count = c_.affine_count;
    p_.affine_steps = or_else<int64_t>(c_.affine_steps, Table::affine, 0);
  }

  void read_layers() {
    const size_t L = (size_t)count(Table::layer);
    std::vector<int64_t>& bias_draws = integers_.emplace_back(L, (int64_t)zero_bias);
    for (size_t i = 0; i < L; i++)
      bias_draws[i] = c_.biases && c_.biases[i] ? given_bias : c_.bias_scale ? normal_bias : zero_bias;
    read_weights();
    p_.units = c_.units;
    p_.columns = c_.columns;
    p_.draws = draws_of(c_.draws, c_.draw_count);
    p_.draw_count = c_.draw_count;
    p_.draw = or_else<int64_t>(c_.draw, Table::layer, 0);
    p_.scale = c_.scale;
    p_.weights = c_.weights;
    p_.bias_draw = bias_draws.data();
    p_.bias_scale = or_else<double>(c_.bias_scale, Table::layer, c_.biases ? 1 : 0);
    p_.biases = c_.biases;
    centred_ = std::make_unique<int64_t[]>(L + 1);
    p_.centred = centred_.get();
    p_.skip = or_else<double>(c_.skip, Table::join, 1);
    p_.branch = or_else<double>(c_.branch, Table::join, 1);
    p_.factors = c_.factors;
    p_.masks = c_.masks;
    read_mixes();
  }

  // Where a weight lies in the stream, and which layers use it.
  void read_weights() {
    const int64_t L = count(Table::layer);
    std::vector<int64_t>&own = integers_.emplace_back(), &first = integers_.emplace_back();
    for (int64_t i = 0; i < L; i++) {
      const int64_t w = c_.weight ? c_.weight[i] : i;
      require(w >= 0 && w <= (int64_t)first.size(), "weight must number the weights from 0 in order of first use");
      if (w == (int64_t)first.size()) first.push_back(i + 1);
      own.push_back(first[(size_t)w]);
    }
    p_.address = c_.address ? c_.address : own.data();
    p_.weight = c_.weight;
    p_.weight_count = c_.weight ? (int64_t)first.size() : 0;
  }

  void read_mixes() {
    const size_t mixes = (size_t)count(Table::mix);
    p_.heads = c_.heads;
    p_.kv_heads = c_.kv_heads ? c_.kv_heads : c_.heads;
    causal_ = std::make_unique<bool[]>(mixes + 1);
    for (size_t i = 0; i < mixes && c_.causal; i++) causal_[i] = c_.causal[i];
    p_.causal = causal_.get();
    p_.mix_scale = c_.mix_scale;
  }

  const Draw* draws_of(const pk_draw* given, int64_t count) {
    require(count >= 0 && count < most_ops && (given || !count), "draws must be given, draw_count of them");
    for (int64_t i = 0; i < count; i++) draws_.push_back({given[i].distribution, given[i].parameter});
    return draws_.data();
  }

  void read_ends() {
    p_.nodes = c_.nodes;
    p_.batch = c_.batch;
    p_.positions = c_.positions ? c_.positions : 1;
    p_.seed = c_.seed;
    p_.exponent = c_.exponent != 0;
    p_.correlation = c_.correlation;
    p_.drives = c_.drives;
    p_.drive = c_.drive;
    p_.x = c_.x;
    p_.cotangent = c_.cotangent;
    p_.head = {c_.loss,       c_.outputs,     {c_.head_draw.distribution, c_.head_draw.parameter},
               c_.head_scale, c_.head_weight, c_.head_bias,
               c_.targets,    c_.over};
    p_.clip_value = c_.clip_value;
  }

  const pk_program c_;
  Program p_ = {};
  std::vector<Stretch> stretches_;
  std::deque<std::vector<Op>> ops_;
  std::deque<std::vector<double>> numbers_;
  std::deque<std::vector<int64_t>> integers_;
  std::deque<Callback> callbacks_;
  std::vector<ActivationRow> rows_;
  std::vector<NormRow> norms_;
  std::vector<AffineRow> affines_;
  std::vector<Draw> draws_;
  std::unique_ptr<int64_t[]> centred_;
  std::unique_ptr<bool[]> causal_;
};

}  // namespace

int pk_program_bytes(const pk_program* program, int engine, int dtype, size_t* least, size_t* most, char* message,
                     size_t message_size) {
  return done(message, message_size, [&] {
    const HeldProgram held(program);
    const WorkspaceSize size =
        with_dtype(dtype, [&](auto t) { return program_bytes<decltype(t)>(held.program(), (Engine)engine); });
    if (least) *least = size.least;
    if (most) *most = size.most;
  });
}

int pk_program_run(const pk_program* program, int engine, int dtype, int64_t first, int64_t count, const pk_rows* rows,
                   void* workspace, size_t bytes, int (*stop)(void*), void* user, char* message, size_t message_size) {
  return finished(message, message_size, [&] {
    const HeldProgram held(program);
    const Rows to = rows_of(rows);
    Asked asked(stop, user);
    return with_dtype(dtype, [&](auto t) {
      return run_program<decltype(t)>(held.program(), (Engine)engine, first, count, to, workspace, bytes, asked.stop());
    });
  });
}
