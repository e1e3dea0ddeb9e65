/* SPDX-License-Identifier: BSD-3-Clause */
/* Six repetitions of a pre-norm block with a SwiGLU gate, x + W2 (silu(G u) * V u) with u = RMSNorm(x): depth as long
 * as you like. */
#include <math.h>
#include <pykernel/pykernel.h>
#include <stdio.h>
#include <stdlib.h>

enum { width = 64, hidden = 170, depth = 6, columns = 10 };

int main(void) {
  /* Registers: 0 the signal; 1 its norm; 2 the gate's input, then the product; 3 the gated value. */
  const pk_op ops[] = {
      {PK_OP_NORM, 1, {0}},   {PK_OP_LINEAR, 2, {1}}, {PK_OP_LINEAR, 3, {1}}, {PK_OP_GATE, 2, {2, 3}},
      {PK_OP_LINEAR, 1, {2}}, {PK_OP_ADD, 0, {0, 1}}, {PK_OP_NODE, 0, {0}},
  };
  const pk_stretch stretch = {ops, sizeof ops / sizeof *ops, depth};
  int64_t nodes[depth + 1], units[3 * depth], fans[3 * depth], norm_steps[depth];
  double scale[3 * depth];
  for (int i = 0; i < depth; i++) {
    nodes[i] = width, norm_steps[i] = 1;
    for (int k = 0; k < 3; k++) {
      units[3 * i + k] = k < 2 ? hidden : width;
      fans[3 * i + k] = k < 2 ? width : hidden;
      scale[3 * i + k] = sqrt(1. / (double)fans[3 * i + k]); /* lecun_normal */
    }
  }
  nodes[depth] = width;
  const pk_draw normal = {"normal", 0};
  const pk_activation silu = {.size = sizeof silu, .name = "silu"}, *activations[] = {&silu};
  const int32_t norms[] = {PK_RMS_NORM};

  pk_program program = {.size = sizeof program, .stretches = &stretch, .stretch_count = 1, .nodes = nodes};
  program.batch = 2, program.positions = columns / 2, program.seed = 7, program.exponent = 1;
  program.units = units, program.columns = fans, program.draws = &normal, program.draw_count = 1, program.scale = scale;
  program.activations = activations, program.activation_count = 1;
  program.norm_kinds = norms, program.norm_count = 1, program.norm_steps = norm_steps;

  char message[200];
  size_t most = 0;
  double gradient[depth + 1];
  pk_rows rows = {.size = sizeof rows, .log10_grad_activation = gradient};
  int status = pk_program_bytes(&program, PK_DENSE, PK_FLOAT32, NULL, &most, message, sizeof message);
  void* workspace = malloc(most);
  if (!status)
    status = pk_program_run(&program, PK_DENSE, PK_FLOAT32, 0, 1, &rows, workspace, most, NULL, NULL, message,
                            sizeof message);
  free(workspace);
  if (status) {
    fprintf(stderr, "%s\n", message);
    return status;
  }
  for (int i = 0; i <= depth; i++) printf("%a ", gradient[i]);
  printf("\n");
  return 0;
}
