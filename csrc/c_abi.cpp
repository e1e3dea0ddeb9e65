// SPDX-License-Identifier: BSD-3-Clause
// The C functions over the C++ ones: the stream, activations, layers and chains. Programs are in c_program.cpp.
#include <vector>

#include "c_door.hpp"
#include "isa.hpp"
#include "pykernel/layer.hpp"
#include "pykernel/pykernel.h"
#include "pykernel/stream.hpp"
#include "pykernel/version.hpp"

namespace {

using namespace pykernel;
using namespace pykernel::c_door;

struct HeldLayer {
  LayerSpec spec;
  Callback callback;
  explicit HeldLayer(const pk_layer* given) {
    const pk_layer l = read(given);
    spec = {l.rows,
            l.columns,
            l.batch,
            l.seed,
            l.layer,
            l.replica,
            l.distribution,
            l.distribution_parameter,
            l.scale,
            l.draws,
            l.weights,
            l.bias_distribution,
            l.bias_scale,
            l.bias,
            row_of(l.activation, callback),
            l.norm,
            l.exponent != 0,
            l.norm_eps ? l.norm_eps : LayerSpec{}.norm_eps};
  }
};

template <class T> Block<T> block_of(const pk_block* b) {
  require(b && b->data, "a block with its data must be given");
  return {static_cast<T*>(b->data), b->n, b->exponent, b->largest};
}
template <class T> void give(const Block<T>& from, pk_block* to) {
  to->n = from.n, to->exponent = from.exponent, to->largest = from.largest;
}
pk_measure measure_of(const Measure& m) { return {m.sum, m.square, m.exponent}; }

struct HeldPlan {
  Plan plan;
  Callback callback;
  std::vector<double> ones, zeros;  // where the caller gave none; not a run's memory
  explicit HeldPlan(const pk_plan* given) {
    const pk_plan p = read(given);
    require(p.depth >= 1 && p.depth < 1 << 24, "depth must be at least 1 and below 2^24 - 1");
    if (!p.residual_scale) ones.assign((size_t)p.depth, 1);
    if (!p.bias_scale) zeros.assign((size_t)p.depth, 0);
    plan = {};
    plan.depth = p.depth, plan.widths = p.widths, plan.batch = p.batch, plan.seed = p.seed,
    plan.exponent = p.exponent != 0;
    plan.activation = row_of(p.activation, callback);
    plan.norm = p.norm, plan.order = p.order, plan.residual_every = p.residual_every;
    plan.residual_scale = p.residual_scale ? p.residual_scale : ones.data();
    plan.distribution = p.distribution, plan.distribution_parameter = p.distribution_parameter, plan.scale = p.scale;
    plan.bias_distribution = p.bias_distribution ? p.bias_distribution : "zero";
    plan.bias_scale = p.bias_scale ? p.bias_scale : zeros.data();
    plan.correlation = p.correlation, plan.x = p.x, plan.cotangent = p.cotangent, plan.weights = p.weights,
    plan.biases = p.biases;
    plan.loss = p.loss, plan.outputs = p.outputs, plan.head_distribution = p.head_distribution;
    plan.head_parameter = p.head_parameter, plan.head_scale = p.head_scale, plan.targets = p.targets,
    plan.clip_value = p.clip_value;
    if (p.norm_eps) plan.norm_eps = p.norm_eps;
    plan.head_weight = p.head_weight, plan.head_bias = p.head_bias;
  }
};

}  // namespace

int pk_abi_version(void) { return PK_ABI_VERSION; }
const char* pk_version(void) { return version(); }
const char* pk_isa(void) {
  const char* name = nullptr;
  return guarded(nullptr, 0, [&] { return name = isa_name(), 0; }) ? nullptr : name;
}

void pk_philox(const uint32_t counter[4], uint64_t seed, uint32_t words[4]) { philox(counter, seed, words); }

int pk_draw_words(uint64_t seed, uint32_t purpose, uint32_t layer, uint32_t replica, int64_t units, int64_t columns,
                  uint32_t* out, char* message, size_t message_size) {
  return done(message, message_size, [&] { draw_words({seed, purpose, layer, replica}, units, columns, out); });
}
int pk_draw_uniforms(uint64_t seed, uint32_t purpose, uint32_t layer, uint32_t replica, int64_t units, int64_t columns,
                     float* out, char* message, size_t message_size) {
  return done(message, message_size, [&] { draw_uniforms({seed, purpose, layer, replica}, units, columns, out); });
}
int pk_draw_normals(uint64_t seed, uint32_t purpose, uint32_t layer, uint32_t replica, int64_t units, int64_t columns,
                    float* out, char* message, size_t message_size) {
  return done(message, message_size, [&] { draw_normals({seed, purpose, layer, replica}, units, columns, out); });
}
int pk_draw_weights(uint64_t seed, uint32_t layer, uint32_t replica, const char* distribution, double parameter,
                    int64_t first_row, int64_t first_column, int64_t rows, int64_t columns, float* out, char* message,
                    size_t message_size) {
  return done(message, message_size, [&] {
    draw_weights({seed, 0, layer, replica}, distribution_called(distribution), parameter, first_row, first_column, rows,
                 columns, out);
  });
}

int pk_activation_facts(pk_activation* activation, char* message, size_t message_size) {
  return done(message, message_size, [&] {
    require(activation && activation->size == sizeof *activation, "activation must be given with its size");
    require(activation->name, "the activation's name must be given");
    const ActivationRow row = activation_row(activation->name, activation->parameters);
    activation->left = row.left, activation->right = row.right;
    activation->before_zero = row.before_zero, activation->after_zero = row.after_zero,
    activation->at_zero = row.at_zero;
    activation->max_slope = row.max_slope, activation->flat = row.flat;
  });
}

int64_t pk_block_entries(int64_t n, int64_t batch) { return block_entries(n, batch); }
int64_t pk_panel_entries(int64_t rows, int64_t columns) { return panel_entries(rows, columns); }

int pk_pack(int dtype, const void* x, int64_t n, int64_t batch, pk_block* block, char* message, size_t message_size) {
  return done(message, message_size, [&] {
    require(x && n >= 1 && n < large && batch >= 1 && batch < large,
            "x must be given, n and batch at least 1 and below 2^32");
    with_dtype(dtype, [&](auto t) {
      Block<decltype(t)> b = block_of<decltype(t)>(block);
      pack(static_cast<const decltype(t)*>(x), n, batch, b);
      give(b, block);
    });
  });
}
int pk_unpack(int dtype, const pk_block* block, int64_t batch, void* x, char* message, size_t message_size) {
  return done(message, message_size, [&] {
    require(block && block->n >= 1 && block->n < large && x && batch >= 1 && batch < large,
            "a block of at least one unit and x must be given, batch at least 1 and below 2^32");
    with_dtype(dtype, [&](auto t) { unpack(block_of<decltype(t)>(block), batch, static_cast<decltype(t)*>(x)); });
  });
}
int pk_pack_weights(int dtype, const void* matrix, int64_t rows, int64_t columns, void* panels, char* message,
                    size_t message_size) {
  return done(message, message_size, [&] {
    with_dtype(dtype, [&](auto t) {
      using T = decltype(t);
      pack_weights(static_cast<const T*>(matrix), rows, columns, static_cast<T*>(panels));
    });
  });
}

int pk_layer_bytes(const pk_layer* layer, int dtype, size_t* bytes, char* message, size_t message_size) {
  return done(message, message_size, [&] {
    require(bytes, "bytes must be given");
    const HeldLayer held(layer);
    *bytes = with_dtype(dtype, [&](auto t) { return layer_bytes<decltype(t)>(held.spec); });
  });
}
int pk_layer_forward(const pk_layer* layer, int dtype, const pk_block* u, pk_block* z, pk_block* v,
                     pk_measure* measured, void* workspace, size_t bytes, char* message, size_t message_size) {
  return done(message, message_size, [&] {
    const HeldLayer held(layer);
    with_dtype(dtype, [&](auto t) {
      using T = decltype(t);
      Block<T> to_z = block_of<T>(z), to_v = block_of<T>(v);
      const Forward m = forward(held.spec, block_of<T>(u), to_z, to_v, workspace, bytes);
      give(to_z, z), give(to_v, v);
      if (measured) measured[0] = measure_of(m.z), measured[1] = measure_of(m.v);
    });
  });
}
int pk_layer_backward(const pk_layer* layer, int dtype, pk_block* z, const pk_block* g, pk_block* delta, pk_block* du,
                      pk_measure* measured, int64_t* count, void* workspace, size_t bytes, char* message,
                      size_t message_size) {
  return done(message, message_size, [&] {
    const HeldLayer held(layer);
    with_dtype(dtype, [&](auto t) {
      using T = decltype(t);
      Block<T> of_z = block_of<T>(z), to_delta = block_of<T>(delta), to_du = block_of<T>(du);
      const Backward m = backward(held.spec, of_z, block_of<T>(g), to_delta, to_du, workspace, bytes);
      give(of_z, z), give(to_delta, delta), give(to_du, du);
      if (measured) measured[0] = measure_of(m.delta), measured[1] = measure_of(m.du);
      if (count) count[0] = m.count.saturated, count[1] = m.count.dead;
    });
  });
}
int pk_layer_add(const pk_layer* layer, int dtype, const pk_block* x, const pk_block* y, double factor, pk_block* out,
                 pk_measure* measured, void* workspace, size_t bytes, char* message, size_t message_size) {
  return done(message, message_size, [&] {
    const HeldLayer held(layer);
    with_dtype(dtype, [&](auto t) {
      using T = decltype(t);
      Block<T> to = block_of<T>(out);
      const Measure m = add(held.spec, block_of<T>(x), block_of<T>(y), factor, to, workspace, bytes);
      give(to, out);
      if (measured) *measured = measure_of(m);
    });
  });
}

int pk_layer_observe(const pk_layer* layer, int dtype, const pk_block* x, pk_measure* measured, void* workspace,
                     size_t bytes, char* message, size_t message_size) {
  return done(message, message_size, [&] {
    require(measured, "measured must be given");
    const HeldLayer held(layer);
    *measured = with_dtype(
        dtype, [&](auto t) { return measure_of(observe(held.spec, block_of<decltype(t)>(x), workspace, bytes)); });
  });
}

int pk_chain_bytes(const pk_plan* plan, int engine, int dtype, size_t* least, size_t* most, char* message,
                   size_t message_size) {
  return done(message, message_size, [&] {
    const HeldPlan held(plan);
    const WorkspaceSize size =
        with_dtype(dtype, [&](auto t) { return chain_bytes<decltype(t)>(held.plan, (Engine)engine); });
    if (least) *least = size.least;
    if (most) *most = size.most;
  });
}

int pk_chain_run(const pk_plan* plan, int engine, int dtype, int64_t first, int64_t count, const pk_rows* rows,
                 void* workspace, size_t bytes, int (*stop)(void*), void* user, char* message, size_t message_size) {
  return finished(message, message_size, [&] {
    const HeldPlan held(plan);
    const Rows to = rows_of(rows);
    Asked asked(stop, user);
    return with_dtype(dtype, [&](auto t) {
      return run_chain<decltype(t)>(held.plan, (Engine)engine, first, count, to, workspace, bytes, asked.stop());
    });
  });
}
