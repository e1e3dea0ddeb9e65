/* SPDX-License-Identifier: BSD-3-Clause */
/* A chain as numbers and words on standard input, for the programs that run any chain a test asks for. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static double read_number(void) {
  double x;
  if (scanf("%lf", &x) != 1) exit(2);
  return x;
}
static int64_t read_integer(void) {
  long long x;
  if (scanf("%lld", &x) != 1) exit(2);
  return x;
}
static const char* read_word(void) {
  char* word = (char*)malloc(64);
  if (scanf("%63s", word) != 1) exit(2);
  return word;
}
/* A count and as many numbers; null for none. */
static double* read_numbers(void) {
  const int64_t count = read_integer();
  double* x = count ? (double*)malloc((size_t)count * sizeof(double)) : NULL;
  for (int64_t i = 0; i < count; i++) x[i] = read_number();
  return x;
}
static int64_t* read_integers(void) {
  const int64_t count = read_integer();
  int64_t* x = (int64_t*)malloc((size_t)(count + 1) * sizeof(int64_t));
  for (int64_t i = 0; i < count; i++) x[i] = read_integer();
  return x;
}
static void print_row(const double* x, int64_t count) {
  for (int64_t i = 0; i < count; i++) printf("%a ", x[i]);
  printf("\n");
}
