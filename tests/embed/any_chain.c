/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs the chain on standard input through the C door and prints all its rows: first with the largest useful workspace,
 * then the smallest.
 */
#include "any_chain.h"

#include <pykernel/pykernel.h>

int main(void) {
  pk_activation activation = {.size = sizeof activation};
  pk_plan plan = {.size = sizeof plan, .activation = &activation};
  pk_rows rows = {.size = sizeof rows};
  char message[200];
  const int dtype = (int)read_integer(), engine = (int)read_integer();
  const int64_t count = read_integer();
  plan.depth = read_integer(), plan.batch = read_integer(), plan.seed = (uint64_t)read_integer(),
  plan.exponent = (int32_t)read_integer();
  plan.norm = (int32_t)read_integer(), plan.order = (int32_t)read_integer(), plan.loss = (int32_t)read_integer();
  plan.outputs = read_integer();
  activation.name = read_word(), activation.parameters = read_numbers();
  plan.widths = read_integers();
  plan.residual_every = read_integer(), plan.residual_scale = read_numbers();
  plan.distribution = read_word(), plan.distribution_parameter = read_number(), plan.scale = read_numbers();
  plan.bias_distribution = read_word(), plan.bias_scale = read_numbers();
  plan.correlation = read_number(), plan.x = read_numbers(), plan.cotangent = read_numbers();
  plan.head_distribution = read_word(), plan.head_parameter = read_number(), plan.head_scale = read_number();
  plan.head_weight = read_numbers(), plan.head_bias = read_numbers();
  plan.targets = read_numbers(), plan.clip_value = read_number(), plan.norm_eps = read_number();

  size_t bytes[2];
  int status = pk_chain_bytes(&plan, engine, dtype, &bytes[1], &bytes[0], message, sizeof message);
  for (int size = 0; size < 2 && !status; size++) {
    double** row = &rows.log10_grad_weight;
    for (int i = 0; i < 13; i++) row[i] = calloc((size_t)(count * (plan.depth + 1)), sizeof(double));
    void* workspace = malloc(bytes[size]);
    status = pk_chain_run(&plan, engine, dtype, 0, count, &rows, workspace, bytes[size], NULL, NULL, message,
                          sizeof message);
    for (int i = 0; i < 13 && !status; i++) {
      print_row(row[i], count * (row[i] == rows.log10_grad_activation ? plan.depth + 1
                                 : row[i] == rows.loss                ? 1
                                                                      : plan.depth));
      free(row[i]);
    }
    free(workspace);
  }
  if (status) fprintf(stderr, "%s\n", message);
  return status;
}
