// Two patterns: a layer after the other in register 0, and branches of some layers in register 2 that are added to it.
// SPDX-License-Identifier: BSD-3-Clause
#include "lower.hpp"

#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "pykernel/block.hpp"

namespace pykernel {
namespace {

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

int64_t bias_draw_of(const char* name) {
  const char* names[] = {"zero", "normal", "uniform", "given"};  // in the order of BiasDraw
  for (int i = 0; i < 4; i++)
    if (!strcmp(name, names[i])) return i;
  throw std::invalid_argument("bias_distribution must be \"zero\", \"normal\", \"uniform\" or \"given\"");
}

void check(const Plan& plan) {
  require(plan.depth >= 1 && plan.depth < (1 << 24) - 1, "depth must be at least 1 and below 2^24 - 1");
  require(plan.widths && plan.scale && plan.residual_scale && plan.bias_scale,
          "widths, scale, residual_scale and bias_scale must be given");
  for (int64_t l = 0; l <= plan.depth; l++)
    require(plan.widths[l] >= 1 && plan.widths[l] < (int64_t)1 << 32, "widths must be at least 1 and below 2^32");
  require(plan.activation.name && plan.distribution && plan.bias_distribution &&
              (plan.loss <= no_loss || plan.head_distribution),
          "activation, distribution, bias_distribution and head_distribution must be given");
  require(plan.loss <= no_loss || !strcmp(plan.head_distribution, "given") == (plan.head_weight != nullptr),
          "head_weight must be given with head_distribution \"given\", and only then");
  require(!strcmp(plan.distribution, "given") == (plan.weights != nullptr),
          "weights must be given with distribution \"given\", and only then");
  require((bias_draw_of(plan.bias_distribution) == given_bias) == (plan.biases != nullptr),
          "biases must be given with bias_distribution \"given\", and only then");
  for (int64_t l = 0; l < plan.depth; l++)
    require((!plan.weights || plan.weights[l]) && (!plan.biases || plan.biases[l]),
            "weights and biases must be given for every layer");
  require(plan.norm >= no_norm && plan.norm <= rms_norm, "norm must be 0 to 3");
  require(plan.order == linear_norm_activation || plan.order == norm_activation_linear, "order must be 0 or 1");
  require(plan.residual_every >= 0, "residual_every must not be negative");
  for (int64_t k = plan.residual_every, l = k; k && l <= plan.depth; l += k)
    require(plan.widths[l] == plan.widths[l - k], "layers joined by a residual must have the same width");
}

constexpr int32_t signal = 0, inner = 1, branch = 2;  // registers; inner: between a layer's two steps

Op step(OpKind kind, int32_t out, int32_t in) { return {kind, out, {in, 0}, 0}; }

}  // namespace

Lowered::Lowered(const Plan& plan) {
  check(plan);
  set_stretches(plan);
  set_arrays(plan);
  set_program(plan);
}

void Lowered::set_stretches(const Plan& plan) {
  const int64_t L = plan.depth, every = plan.residual_every, branches = every ? L / every : 0,
                rest = L - branches * every;
  // The two steps of a layer, from one register to another.
  const auto layer = [&](std::vector<Op>& ops, int32_t from, int32_t to) {
    const bool linear_first = plan.order == linear_norm_activation;
    ops.push_back(step(linear_first ? OpKind::linear : OpKind::phi, inner, from));
    ops.push_back(step(linear_first ? OpKind::phi : OpKind::linear, to, inner));
  };
  const auto repeat = [&](std::vector<Op>& ops, int64_t count) {
    program_.counts = add_stretch(stretches_.emplace_back(), ops.data(), (int64_t)ops.size(), count, program_.counts);
  };
  stretches_.reserve(2);
  if (branches) {
    branch_.reserve((size_t)(3 * every + 1));
    for (int64_t at = 0; at < every; at++) {
      layer(branch_, at ? branch : signal, branch);
      if (at < every - 1) branch_.push_back(step(OpKind::node, branch, branch));
    }
    branch_.push_back({OpKind::add, signal, {signal, branch}, 0});
    branch_.push_back(step(OpKind::node, signal, signal));
    repeat(branch_, branches);
    for (int64_t i = 1; i <= branches; i++) factors_of_branches_.push_back(plan.residual_scale[i * every - 1]);
  }
  if (rest) {
    last_.reserve(3);
    layer(last_, signal, signal);
    last_.push_back(step(OpKind::node, signal, signal));
    repeat(last_, rest);
  }
}

void Lowered::set_arrays(const Plan& plan) {
  const int64_t L = plan.depth;
  const size_t n = (size_t)L;
  for (int64_t l = 1; l <= L; l++) address_.push_back(l);
  draw_.assign(n, 0);
  bias_draw_.assign(n, bias_draw_of(plan.bias_distribution));
  const bool normed = plan.norm == batch_norm && plan.order == linear_norm_activation;
  centred_.assign(n, normed ? over_all_columns : not_centred);
  step_activation_.assign(n, 0);
  step_norm_.assign(n, plan.norm != no_norm);
  skip_.assign(factors_of_branches_.size(), 1);
  draws_[0] = {plan.distribution, plan.distribution_parameter};
  norms_[0] = {no_norm, plan.norm_eps};
  norms_[1] = {plan.norm, plan.norm_eps};
}

void Lowered::set_program(const Plan& plan) {
  Program& p = program_;
  p.stretches = stretches_.data();
  p.stretch_count = (int64_t)stretches_.size();
  p.registers = branch_.empty() ? inner + 1 : branch + 1;
  p.nodes = p.columns = plan.widths;
  p.units = plan.widths + 1;
  p.batch = plan.batch;
  p.address = address_.data();
  p.draw = draw_.data();
  p.scale = plan.scale;
  p.bias_draw = bias_draw_.data();
  p.bias_scale = plan.bias_scale;
  p.centred = centred_.data();
  p.draws = draws_;
  p.draw_count = 1;
  p.weights = plan.weights;
  p.biases = plan.biases;
  p.step_activation = step_activation_.data();
  p.step_norm = step_norm_.data();
  p.activations = &plan.activation;
  p.activation_count = 1;
  p.norms = norms_;
  p.norm_count = plan.norm == no_norm ? 1 : 2;
  p.skip = skip_.data();
  p.branch = factors_of_branches_.data();
  p.x = plan.x;
  p.correlation = plan.correlation;
  p.cotangent = plan.cotangent;
  p.head.loss = plan.loss;
  p.head.outputs = plan.outputs;
  p.head.draw = {plan.head_distribution, plan.head_parameter};
  p.head.scale = plan.head_scale;
  p.head.weight = plan.head_weight;
  p.head.bias = plan.head_bias;
  p.head.targets = plan.targets;
  p.clip_value = plan.clip_value;
  p.seed = plan.seed;
  p.exponent = plan.exponent;
}

}  // namespace pykernel
