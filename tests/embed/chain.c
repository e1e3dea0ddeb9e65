/* SPDX-License-Identifier: BSD-3-Clause */
/* A whole chain from C, matrix-free, with an activation function of our own: softsign, 64 layers of 1000 units. */
#include <math.h>
#include <pykernel/pykernel.h>
#include <stdio.h>
#include <stdlib.h>

enum { depth = 64, width = 1000, replicas = 3 };

static void softsign(const double* z, double* out, int64_t n, void* user) {
  (void)user;
  for (int64_t i = 0; i < n; i++) out[i] = z[i] / (1 + fabs(z[i]));
}
static void softsign_slope(const double* z, double* out, int64_t n, void* user) {
  (void)user;
  for (int64_t i = 0; i < n; i++) out[i] = 1 / ((1 + fabs(z[i])) * (1 + fabs(z[i])));
}

int main(void) {
  static int64_t widths[depth + 1];
  static double scale[depth], log10_grad_activation[replicas * (depth + 1)];
  char message[200];
  size_t least, most;

  if (pk_abi_version() != PK_ABI_VERSION) {
    fprintf(stderr, "the library has ABI version %d, the header %d\n", pk_abi_version(), PK_ABI_VERSION);
    return 1;
  }
  for (int l = 0; l <= depth; l++) widths[l] = width;
  for (int l = 0; l < depth; l++) scale[l] = sqrt(1.0 / width);

  const pk_activation activation = {.size = sizeof activation,
                                    .name = "callback",
                                    .value_f64 = softsign,
                                    .slope_f64 = softsign_slope,
                                    .before_zero = 1,
                                    .after_zero = 1,
                                    .max_slope = 1}; /* left = right = at_zero = 0 */
  const pk_plan plan = {.size = sizeof plan,
                        .depth = depth,
                        .widths = widths,
                        .batch = 1,
                        .seed = 7,
                        .exponent = 1,
                        .activation = &activation,
                        .distribution = "normal",
                        .scale = scale};
  const pk_rows rows = {.size = sizeof rows, .log10_grad_activation = log10_grad_activation};

  if (pk_chain_bytes(&plan, PK_MATRIX_FREE, PK_FLOAT64, &least, &most, message, sizeof message)) goto failed;
  void* workspace = malloc(most);
  if (!workspace) return 1;
  int status = pk_chain_run(&plan, PK_MATRIX_FREE, PK_FLOAT64, 0, replicas, &rows, workspace, most, NULL, NULL, message,
                            sizeof message);
  free(workspace);
  if (status) goto failed;

  for (int i = 0; i < replicas * (depth + 1); i++) printf("%a\n", log10_grad_activation[i]);
  return 0;

failed:
  fprintf(stderr, "%s\n", message);
  return 1;
}
