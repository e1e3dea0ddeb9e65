// SPDX-License-Identifier: BSD-3-Clause
// Our layer in a loop of your own, forward and backward: 40 tanh layers of 100 units, 5 inputs, Glorot's variance, your
// residual sum at every second layer; prints the norm of the gradient at each layer.
#include <cmath>
#include <cstdio>
#include <pykernel/layer.hpp>
#include <pykernel/stream.hpp>
#include <vector>

int main() {
  const uint32_t depth = 40;
  const int64_t width = 100, batch = 5, entries = pykernel::block_entries(width, batch);
  const uint64_t seed = 7;

  pykernel::LayerSpec layer = {};
  layer.rows = layer.columns = width, layer.batch = batch;
  layer.seed = seed, layer.replica = 0;  // layer.layer is set in the loop: together the address of W
  layer.distribution = "normal", layer.scale = std::sqrt(2.0 / (width + width));
  layer.activation = pykernel::activation_row("tanh");
  layer.exponent = true;
  std::vector<char> workspace(pykernel::layer_bytes<float>(layer));

  // Blocks: a[0], a[1], ...; z[1], z[2], ...; and what the backward pass needs.
  std::vector<std::vector<float>> memory;
  const auto block = [&] {
    return memory.emplace_back(entries), pykernel::Block<float>{memory.back().data(), width, 0, 0};
  };
  memory.reserve(2 * depth + 6);
  std::vector<pykernel::Block<float>> a(depth + 1), z(depth + 1);
  for (auto& x : a) x = block();
  for (auto& x : z) x = block();
  pykernel::Block<float> g = block(), delta = block(), skip = block();

  // The input and the cotangent that the library draws for the same seed.
  std::vector<float> drawn(width * batch);
  pykernel::draw_normals({seed, (uint32_t)pykernel::Purpose::input, 0, 0}, width, batch, drawn.data());
  pykernel::pack(drawn.data(), width, batch, a[0]);
  pykernel::draw_normals({seed, (uint32_t)pykernel::Purpose::cotangent, depth, 0}, width, batch, drawn.data());
  for (float& x : drawn) x *= (float)(1 / std::sqrt((double)(width * batch)));
  pykernel::pack(drawn.data(), width, batch, g);

  void* room = workspace.data();
  const size_t bytes = workspace.size();
  for (uint32_t l = 1; l <= depth; l++) {
    layer.layer = l;
    pykernel::forward(layer, a[l - 1], z[l], a[l], room, bytes);
    if (l % 2 == 0) pykernel::add(layer, a[l - 2], a[l], 1, a[l], room, bytes);
  }
  const double log10_2 = 0.30102999566398119521;
  std::vector<double> log10_grad_activation(depth + 1);
  log10_grad_activation[depth] = log10_2 * pykernel::observe(layer, g, room, bytes).log2_norm();
  for (uint32_t l = depth; l >= 1; l--) {
    layer.layer = l;
    if (l % 2 == 0) {  // both ways out of the sum: the branch goes on with g, the shortcut waits
      skip.n = g.n, skip.exponent = g.exponent, skip.largest = g.largest;
      for (int64_t i = 0; i < entries; i++) skip.data[i] = g.data[i];
    }
    pykernel::Measure norm = pykernel::backward(layer, z[l], g, delta, g, room, bytes).du;
    if (l % 2 == 1) norm = pykernel::add(layer, g, skip, 1, g, room, bytes);
    log10_grad_activation[l - 1] = log10_2 * norm.log2_norm();
  }
  for (const double x : log10_grad_activation) std::printf("%a\n", x);
}
