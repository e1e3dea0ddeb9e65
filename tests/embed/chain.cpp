// SPDX-License-Identifier: BSD-3-Clause
// A whole chain from C++: 152 ReLU layers of 256 units, He's variance, 8 inputs; prints the weight gradient of each
// layer.
#include <cmath>
#include <cstdio>
#include <pykernel/chain.hpp>
#include <pykernel/version.hpp>
#include <vector>

int main() {
  const int64_t depth = 152, width = 256, replicas = 2;
  const std::vector<int64_t> widths(depth + 1, width);
  const std::vector<double> scale(depth, std::sqrt(2.0 / width)), ones(depth, 1), zeros(depth, 0);

  pykernel::Plan plan = {};
  plan.depth = depth, plan.widths = widths.data(), plan.batch = 8;
  plan.seed = 7, plan.exponent = true;  // magnitudes of any depth
  plan.activation = pykernel::activation_row("relu");
  plan.distribution = "normal", plan.scale = scale.data();
  plan.bias_distribution = "zero", plan.bias_scale = zeros.data();
  plan.residual_scale = ones.data();

  std::vector<double> log10_grad_weight(replicas * depth);
  pykernel::Rows rows = {};  // a null row is not written
  rows.log10_grad_weight = log10_grad_weight.data();

  const auto size = pykernel::chain_bytes<float>(plan, pykernel::dense);
  std::vector<char> workspace(size.most);
  pykernel::run_chain<float>(plan, pykernel::dense, 0, replicas, rows, workspace.data(), workspace.size());

  std::printf("pykernel %s\n", pykernel::version());
  for (const double x : log10_grad_weight) std::printf("%a\n", x);
}
