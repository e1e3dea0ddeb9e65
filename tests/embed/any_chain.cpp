// SPDX-License-Identifier: BSD-3-Clause
// Runs the chain on standard input through the C++ door and prints all its rows: first with the largest useful
// workspace, then the smallest.
#include "any_chain.h"

#include <pykernel/chain.hpp>
#include <vector>

using namespace pykernel;

template <class T> static void run(const Plan& plan, Engine engine, int64_t count) {
  const WorkspaceSize size = chain_bytes<T>(plan, engine);
  for (const size_t bytes : {size.most, size.least}) {
    const RowExtents extents = {plan.depth, plan.depth, plan.depth, 0};
    std::vector<std::vector<double>> memory(row_count, std::vector<double>((size_t)(count * (plan.depth + 1))));
    Rows rows;
    for (int i = 0; i < row_count; i++) rows.*row_facts[i].of = memory[i].data();
    std::vector<char> workspace(bytes);
    run_chain<T>(plan, engine, 0, count, rows, workspace.data(), bytes);
    for (const RowFact& row : row_facts)
      if (row.extent != RowExtent::mix) print_row(rows.*row.of, count * extents.of(row.extent));
  }
}

int main() {
  Plan plan = {};
  const int64_t wide = read_integer(), engine = read_integer(), count = read_integer();
  plan.depth = read_integer(), plan.batch = read_integer(), plan.seed = (uint64_t)read_integer(),
  plan.exponent = read_integer();
  plan.norm = (int)read_integer(), plan.order = (int)read_integer(), plan.loss = (int)read_integer(),
  plan.outputs = read_integer();
  const char* name = read_word();
  plan.activation = activation_row(name, read_numbers());
  plan.widths = read_integers();
  plan.residual_every = read_integer(), plan.residual_scale = read_numbers();
  plan.distribution = read_word(), plan.distribution_parameter = read_number(), plan.scale = read_numbers();
  plan.bias_distribution = read_word(), plan.bias_scale = read_numbers();
  plan.correlation = read_number(), plan.x = read_numbers(), plan.cotangent = read_numbers();
  plan.head_distribution = read_word(), plan.head_parameter = read_number(), plan.head_scale = read_number();
  plan.head_weight = read_numbers(), plan.head_bias = read_numbers();
  plan.targets = read_numbers(), plan.clip_value = read_number(), plan.norm_eps = read_number();
  wide ? run<double>(plan, (Engine)engine, count) : run<float>(plan, (Engine)engine, count);
}
