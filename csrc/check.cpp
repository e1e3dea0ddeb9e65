// Every number and pointer of a plan is looked at once, before any memory is taken.
// SPDX-License-Identifier: BSD-3-Clause
#include "check.hpp"

#include <math.h>
#include <string.h>

#include <stdexcept>
#include <string>

#include "draws.hpp"
#include "pykernel/block.hpp"

namespace pykernel {
namespace {

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}
void finite(const double* x, int64_t n, const char* what) {
  for (int64_t i = 0; x && i < n; i++)
    if (!isfinite(x[i])) throw std::invalid_argument(std::string(what) + " must be finite");
}

void known(const char* distribution, double parameter) {
  for (const char* name : {"given", "identity", "constant", "haar"})
    if (!strcmp(name, distribution)) return;
  check_parameter(distribution_called(distribution), parameter);
}

}  // namespace

void check(const Plan& plan) {
  require(plan.depth >= 1 && plan.depth < (1 << 24) - 1, "depth must be at least 1 and below 2^24 - 1");
  require(plan.batch >= 1 && plan.batch < (int64_t)1 << 31, "batch must be at least 1 and below 2^31");
  require(plan.widths && plan.scale && plan.residual_scale && plan.bias_scale,
          "widths, scale, residual_scale and bias_scale must be given");
  const auto size = [&](int64_t a, int64_t b) {
    int64_t bytes;
    require(!__builtin_mul_overflow(a, b, &bytes) && !__builtin_mul_overflow(bytes, (int64_t)16, &bytes), "widths and batch are too large");
    return a * b;
  };
  for (int64_t l = 0; l <= plan.depth; l++) {
    require(plan.widths[l] >= 1 && plan.widths[l] < (int64_t)1 << 32, "widths must be at least 1 and below 2^32");
    size(padded(plan.widths[l]), plan.batch);
    require(!l || ((!plan.weights || plan.weights[l - 1]) && (!plan.biases || plan.biases[l - 1])),
            "weights and biases must be given for every layer");
    if (plan.weights && l) finite(plan.weights[l - 1], size(plan.widths[l], plan.widths[l - 1]), "weights");
    if (plan.biases && l) finite(plan.biases[l - 1], plan.widths[l], "biases");
  }
  require(plan.activation.name && plan.distribution && plan.bias_distribution && (plan.loss <= no_loss || plan.head_distribution),
          "activation, distribution, bias_distribution and head_distribution must be given");
  known(plan.distribution, plan.distribution_parameter);
  if (plan.loss > no_loss) {
    require(strcmp(plan.head_distribution, "given"), "head_distribution must be one that is drawn, not \"given\"");
    known(plan.head_distribution, plan.head_parameter);
    finite(&plan.head_scale, 1, "head_scale");
  }
  const ActivationRow& f = plan.activation;
  require(isfinite(f.left) && isfinite(f.right) && isfinite(f.before_zero) && isfinite(f.after_zero) && isfinite(f.at_zero) &&
              isfinite(f.max_slope),
          "the activation's slopes and value at zero must be finite");
  require(!strcmp(plan.distribution, "given") == (plan.weights != nullptr),
          "weights must be given with distribution \"given\", and only then");
  require(!strcmp(plan.bias_distribution, "zero") || !strcmp(plan.bias_distribution, "normal") ||
              !strcmp(plan.bias_distribution, "uniform") || !strcmp(plan.bias_distribution, "given"),
          "bias_distribution must be \"zero\", \"normal\", \"uniform\" or \"given\"");
  require(!strcmp(plan.bias_distribution, "given") == (plan.biases != nullptr),
          "biases must be given with bias_distribution \"given\", and only then");
  require(plan.norm >= no_norm && plan.norm <= rms_norm, "norm must be 0 to 3");
  require(plan.norm_eps >= 1e-30 && plan.norm_eps <= 1e30, "norm_eps must be from 1e-30 to 1e30");
  require(plan.order == linear_norm_activation || plan.order == norm_activation_linear, "order must be 0 or 1");
  require(plan.loss >= no_loss && plan.loss <= linear_loss, "loss must be 0 to 4");
  require(plan.loss ? plan.outputs >= 1 && plan.outputs < (int64_t)1 << 32 : true, "outputs must be at least 1 and below 2^32");
  if (plan.loss) finite(plan.targets, size(plan.outputs, plan.batch), "targets");
  require(plan.residual_every >= 0, "residual_every must not be negative");
  for (int64_t k = plan.residual_every, l = k; k && l <= plan.depth; l += k)
    require(plan.widths[l] == plan.widths[l - k], "layers joined by a residual must have the same width");
  require(plan.correlation >= 0 && plan.correlation <= 1, "correlation must be within 0 and 1");
  require(plan.clip_value >= 0, "clip_value must not be negative");
  finite(plan.scale, plan.depth, "scale");
  finite(plan.bias_scale, plan.depth, "bias_scale");
  finite(plan.residual_scale, plan.depth, "residual_scale");
  finite(plan.x, plan.x ? plan.widths[0] * plan.batch : 0, "x");
  finite(plan.cotangent, plan.cotangent ? plan.widths[plan.depth] * plan.batch : 0, "cotangent");
}

}  // namespace pykernel
