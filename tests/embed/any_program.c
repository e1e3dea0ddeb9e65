/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs the program on standard input through the C door and prints all its rows: first with the largest useful
 * workspace, then the smallest. */
#include "any_chain.h"

#include <pykernel/pykernel.h>

enum { layers, activations, nodes, mixes };

int main(void) {
  pk_program program = {.size = sizeof program};
  char message[200];
  const int dtype = (int)read_integer(), engine = (int)read_integer();
  const int64_t count = read_integer();

  program.stretch_count = read_integer();
  pk_stretch* stretches = calloc((size_t)program.stretch_count, sizeof *stretches);
  int64_t numbers[4] = {0, 0, 0, 0};
  for (int64_t s = 0; s < program.stretch_count; s++) {
    const int64_t op_count = read_integer(), repetitions = read_integer();
    pk_op* ops = calloc((size_t)op_count, sizeof *ops);
    for (int64_t j = 0; j < op_count; j++) {
      ops[j].kind = (int32_t)read_integer(), ops[j].out = (int32_t)read_integer();
      ops[j].ins[0] = (int32_t)read_integer(), ops[j].ins[1] = (int32_t)read_integer(),
      ops[j].ins[2] = (int32_t)read_integer();
      numbers[layers] += ops[j].kind == PK_OP_LINEAR ? repetitions : 0;
      numbers[activations] += ops[j].kind == PK_OP_PHI || ops[j].kind == PK_OP_GATE ? repetitions : 0;
      numbers[nodes] += ops[j].kind == PK_OP_NODE ? repetitions : 0;
      numbers[mixes] += ops[j].kind == PK_OP_MIX ? repetitions : 0;
    }
    stretches[s].ops = ops, stretches[s].op_count = op_count, stretches[s].count = repetitions;
  }
  program.stretches = stretches;
  program.nodes = read_integers();
  program.batch = read_integer(), program.positions = read_integer(), program.seed = (uint64_t)read_integer();
  program.exponent = (int32_t)read_integer();

  program.units = read_integers(), program.columns = read_integers(), program.draw = read_integers();
  program.draw_count = read_integer();
  pk_draw* draws = calloc((size_t)program.draw_count + 1, sizeof *draws);
  for (int64_t i = 0; i < program.draw_count; i++)
    draws[i].distribution = read_word(), draws[i].parameter = read_number();
  program.draws = draws;
  program.scale = read_numbers(), program.bias_scale = read_numbers();

  program.activation_count = read_integer();
  pk_activation* rows_of = calloc((size_t)program.activation_count + 1, sizeof *rows_of);
  const pk_activation** each = calloc((size_t)program.activation_count + 1, sizeof *each);
  for (int64_t i = 0; i < program.activation_count; i++) {
    rows_of[i].size = sizeof *rows_of, rows_of[i].name = read_word(), rows_of[i].parameters = read_numbers();
    each[i] = &rows_of[i];
  }
  program.activations = each;
  program.step_activation = read_integers(), program.step_norm = read_integers();
  program.norm_count = read_integer();
  int32_t* kinds = calloc((size_t)program.norm_count + 1, sizeof *kinds);
  for (int64_t i = 0; i < program.norm_count; i++) kinds[i] = (int32_t)read_integer();
  program.norm_kinds = kinds, program.norm_eps = read_numbers(), program.norm_steps = read_integers();
  program.skip = read_numbers(), program.branch = read_numbers(), program.factors = read_numbers(),
  program.masks = read_numbers();
  program.heads = read_integers(), program.kv_heads = read_integers();
  int32_t* causal = calloc((size_t)numbers[mixes] + 1, sizeof *causal);
  for (int64_t i = 0; i < numbers[mixes]; i++) causal[i] = (int32_t)read_integer();
  program.causal = causal, program.mix_scale = read_numbers();

  program.affine_steps = read_integers();
  program.affine_count = read_integer();
  int64_t* affine_units = calloc((size_t)program.affine_count + 1, sizeof *affine_units);
  const double** affine[2];
  for (int64_t i = 0; i < program.affine_count; i++) affine_units[i] = read_integer();
  for (int part = 0; part < 2; part++) affine[part] = calloc((size_t)program.affine_count + 1, sizeof **affine);
  for (int64_t i = 0; i < 2 * program.affine_count; i++) affine[i % 2][i / 2] = read_numbers();
  program.affine_units = affine_units, program.affine_weights = affine[0], program.affine_biases = affine[1];

  const int64_t weights = read_integer(); /* that layers share */
  int64_t* weight = read_integers();
  program.weight = weights ? weight : NULL;
  program.drives = read_integers();

  program.loss = (int32_t)read_integer(), program.outputs = read_integer();
  program.head_draw.distribution = read_word(), program.head_draw.parameter = read_number(),
  program.head_scale = read_number();

  size_t bytes[2];
  int status = pk_program_bytes(&program, engine, dtype, &bytes[1], &bytes[0], message, sizeof message);
  for (int size = 0; size < 2 && !status; size++) {
    const int64_t L = numbers[layers], A = numbers[activations], N = numbers[nodes], M = numbers[mixes];
    const int64_t W = weights;
    const int64_t extents[] = {L, L, L, N + 1, L, N, N, A, A, N, L, A, 1, M, M, W, W}; /* in the order of pk_rows */
    pk_rows rows = {.size = sizeof rows};
    double** row = &rows.log10_grad_weight;
    for (int i = 0; i < 17; i++) row[i] = calloc((size_t)(count * extents[i] + 1), sizeof(double));
    void* workspace = malloc(bytes[size]);
    status = pk_program_run(&program, engine, dtype, 0, count, &rows, workspace, bytes[size], NULL, NULL, message,
                            sizeof message);
    static const int order[] = {0, 1, 15, 16, 2,  3,  4,  5, 6,
                                7, 8, 9,  10, 11, 13, 14, 12}; /* that of pykernel/observables.py */
    for (int i = 0; i < 17 && !status; i++) print_row(row[order[i]], count * extents[order[i]]);
    for (int i = 0; i < 17; i++) free(row[i]);
    free(workspace);
  }
  if (status) fprintf(stderr, "%s\n", message);
  return status;
}
