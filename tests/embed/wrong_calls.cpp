// SPDX-License-Identifier: BSD-3-Clause
// Wrong calls of the C interface: each gives its status and a sentence, and neither crashes nor writes; callbacks may
// throw or give nan.
#include <pykernel/pykernel.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace {

char message[200];
int wrong = 0;

void expect(int status, int got, const char* what) {
  const bool said = std::strlen(message) > 0;
  if (got == status && said == (status != PK_OK)) return;
  wrong++, std::printf("%s: status %d, expected %d; \"%s\"\n", what, got, status, message);
}
#define EXPECT(status, ...) expect(status, __VA_ARGS__, #__VA_ARGS__)
#define MESSAGE message, sizeof message

template <class S> S sized() {
  S s;
  std::memset(static_cast<void*>(&s), 0, sizeof s);
  s.size = sizeof s;
  return s;
}

int64_t widths[] = {17, 1, 33, 7, 64, 15};
double scale[] = {.3, .3, .3, .3, .3};
double none[1];

pk_plan plan_of(const pk_activation* activation, int64_t batch) {
  auto plan = sized<pk_plan>();
  plan.depth = 5, plan.widths = widths, plan.batch = batch, plan.exponent = 1, plan.activation = activation;
  plan.distribution = "normal", plan.scale = scale;
  return plan;
}

struct Stopper {
  int left;
};
int stop(void* user) { return static_cast<Stopper*>(user)->left-- == 0; }

// A run with exactly the least or the most bytes, at any address.
int run(const pk_plan& plan, int engine, int dtype, size_t offset = 0, bool roomy = false, Stopper* stopper = nullptr) {
  size_t least = 0, most = 0;
  const int status = pk_chain_bytes(&plan, engine, dtype, &least, &most, MESSAGE);
  if (status) return status;
  const size_t bytes = roomy ? most : least;
  std::vector<char> workspace(bytes + offset);
  std::vector<double> row(2 * 6);
  auto rows = sized<pk_rows>();
  rows.log10_grad_activation = row.data();
  return pk_chain_run(&plan, engine, dtype, 0, 2, &rows, workspace.data() + offset, bytes, stopper ? stop : nullptr,
                      stopper, MESSAGE);
}

template <class Change> void refused(const pk_plan& plan, const char* what, Change change) {
  pk_plan changed = plan;
  change(changed);
  expect(PK_INVALID, run(changed, PK_DENSE, PK_FLOAT32), what);
}
#define REFUSED(...) refused(plan, #__VA_ARGS__, [&](pk_plan& p) { p.__VA_ARGS__; })

void plans() {
  auto relu = sized<pk_activation>(), unknown = relu, callback = relu;
  relu.name = "relu", unknown.name = "rel", callback.name = "callback";
  const pk_plan plan = plan_of(&relu, 3);
  const double infinite[17 * 3] = {INFINITY};
  const double* const nothing[5] = {};
  int64_t zero[] = {17, 0, 33, 7, 64, 15}, huge[] = {17, (int64_t)1 << 33, 33, 7, 64, 15};
  REFUSED(size = 7), REFUSED(size = (size_t)-1);
  REFUSED(depth = 0), REFUSED(depth = -5), REFUSED(depth = (int64_t)1 << 40);
  REFUSED(batch = 0), REFUSED(batch = -3), REFUSED(batch = (int64_t)1 << 62);
  REFUSED(widths = nullptr), REFUSED(widths = zero), REFUSED(widths = huge);
  REFUSED(activation = nullptr), REFUSED(activation = &unknown), REFUSED(activation = &callback);
  REFUSED(scale = nullptr), REFUSED(scale = infinite), REFUSED(x = infinite);
  REFUSED(distribution = nullptr), REFUSED(distribution = "cauchy"), REFUSED(distribution = "given");
  REFUSED(distribution = "sparse"), REFUSED(distribution = "student"), REFUSED(distribution = "stable");
  REFUSED(distribution = "given", p.weights = nothing), REFUSED(bias_distribution = "given", p.biases = nothing);
  REFUSED(bias_distribution = "haar"), REFUSED(bias_distribution = "given");
  REFUSED(norm = 4), REFUSED(norm_eps = -1), REFUSED(norm_eps = NAN), REFUSED(order = 2), REFUSED(loss = 5);
  REFUSED(loss = PK_MSE, p.outputs = 3), REFUSED(loss = PK_MSE, p.outputs = 0, p.head_distribution = "normal");
  REFUSED(loss = PK_MSE, p.outputs = 3, p.head_distribution = "given");
  const double weight[] = {1, 1, 1, 1}, not_finite[] = {INFINITY, 1, 1, 1};
  REFUSED(loss = PK_MSE, p.outputs = 1, p.head_distribution = "normal", p.head_weight = weight);
  REFUSED(loss = PK_MSE, p.outputs = 1, p.head_distribution = "given", p.head_weight = not_finite);
  REFUSED(loss = PK_MSE, p.outputs = 1, p.head_distribution = "given", p.head_weight = weight,
          p.head_bias = not_finite);
  REFUSED(loss = PK_MSE, p.outputs = 3, p.head_distribution = "normal", p.head_scale = NAN);
  REFUSED(residual_every = 1), REFUSED(residual_every = -1), REFUSED(correlation = NAN), REFUSED(clip_value = -1);

  auto rows = sized<pk_rows>();
  size_t most = 0;
  EXPECT(PK_INVALID, pk_chain_bytes(nullptr, PK_DENSE, PK_FLOAT32, &most, nullptr, MESSAGE));
  EXPECT(PK_INVALID, pk_chain_bytes(&plan, 2, PK_FLOAT32, &most, nullptr, MESSAGE));
  EXPECT(PK_INVALID, pk_chain_bytes(&plan, PK_DENSE, 2, &most, nullptr, MESSAGE));
  EXPECT(PK_OK, pk_chain_bytes(&plan, PK_DENSE, PK_FLOAT32, nullptr, &most, MESSAGE));
  std::vector<char> room(most);
  const auto run_at = [&](int64_t first, int64_t count, const pk_rows* to, char* at, size_t bytes) {
    return pk_chain_run(&plan, PK_DENSE, PK_FLOAT32, first, count, to, at, bytes, nullptr, nullptr, MESSAGE);
  };
  EXPECT(PK_INVALID, run_at(0, 1, nullptr, room.data(), most));
  EXPECT(PK_INVALID, run_at(0, 1, &rows, nullptr, most));
  EXPECT(PK_INVALID, run_at(-1, 1, &rows, room.data(), most));
  EXPECT(PK_INVALID, run_at(INT64_MAX, INT64_MAX, &rows, room.data(), most));
  EXPECT(PK_TOO_FEW_BYTES, run_at(0, 1, &rows, room.data(), 100));
  EXPECT(PK_OK, run_at(0, 0, &rows, room.data(), most));
}

// Every batch, norm, engine and dtype with exactly the bytes that were asked for; stops anywhere; callbacks that
// misbehave.
void runs() {
  auto relu = sized<pk_activation>(), own = relu;
  relu.name = "relu", own.name = "callback", own.left = own.right = own.max_slope = 1;
  for (int64_t batch = 1; batch <= 33; batch += 1 + batch / 9)
    for (int i = 0; i < 32; i++) {
      pk_plan plan = plan_of(&relu, batch);
      plan.norm = i / 4 % 4, plan.clip_value = i % 2 ? 0 : .1;
      EXPECT(PK_OK, run(plan, i % 2, i / 2 % 2, (size_t)i * 9 % 64, i / 16));
    }
  const pk_plan plan = plan_of(&relu, 3);
  int stopped = 0, status = PK_STOPPED;
  for (; status == PK_STOPPED; stopped++) {
    Stopper stopper = {stopped};
    status = run(plan, PK_DENSE, PK_FLOAT64, 0, false, &stopper);
  }
  expect(PK_OK, status, "after many stops");
  wrong += stopped < 10;

  own.slope_f64 = [](const double*, double* out, int64_t n, void*) {
    for (int64_t i = 0; i < n; i++) out[i] = 1;
  };
  own.value_f64 = [](const double*, double* out, int64_t n, void*) {
    for (int64_t i = 0; i < n; i++) out[i] = NAN;
  };
  for (int engine : {PK_DENSE, PK_MATRIX_FREE}) EXPECT(PK_OK, run(plan_of(&own, 3), engine, PK_FLOAT32));
  own.value_f64 = [](const double*, double*, int64_t, void*) { throw std::runtime_error("mine"); };
  for (int engine : {PK_DENSE, PK_MATRIX_FREE}) EXPECT(PK_FAILED, run(plan_of(&own, 3), engine, PK_FLOAT32));
  own.value_f64 = [](const double*, double*, int64_t, void*) { throw 3; };
  EXPECT(PK_FAILED, run(plan_of(&own, 3), PK_DENSE, PK_FLOAT64));
}

void layers() {
  auto relu = sized<pk_activation>();
  relu.name = "relu";
  auto layer = sized<pk_layer>();
  layer.rows = 5, layer.columns = 7, layer.batch = 2, layer.layer = 1, layer.distribution = "normal", layer.scale = .3;
  layer.activation = &relu;
  size_t bytes = 0;
  EXPECT(PK_OK, pk_layer_bytes(&layer, PK_FLOAT32, &bytes, MESSAGE));
  std::vector<char> room(bytes);
  std::vector<float> numbers(4 * 32, 1);
  pk_block u = {numbers.data(), 7, 0, 1}, z = {numbers.data() + 32, 5, 0, 1}, v = {numbers.data() + 64, 5, 0, 1};
  const auto forward = [&](const pk_layer& l) {
    return pk_layer_forward(&l, PK_FLOAT32, &u, &z, &v, nullptr, room.data(), bytes, MESSAGE);
  };
  EXPECT(PK_OK, forward(layer));
  const auto refuse = [&](const char* what, auto change) {
    pk_layer changed = layer;
    change(changed);
    expect(PK_INVALID, forward(changed), what);
  };
#define REFUSED_LAYER(change) refuse(#change, [&](pk_layer& l) { l.change; })
  REFUSED_LAYER(rows = 0), REFUSED_LAYER(columns = -1), REFUSED_LAYER(batch = (int64_t)1 << 62),
      REFUSED_LAYER(layer = 0);
  REFUSED_LAYER(scale = NAN), REFUSED_LAYER(distribution = nullptr), REFUSED_LAYER(distribution = "given");
  REFUSED_LAYER(distribution = "sparse"), REFUSED_LAYER(bias_distribution = "given"),
      REFUSED_LAYER(bias_distribution = "haar");
  REFUSED_LAYER(norm = -1), REFUSED_LAYER(activation = nullptr), REFUSED_LAYER(weights = none);
  for (const int64_t n : {(int64_t)0, (int64_t)-1, (int64_t)1 << 33}) {
    pk_layer changed = layer;
    changed.rows = n, EXPECT(PK_INVALID, pk_layer_bytes(&changed, PK_FLOAT32, &bytes, MESSAGE));
    changed = layer, changed.batch = n, EXPECT(PK_INVALID, pk_layer_bytes(&changed, PK_FLOAT32, &bytes, MESSAGE));
  }
  for (const int64_t n : {(int64_t)-1, (int64_t)0, (int64_t)6}) u.n = n, EXPECT(PK_INVALID, forward(layer));
  u.n = 7, u.exponent = INT64_MAX, EXPECT(PK_INVALID, forward(layer));
  u.exponent = 0, u.data = nullptr, EXPECT(PK_INVALID, forward(layer));
  EXPECT(PK_INVALID, pk_pack(PK_FLOAT32, none, (int64_t)1 << 61, 4, &z, MESSAGE));
  EXPECT(PK_INVALID, pk_pack_weights(PK_FLOAT32, nullptr, 1, 1, none, MESSAGE));
  EXPECT(PK_INVALID, pk_draw_weights(1, 1, 0, "stable", 3, 0, 0, 1, 1, numbers.data(), MESSAGE));
}

// Weights that layers share are numbered in order of first use and alike in all that makes them; inputs that arrive on
// the way have units.
void programs() {
  auto relu = sized<pk_activation>();
  relu.name = "relu";
  const pk_activation* const activations[] = {&relu};
  const pk_op ops[] = {{PK_OP_LINEAR, 0, {0}}, {PK_OP_PHI, 0, {0}}, {PK_OP_NODE, 0, {0}}};
  const pk_op arrives[] = {{PK_OP_DRIVE, 1, {0}}, {PK_OP_LINEAR, 1, {1}}, {PK_OP_ADD, 0, {0, 1}}, ops[1], ops[2]};
  const pk_op unknown[] = {{PK_OP_DRIVE + 1, 0, {0}}};
  const pk_stretch stretch = {ops, 3, 2}, driven = {arrives, 5, 2}, odd = {unknown, 1, 1};
  const int64_t five[] = {5, 5, 5}, shared[] = {0, 0}, below[] = {-1, 0}, late[] = {1, 0}, far[] = {0, INT64_MAX};
  const int64_t addresses[] = {1, 2}, no_units[] = {0, 0};
  const double other[] = {.3, .4};
  const pk_draw normal = {"normal", 0};
  auto program = sized<pk_program>();
  program.stretches = &stretch, program.stretch_count = 1, program.nodes = program.units = program.columns = five;
  program.batch = 1, program.exponent = 1, program.draws = &normal, program.draw_count = 1, program.scale = scale;
  program.activations = activations, program.activation_count = 1, program.weight = shared;
  const auto bytes = [](const pk_program& p) {
    size_t most = 0;
    return pk_program_bytes(&p, PK_DENSE, PK_FLOAT32, nullptr, &most, MESSAGE);
  };
  EXPECT(PK_OK, bytes(program));
  const auto refuse = [&](const char* what, auto change) {
    pk_program changed = program;
    change(changed);
    expect(PK_INVALID, bytes(changed), what);
  };
#define REFUSED_PROGRAM(change) refuse(#change, [&](pk_program& p) { p.change; })
  REFUSED_PROGRAM(weight = below), REFUSED_PROGRAM(weight = late), REFUSED_PROGRAM(weight = far);
  REFUSED_PROGRAM(scale = other), REFUSED_PROGRAM(address = addresses), REFUSED_PROGRAM(stretches = &odd);
  program.stretches = &driven, program.drives = five;
  EXPECT(PK_OK, bytes(program));
  REFUSED_PROGRAM(drives = nullptr), REFUSED_PROGRAM(drives = no_units);
}

}  // namespace

int main() {
  plans(), runs(), layers(), programs();
  std::printf("%d wrong\n", wrong);
  return wrong != 0;
}
