/* SPDX-License-Identifier: BSD-3-Clause */
/* The C door: plain types, status codes, memory of the caller, no threads. For C, Fortran, Julia, ctypes. */
/* docs/embedding_cpp.md walks through it. Functions may be called from several threads at once, each with a workspace
 * of its own. */
#ifndef PYKERNEL_PYKERNEL_H
#define PYKERNEL_PYKERNEL_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define PK_API __attribute__((visibility("default")))
#else
#define PK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Counts incompatible changes of this header; compare it with what pk_abi_version() of the loaded library says. Structs
   may grow at their end without such a change: set `size` to sizeof(the struct), zero the rest, then fill in. */
#define PK_ABI_VERSION 1
PK_API int pk_abi_version(void);
/* "major.minor.patch" of the library; static storage. */
PK_API const char* pk_version(void);
/* The instruction set in use: "avx512", "avx2" or "baseline". Null where PYKERNEL_ISA names none of this machine's. */
PK_API const char* pk_isa(void);

/* What every function below returns. `message` (of message_size bytes, or null) then says what was given and what is
 * allowed. */
typedef enum { PK_OK = 0, PK_INVALID = 1, PK_TOO_FEW_BYTES = 2, PK_STOPPED = 3, PK_FAILED = 4 } pk_status;
typedef enum { PK_FLOAT32 = 0, PK_FLOAT64 = 1 } pk_dtype;
typedef enum { PK_DENSE = 0, PK_MATRIX_FREE = 1 } pk_engine;
typedef enum { PK_NO_NORM = 0, PK_BATCH_NORM = 1, PK_LAYER_NORM = 2, PK_RMS_NORM = 3 } pk_norm;
typedef enum { PK_LINEAR_NORM_ACTIVATION = 0, PK_NORM_ACTIVATION_LINEAR = 1 } pk_order;
typedef enum { PK_OVER_POSITIONS = 0, PK_OVER_FIRST = 1, PK_OVER_LAST = 2, PK_OVER_MEAN = 3 } pk_over;
typedef enum { PK_NO_LOSS = 0, PK_MSE = 1, PK_SIGMOID = 2, PK_SOFTMAX = 3, PK_LINEAR_LOSS = 4 } pk_loss;
typedef enum {
  PK_WEIGHT,
  PK_MASK,
  PK_BIAS,
  PK_INPUT,
  PK_INPUT_COMMON,
  PK_COTANGENT,
  PK_TARGET,
  PK_FORWARD,
  PK_BACKWARD
} pk_purpose;

/* -- the random stream by address (pykernel/stream.hpp) */

PK_API void pk_philox(const uint32_t counter[4], uint64_t seed, uint32_t words[4]);
/* Tall arrays, out (units, columns) row by row. */
PK_API int pk_draw_words(uint64_t seed, uint32_t purpose, uint32_t layer, uint32_t replica, int64_t units,
                         int64_t columns, uint32_t* out, char* message, size_t message_size);
PK_API int pk_draw_uniforms(uint64_t seed, uint32_t purpose, uint32_t layer, uint32_t replica, int64_t units,
                            int64_t columns, float* out, char* message, size_t message_size);
PK_API int pk_draw_normals(uint64_t seed, uint32_t purpose, uint32_t layer, uint32_t replica, int64_t units,
                           int64_t columns, float* out, char* message, size_t message_size);
/* A tile of the unit draws of W[layer], out (rows, columns) row by row. distribution: "normal", "uniform", "truncated",
   "sparse", "student" or "stable". */
PK_API int pk_draw_weights(uint64_t seed, uint32_t layer, uint32_t replica, const char* distribution, double parameter,
                           int64_t first_row, int64_t first_column, int64_t rows, int64_t columns, float* out,
                           char* message, size_t message_size);

/* -- activation functions */

/* out[i] = f(z[i]) for i < n */
typedef void (*pk_function_f32)(const float* z, float* out, int64_t n, void* user);
typedef void (*pk_function_f64)(const double* z, double* out, int64_t n, void* user);

/* A function that the library knows: set name, and parameters or null for the defaults. Or your own: name "callback",
   the functions (those of float32 may be null), and the seven facts below. */
typedef struct {
  size_t size;
  const char* name;
  const double* parameters;
  pk_function_f32 value_f32, slope_f32;
  pk_function_f64 value_f64, slope_f64;
  void* user;
  double left, right;             /* slopes at minus and plus infinity */
  double before_zero, after_zero; /* slopes on either side of zero */
  double at_zero;                 /* value at zero */
  double max_slope;               /* largest magnitude of the slope */
  int32_t flat;                   /* the slope is exactly zero somewhere */
} pk_activation;
/* Fills in the facts of a known function. */
PK_API int pk_activation_facts(pk_activation* activation, char* message, size_t message_size);

/* -- one layer (pykernel/layer.hpp) */

/* n units times B inputs, mantissas times 2^exponent; unit i, input b at data[(i / 16 * B + b) * 16 + i % 16], padding
   zero. data: float or double as the dtype of the call says, pk_block_entries(n, B) of them. This struct does not grow.
 */
typedef struct {
  void* data;
  int64_t n;
  int64_t exponent;
  double largest;
} pk_block;
/* Sum and sum of squares of a block's mantissas. This struct does not grow. */
typedef struct {
  double sum, square;
  int64_t exponent;
} pk_measure;
typedef struct {
  size_t size;
  int64_t rows, columns, batch;
  uint64_t seed;
  uint32_t layer, replica;
  const char* distribution; /* as in pk_draw_weights, or "given" */
  double distribution_parameter, scale;
  float* draws;        /* room for pk_panel_entries(rows, columns) draws that forward leaves for backward, or null */
  const void* weights; /* of "given": panels from pk_pack_weights */
  const char* bias_distribution; /* null or "zero", "normal", "uniform", "given" */
  double bias_scale;
  const double* bias;
  const pk_activation* activation;
  int32_t norm, exponent; /* pk_norm; whether magnitudes may leave the range of the dtype */
  double norm_eps;        /* what the norm adds to the variance; 0: 1e-5 */
} pk_layer;

PK_API int64_t pk_block_entries(int64_t n, int64_t batch);
PK_API int64_t pk_panel_entries(int64_t rows, int64_t columns);
/* x (n, batch) row by row into block->data, and back; matrix (rows, columns) row by row into panels. All of the dtype.
 */
PK_API int pk_pack(int dtype, const void* x, int64_t n, int64_t batch, pk_block* block, char* message,
                   size_t message_size);
PK_API int pk_unpack(int dtype, const pk_block* block, int64_t batch, void* x, char* message, size_t message_size);
PK_API int pk_pack_weights(int dtype, const void* matrix, int64_t rows, int64_t columns, void* panels, char* message,
                           size_t message_size);

PK_API int pk_layer_bytes(const pk_layer* layer, int dtype, size_t* bytes, char* message, size_t message_size);
/* z = W u + b, v = phi(Norm(z)); measured[2] of z and v, or null. */
PK_API int pk_layer_forward(const pk_layer* layer, int dtype, const pk_block* u, pk_block* z, pk_block* v,
                            pk_measure* measured, void* workspace, size_t bytes, char* message, size_t message_size);
/* delta = dJ/dz from g = dJ/dv, du = W^T delta; measured[2] of delta and du, count[2] of saturated pairs and dead
 * units, or null. */
PK_API int pk_layer_backward(const pk_layer* layer, int dtype, pk_block* z, const pk_block* g, pk_block* delta,
                             pk_block* du, pk_measure* measured, int64_t* count, void* workspace, size_t bytes,
                             char* message, size_t message_size);
/* out = x + factor y */
PK_API int pk_layer_add(const pk_layer* layer, int dtype, const pk_block* x, const pk_block* y, double factor,
                        pk_block* out, pk_measure* measured, void* workspace, size_t bytes, char* message,
                        size_t message_size);
PK_API int pk_layer_observe(const pk_layer* layer, int dtype, const pk_block* x, pk_measure* measured, void* workspace,
                            size_t bytes, char* message, size_t message_size);

/* -- a whole chain (pykernel/chain.hpp) */

/* Arrays over layers start at index 0 for layer 1. Pointers stay yours. */
typedef struct {
  size_t size;
  int64_t depth;
  const int64_t* widths; /* (depth + 1) */
  int64_t batch;
  uint64_t seed;
  int32_t exponent, norm, order, loss;
  const pk_activation* activation;
  int64_t residual_every;       /* 0 for none */
  const double* residual_scale; /* (depth), or null: ones */
  const char* distribution;     /* as in pk_draw_weights, or "haar", "identity", "constant", "given" */
  double distribution_parameter;
  const double* scale;           /* (depth): W[l] = scale[l] times the unit draws */
  const char* bias_distribution; /* null or "zero", "normal", "uniform", "given" */
  const double* bias_scale;      /* (depth), or null: zeros */
  double correlation;
  const double* x;              /* (n[0], batch) row by row, or null: drawn */
  const double* cotangent;      /* (n[L], batch), or null: drawn */
  const double* const* weights; /* (depth) matrices row by row, or null */
  const double* const* biases;  /* (depth) vectors, or null */
  int64_t outputs;              /* of the head */
  const char* head_distribution;
  double head_parameter, head_scale;
  const double* targets;     /* (outputs, batch), or null: drawn */
  double clip_value;         /* 0 for none */
  double norm_eps;           /* what the norm adds to the variance; 0: 1e-5 */
  const double* head_weight; /* (outputs, n[L]) row by row, of head_distribution "given" */
  const double* head_bias;   /* (outputs), or null: none */
} pk_plan;

/* Arrays (count, depth); (count, depth + 1) for log10_grad_activation; (count) for loss. Null where a row is not
 * wanted. */
typedef struct {
  size_t size;
  double *log10_grad_weight, *log10_grad_bias, *log10_grad_preactivation, *log10_grad_activation,
      *log10_mean_square_preactivation, *log10_mean_square_activation, *mean_activation, *saturated, *dead, *similarity,
      *log10_weight_factor, *log10_derivative_factor, *loss;
  double *attention_entropy, *score_std;                   /* (count, attentions) */
  double *log10_grad_weight_total, *log10_grad_bias_total; /* (count, weights that layers share) */
} pk_rows;

/* *least is enough to run, with layers computed twice; beyond *most is of no use. The results do not depend on it. */
PK_API int pk_chain_bytes(const pk_plan* plan, int engine, int dtype, size_t* least, size_t* most, char* message,
                          size_t message_size);
/* Replicas first .. first + count - 1. `stop` (or null) is asked between layers and within long products; not 0 ends
 * the run. */
PK_API int pk_chain_run(const pk_plan* plan, int engine, int dtype, int64_t first, int64_t count, const pk_rows* rows,
                        void* workspace, size_t bytes, int (*stop)(void* user), void* user, char* message,
                        size_t message_size);

/* -- any network of dense layers (pykernel/program.hpp) */

/* What a step does with the blocks in its registers: z = W u + b; v = phi(Norm(h)); Norm(x); phi(g) v; skip a + branch
   v; a factor times x; x under a dropout mask; nothing but to look at a block's end; weight x + bias by unit, as
   trained norms end; attention between the positions of one input, V softmax(mix_scale K^T Q) head by head; an input
   that arrives on the way, whatever ins[0] holds. */
typedef enum {
  PK_OP_LINEAR,
  PK_OP_PHI,
  PK_OP_NORM,
  PK_OP_GATE,
  PK_OP_ADD,
  PK_OP_SCALE,
  PK_OP_MASK,
  PK_OP_NODE,
  PK_OP_AFFINE,
  PK_OP_MIX,
  PK_OP_DRIVE
} pk_op_kind;
/* A register names a running block. Register 0 is the signal from repetition to repetition, all others are dead then.
   The first op of a kind has the first number of the arrays below, and so on, repetition by repetition. These three
   structs do not grow. */
typedef struct {
  int32_t kind, out; /* pk_op_kind; the register that is written */
  int32_t ins[4];    /* those that are read: two by gate (g, v) and add (a, v), three by mix (q, k, v), else one */
} pk_op;
typedef struct {
  const pk_op* ops;
  int64_t op_count, count; /* count repetitions of the ops */
} pk_stretch;
typedef struct {
  const char* distribution; /* as in pk_plan */
  double parameter;
} pk_draw;

/* Arrays over layers, activation steps (phi and gate), norm, add, scale, mask, node, affine, mix and drive ops, in the
   order of their numbers. Pointers stay yours. */
typedef struct {
  size_t size;
  const pk_stretch* stretches;
  int64_t stretch_count;
  const int64_t* nodes;     /* (nodes + 1): units of the input and of every block's end */
  int64_t batch, positions; /* inputs, and columns of each (0: 1) */
  uint64_t seed;
  int32_t exponent, loss;         /* as in pk_plan */
  const int64_t *units, *columns; /* rows and columns of each layer's W */
  const int64_t* address;         /* its layer in the stream, or null: 1, 2, ..., of shared weights their first use's */
  const pk_draw* draws;
  int64_t draw_count;
  const int64_t* draw;          /* which of the draws, or null: the first */
  const double* scale;          /* W = scale times the unit draws */
  const double* const* weights; /* per layer row by row, or null; null entries are drawn */
  const double* bias_scale;     /* or null: no biases. Of normal draws, or of biases where they are given */
  const double* const* biases;  /* per layer, or null; null entries are drawn */
  const pk_activation* const* activations;
  int64_t activation_count;
  const int64_t* step_activation; /* or null: the first */
  const int64_t* step_norm;       /* of the norm that acts on its input: 0 none, else a number from 1; or null: none */
  const int32_t* norm_kinds;      /* pk_norm of the norms */
  const double* norm_eps;         /* what they add to the variance, or null: 1e-5 */
  int64_t norm_count;
  const int64_t* norm_steps;   /* number of the norm of each norm op, from 1 */
  const double *skip, *branch; /* factors of each add, or null: ones */
  const double* factors;       /* of each scale */
  const double* masks;         /* the probability of each mask that an entry is zeroed */
  double correlation;          /* from here on as in pk_plan */
  const double *x, *cotangent;
  int64_t outputs;
  pk_draw head_draw;
  double head_scale;
  const double *head_weight, *head_bias, *targets;
  double clip_value;
  int32_t over;                        /* pk_over of the head */
  const int64_t* affine_steps;         /* number of the row of each affine op, from 0; or null: the first */
  const int64_t* affine_units;         /* units of each row */
  const double* const* affine_weights; /* and its weights */
  const double* const* affine_biases;  /* its biases, or null: none; null entries are none */
  int64_t affine_count;                /* how many rows */
  const int64_t *heads, *kv_heads;     /* of each mix: heads of q; of k and v, a divisor, or null: as many */
  const int32_t* causal;               /* whether a query sees no later key, or null: it sees all */
  const double* mix_scale;             /* the factor on scores, most often 1 / sqrt(units of a head) */
  const int64_t* weight; /* where layers share weights, of each layer the number of its weight, from 0 in order of first
                            use; those of one number must agree in all that makes a weight. Null: each has its own, and
                            there are no totals */
  const int64_t* drives; /* of each drive: units of its input */
  const double* const* drive; /* and the input, (units, columns) row by row, or null: all are drawn */
} pk_program;

/* As pk_chain_bytes and pk_chain_run. Rows have one number a replica for each layer, activation step or node:
   log10_grad_weight, _bias, _preactivation, log10_mean_square_preactivation and log10_weight_factor by layer;
   saturated, dead and log10_derivative_factor by activation step; log10_mean_square_activation, mean_activation and
   similarity by node; log10_grad_activation by node, the input first; attention_entropy and score_std by mix; the two
   totals by weight, and nothing where none is shared. */
PK_API int pk_program_bytes(const pk_program* program, int engine, int dtype, size_t* least, size_t* most,
                            char* message, size_t message_size);
PK_API int pk_program_run(const pk_program* program, int engine, int dtype, int64_t first, int64_t count,
                          const pk_rows* rows, void* workspace, size_t bytes, int (*stop)(void* user), void* user,
                          char* message, size_t message_size);

#ifdef __cplusplus
}
#endif

#endif
