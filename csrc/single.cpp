// SPDX-License-Identifier: BSD-3-Clause
// What comes back to node l is alpha a + beta h; the derivation of the recursion is in docs/matrix-free.md.
#include "single.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <type_traits>

#include "isa.hpp"

namespace pykernel {
namespace {

constexpr double log10_2 = 0.30102999566398119521;
// z of a node is summed as it is while sigma lies in 2^+-range; sums below 2^-lost of what they are compared with have lost digits.
template <class T> constexpr int range = std::is_same_v<T, float> ? 40 : 200;
constexpr double lost = 0x1p-60;
typedef SingleSums Sum;

Wide settled(double x, int64_t e) {
  int shift = 0;
  if (x != 0 && isfinite(x)) x = frexp(x, &shift);
  return {x, x != 0 ? e + shift : 0};
}
double log10_of(double x, int64_t e) { return (log2(x) + (double)e) * log10_2; }
uint32_t address(int64_t layer, Purpose purpose) { return (uint32_t)layer | (uint32_t)purpose << 24; }

}  // namespace

template <class T> bool SingleChain<T>::takes(const Plan& plan) {
  return plan.batch == 1 && !strcmp(plan.distribution, "normal") && !plan.norm && !plan.residual_every && !plan.loss && !plan.x &&
         !plan.cotangent && !plan.biases && plan.correlation == 0 && plan.exponent && !(plan.clip_value > 0);
}

template <class T> SingleChain<T>::SingleChain(const Plan& plan) : plan_(plan), kernel_(single_kernel<T>()) {
  const Elementwise<T>& table = elementwise_table<T>();
  const auto find = [&](const char* name) -> const Activation<T>* {
    for (int i = 0; i < table.activation_count; i++)
      if (!strcmp(table.activations[i].name, name)) return &table.activations[i];
    return nullptr;
  };
  identity_ = find("linear"), two_slopes_ = find("two slopes"), phi_ = find(plan.activation.name);
  for (const char* name : {"linear", "relu", "leaky_relu", "two slopes"})
    homogeneous_ = homogeneous_ || !strcmp(name, plan.activation.name);
  nodes_.resize((size_t)plan.depth + 1);
}

// The sums of node l, whose z is sigma g + bias.
template <class T> bool SingleChain<T>::sum(int64_t l, uint32_t replica, Wide sigma, Team& team) {
  Node& node = nodes_[(size_t)l];
  const ActivationRow& row = plan_.activation;
  const int64_t n = plan_.widths[l], L = plan_.depth, chunks = (n + chunk_units - 1) / chunk_units;
  const double bias = l && strcmp(plan_.bias_distribution, "zero") ? plan_.bias_scale[l - 1] : 0;
  const double slopes[] = {row.before_zero, row.after_zero};
  Single call = {};
  call.seed = plan_.seed, call.replica = replica;
  call.g = l ? address(l, Purpose::forward) : address(0, Purpose::input);
  call.h = l < L ? address(l + 1, Purpose::backward) : address(L, Purpose::cotangent);
  call.h_scale = l < L ? 1 : 1 / sqrt((double)n);
  call.bias = address(l, Purpose::bias), call.bias_scale = bias, call.uniform_bias = !strcmp(plan_.bias_distribution, "uniform");
  call.threshold = .01 * row.max_slope, call.parameters = row.parameters;
  const Activation<T>* phi = linear(l) ? identity_ : phi_;
  const auto ordinary = [&](double x, int64_t e) { return x == 0 || (ilogb(x) + e >= -range<T> && ilogb(x) + e <= range<T>); };
  const bool scale_free = (linear(l) || homogeneous_) && bias == 0, near = ordinary(sigma.x, sigma.e);
  node.unit = {1, 0};
  if (!ordinary(bias, 0) || !phi) return false;
  if (near && !scale_free) {
    call.sigma = ldexp(sigma.x, (int)sigma.e);
  } else if (sigma.x == 0) {
    call.sigma = 0;
  } else {
    if (!scale_free) {
      if (bias != 0 || row.at_zero != 0 || sigma.e > 0) return false;
      phi = two_slopes_, call.parameters = slopes;
    }
    call.sigma = sigma.x < 0 ? -1 : 1;
    node.unit = {fabs(sigma.x), sigma.e};
  }
  if (chunks == 1) {
    node.sums = kernel_(call, *phi, 0, n);
  } else {
    parts_.resize((size_t)chunks);
    team.each(chunks, [&](int64_t c) { parts_[(size_t)c] = kernel_(call, *phi, c, n); });
    for (int k = 0; k < SingleSums::count; k++) {
      node.sums.of[k] = 0;
      for (int64_t c = 0; c < chunks; c++) node.sums.of[k] += parts_[(size_t)c].of[k];
    }
  }
  const SingleSums& s = node.sums;
  if (phi == phi_ && !scale_free)
    return s[Sum::HH] > lost * s[Sum::hh] && s[Sum::aa] > lost * std::min((double)n, s[Sum::zz]) &&
           isfinite(s[Sum::aa] + s[Sum::zz] + s[Sum::AA]);
  return isfinite(s[Sum::aa] + s[Sum::zz]);
}

template <class T> bool SingleChain<T>::replica(int64_t replica, const Rows& rows, int64_t index, Team& team) {
  Wide sigma = {1, 0};
  for (int64_t l = 0; l <= plan_.depth; l++) {
    if (team.stopped()) throw Stopped{};
    if (!sum(l, (uint32_t)replica, sigma, team)) return false;
    if (l) forward_rows(l, rows, index);
    if (l < plan_.depth) {
      const Node& node = nodes_[(size_t)l];
      const Wide scale = settled(plan_.scale[l], 0);
      sigma = settled(sqrt(node.sums[Sum::aa]) * node.unit.x * scale.x, node.unit.e + scale.e);
    }
  }
  backward(rows, index);
  return true;
}

template <class T> void SingleChain<T>::forward_rows(int64_t l, const Rows& rows, int64_t index) const {
  const Node& node = nodes_[(size_t)l];
  const SingleSums& s = node.sums;
  const double n = (double)plan_.widths[l];
  const int64_t i = index * plan_.depth + l - 1;
  const bool after = plan_.order == linear_norm_activation;
  const auto mean_square = [&](double sum) { return log10_of(sum / n * node.unit.x * node.unit.x, 2 * node.unit.e); };
  rows.log10_mean_square_preactivation[i] = mean_square(s[Sum::zz]);
  rows.log10_mean_square_activation[i] = mean_square(after ? s[Sum::aa] : s[Sum::zz]);
  const int64_t e = node.unit.e;
  rows.mean_activation[i] = ldexp((after ? s[Sum::a] : s[Sum::z]) / n * node.unit.x, (int)std::clamp<int64_t>(e, -5000, 5000));
  rows.similarity[i] = NAN;
}

template <class T> void SingleChain<T>::backward(const Rows& rows, int64_t index) const {
  const bool after = plan_.order == linear_norm_activation;
  const int64_t L = plan_.depth;
  rows.loss[index] = NAN;
  double alpha = 0, beta = 1;  // what comes back is 2^e (alpha a + beta h), a as it was summed
  int64_t e = 0;
  double log10_delta = 0;  // of the layer above
  for (int64_t l = L; l >= 0; l--) {
    const SingleSums& s = nodes_[(size_t)l].sums;
    const double n = (double)plan_.widths[l];
    const auto square = [&](double aa, double ah, double hh) {
      return std::max(0., alpha * alpha * aa + 2 * alpha * beta * ah + beta * beta * hh);
    };
    const double delta = sqrt(square(s[Sum::AA], s[Sum::AH], s[Sum::HH])), g_delta = alpha * s[Sum::gA] + beta * s[Sum::gH];
    const double before = log10_of(sqrt(square(s[Sum::aa], s[Sum::ah], s[Sum::hh])), e), behind = log10_of(delta, e);
    rows.log10_grad_activation[index * (L + 1) + l] = after ? before : behind;
    if (l < L) rows.log10_weight_factor[index * L + l] = before - log10_delta;
    if (l < L || after) {
      const int64_t i = index * L + l - (after ? 1 : 0);
      if (l || !after) {
        rows.log10_derivative_factor[i] = behind - before;
        rows.saturated[i] = s[Sum::saturated] / n;
        rows.dead[i] = plan_.activation.flat ? s[Sum::dead] / n : 0;
      }
    }
    if (l == 0) break;
    const Node& node = nodes_[(size_t)l - 1];
    const int64_t i = index * L + l - 1;
    rows.log10_grad_preactivation[i] = rows.log10_grad_bias[i] = log10_delta = behind;
    const double length = sqrt(node.sums[Sum::aa]);
    rows.log10_grad_weight[i] = behind + log10_of(length * node.unit.x, node.unit.e);
    const Wide scale = settled(plan_.scale[l - 1], 0);
    alpha = length > 0 ? scale.x * (g_delta - delta * node.sums[Sum::ah] / length) / length : 0;
    beta = scale.x * delta;
    if (plan_.widths[l - 1] == 1 && length > 0) alpha = scale.x * g_delta / length, beta = 0;  // nothing lies outside one direction
    const double top = std::max(fabs(alpha) * length, fabs(beta));
    int shift = 0;
    if (top > 0 && isfinite(top)) frexp(top, &shift);
    alpha = ldexp(alpha, -shift), beta = ldexp(beta, -shift), e += shift + scale.e;
  }
}

template class SingleChain<float>;
template class SingleChain<double>;

}  // namespace pykernel
