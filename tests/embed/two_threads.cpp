// SPDX-License-Identifier: BSD-3-Clause
// Two threads of the caller's, a workspace each, small chains of every kind: the same numbers as one thread finds
// alone.
#include <cstdio>
#include <cstring>
#include <pykernel/chain.hpp>
#include <pykernel/layer.hpp>
#include <pykernel/stream.hpp>
#include <thread>
#include <vector>

using namespace pykernel;

namespace {

constexpr int64_t depth = 6, replicas = 2, batches[] = {1, 3, 9};
constexpr int64_t widths[depth + 1] = {37, 20, 33, 33, 33, 33, 33};

template <class T> void chains(std::vector<double>& out) {
  const std::vector<double> scale(depth, .2), ones(depth, 1), small(depth, .1);
  for (const char* name : {"relu", "tanh", "gelu"})
    for (const char* distribution : {"normal", "uniform", "student", "haar"})
      for (int norm = no_norm; norm <= rms_norm; norm++)
        for (const int64_t batch : batches)
          for (const Engine engine : {dense, matrix_free}) {
            if (engine == matrix_free && *distribution != 'n' && *distribution != 'h') continue;
            Plan plan = {};
            plan.depth = depth, plan.widths = widths, plan.batch = batch, plan.seed = 3, plan.exponent = true;
            plan.activation = activation_row(name), plan.norm = norm, plan.order = norm % 2;
            plan.distribution = distribution, plan.distribution_parameter = 3, plan.scale = scale.data();
            plan.bias_distribution = norm ? "zero" : "normal", plan.bias_scale = small.data();
            plan.residual_every = 0, plan.residual_scale = ones.data();
            if (batch == 3)
              plan.loss = softmax, plan.outputs = 7, plan.head_distribution = "normal", plan.head_scale = .2;
            const size_t start = out.size();
            out.resize(start + 2 * replicas * (depth + 1));
            Rows rows = {};
            rows.log10_grad_activation = out.data() + start;
            rows.similarity = rows.log10_grad_activation + replicas * (depth + 1);
            std::vector<char> workspace(batch == 1 ? chain_bytes<T>(plan, engine).least
                                                   : chain_bytes<T>(plan, engine).most);
            int asked = 0;
            const Stop stop = {[](void* user) { return ++*static_cast<int*>(user), false; }, &asked};
            run_chain<T>(plan, engine, 0, replicas, rows, workspace.data(), workspace.size(), stop);
          }
}

template <class T> void layers(std::vector<double>& out) {
  const int64_t rows = 33, columns = 37;
  const auto entries = [](int64_t n, int64_t batch) { return (size_t)block_entries(n, batch); };
  for (const int64_t batch : batches) {
    std::vector<T> u(entries(columns, batch)), du(u), z(entries(rows, batch)), v(z), g(z), delta(z);
    std::vector<float> input((size_t)(columns * batch)), draws((size_t)panel_entries(rows, columns));
    draw_normals({3, (uint32_t)Purpose::input, 0, 0}, columns, batch, input.data());
    LayerSpec layer = {};
    layer.rows = rows, layer.columns = columns, layer.batch = batch, layer.seed = 3, layer.layer = 1;
    layer.distribution = "sparse", layer.distribution_parameter = .5, layer.scale = .2, layer.exponent = true;
    layer.norm = batch == 9 ? batch_norm : no_norm, layer.activation = activation_row("silu");
    if (batch > 1) layer.draws = draws.data();
    std::vector<char> workspace(layer_bytes<T>(layer));
    Block<T> of_u = {u.data(), 0, 0, 0}, of_z = {z.data(), 0, 0, 0}, of_v = {v.data(), 0, 0, 0},
             of_g = {g.data(), 0, 0, 0};
    Block<T> of_delta = {delta.data(), 0, 0, 0}, of_du = {du.data(), 0, 0, 0};
    pack(input.data(), columns, batch, of_u), pack(input.data(), rows, batch, of_g);
    const Forward f = forward(layer, of_u, of_z, of_v, workspace.data(), workspace.size());
    const Backward b = backward(layer, of_z, of_g, of_delta, of_du, workspace.data(), workspace.size());
    for (const Measure& m : {f.z, f.v, b.delta, b.du}) out.push_back(m.log2_norm());
  }
}

void everything(std::vector<double>* out) {
  chains<float>(*out), chains<double>(*out), layers<float>(*out), layers<double>(*out);
}

}  // namespace

int main() {
  std::vector<double> alone, first, second;
  std::thread one(everything, &first), two(everything, &second);
  one.join(), two.join();
  everything(&alone);
  const auto same = [&](const std::vector<double>& x) {
    return x.size() == alone.size() && !std::memcmp(x.data(), alone.data(), x.size() * sizeof(double));
  };
  std::printf("%zu numbers, %s\n", alone.size(), same(first) && same(second) ? "equal" : "different");
  return !(same(first) && same(second));
}
