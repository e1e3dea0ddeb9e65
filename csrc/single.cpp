// One input through matrix-free layers: what comes back to node l is alpha a + beta h; the derivation of the recursion
// is in docs/matrix-free.md. SPDX-License-Identifier: BSD-3-Clause
#include "single.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "activation.hpp"
#include "isa.hpp"

namespace pykernel {
namespace {

// z of a node is summed as it is while sigma lies in 2^+-range; sums below 2^-lost of what they are compared with have
// lost digits.
constexpr double lost = 0x1p-60;
typedef SingleSums Sum;

Wide settled(double x, int64_t e) {
  int shift = 0;
  if (x != 0 && isfinite(x)) x = frexp(x, &shift);
  return {x, x != 0 ? e + shift : 0};
}
constexpr ActivationRow identity = {"linear", nullptr, 1, 1, 1, 1, 0, 1, false},
                        two_slopes = {"two slopes", nullptr, 1, 1, 1, 1, 0, 1, false};
// phi(s z) = s phi(z) for s above zero
bool homogeneous(const ActivationRow& row) {
  for (const char* name : {"linear", "relu", "leaky_relu", "two slopes"})
    if (!strcmp(name, row.name)) return true;
  return false;
}
uint32_t address(int64_t layer, Purpose purpose) { return (uint32_t)layer | (uint32_t)purpose << 24; }

}  // namespace

bool one_input(const Program& p) {
  if (p.formats) return false;
  if (columns_of(p) != 1 || p.stretch_count != 1 || p.stretches[0].op_count != 3) return false;
  const Op* ops = p.stretches[0].ops;
  const bool after = ops[0].kind == OpKind::linear && ops[1].kind == OpKind::phi;
  if (!(after || (ops[0].kind == OpKind::phi && ops[1].kind == OpKind::linear)) || ops[2].kind != OpKind::node)
    return false;
  if (p.head.loss || p.x || p.cotangent || p.common || p.correlation != 0 || !p.exponent || p.clip_value > 0)
    return false;
  for (int64_t l = 0; l < p.counts[Table::layer]; l++)
    if (strcmp(p.draws[p.draw[l]].distribution, "normal") || (p.weights && p.weights[l]) ||
        p.bias_draw[l] == given_bias || p.address[l] != l + 1 || p.norms[p.step_norm[l]].kind != no_norm)
      return false;
  return true;
}

template <class T>
SingleChain<T>::SingleChain(const Program& program)
    : program_(program),
      L_(program.counts[Table::layer]),
      after_(program.stretches[0].ops[0].kind == OpKind::linear),
      kernel_(single_kernel<T>()),
      identity_(&kernel_called<T>("linear")),
      two_slopes_(&kernel_called<T>("two slopes")),
      nodes_((size_t)L_ + 1) {
  phis_.reserve((size_t)program.activation_count);
  for (int64_t i = 0; i < program.activation_count; i++) phis_.push_back(phi_of<T>(program.activations[i]).kernel);
}

template <class T> int64_t SingleChain<T>::bytes(const Program& program) {
  const int64_t chunks =
      (*std::max_element(program.nodes, program.nodes + program.counts[Table::node] + 1) + chunk_units - 1) /
      chunk_units;
  return taken<SingleNode>(program.counts[Table::layer] + 1) + taken<void*>(program.activation_count) +
         2 * taken<SingleSums>(chunks);
}

// The sums of node l, whose z is sigma g + bias.
template <class T> bool SingleChain<T>::sum(int64_t l, uint32_t replica, Wide sigma, Team& team) {
  SingleNode& node = nodes_[(size_t)l];
  const ActivationRow& row = linear(l) ? identity : this->row(l);
  const int64_t n = program_.nodes[l], chunks = (n + chunk_units - 1) / chunk_units;
  const double bias = l && program_.bias_draw[l - 1] != zero_bias ? program_.bias_scale[l - 1] : 0;
  const double slopes[] = {row.before_zero, row.after_zero};
  Single call = {};
  call.seed = program_.seed, call.replica = replica;
  call.g = l ? address(l, Purpose::forward) : address(0, Purpose::input);
  call.h = l < L_ ? address(l + 1, Purpose::backward) : address(L_, Purpose::cotangent);
  call.h_scale = l < L_ ? 1 : 1 / sqrt((double)n);
  call.bias = address(l, Purpose::bias), call.bias_scale = bias,
  call.uniform_bias = l && program_.bias_draw[l - 1] == uniform_bias;
  call.threshold = .01 * row.max_slope, call.parameters = row.parameters;
  const Activation<T>* own = linear(l) ? identity_ : phis_[(size_t)program_.step_activation[after_ ? l - 1 : l]];
  const Activation<T>* phi = own;
  const auto ordinary = [&](double x, int64_t e) {
    return x == 0 || (ilogb(x) + e >= -range<T> && ilogb(x) + e <= range<T>);
  };
  const bool scale_free = homogeneous(row) && bias == 0, near = ordinary(sigma.x, sigma.e);
  node.unit = {1, 0};
  node.n = (double)n;
  if (!ordinary(bias, 0)) return false;
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
  if (!linear(l) && phi == own && !scale_free)
    return s[Sum::HH] > lost * s[Sum::hh] && s[Sum::aa] > lost * std::min((double)n, s[Sum::zz]) &&
           isfinite(s[Sum::aa] + s[Sum::zz] + s[Sum::AA]);
  return isfinite(s[Sum::aa] + s[Sum::zz]);
}

template <class T> bool SingleChain<T>::replica(int64_t replica, const Rows& rows, int64_t index, Team& team) {
  Wide sigma = {1, 0};
  for (int64_t l = 0; l <= L_; l++) {
    if (team.stopped()) throw Stopped{};
    if (!sum(l, (uint32_t)replica, sigma, team)) return false;
    if (l) {
      rows.log10_mean_square_preactivation[index * L_ + l - 1] = log10_mean_square(nodes_[(size_t)l], Sum::zz);
      observe_node(nodes_[(size_t)l], after_, rows, index * L_ + l - 1);
    }
    if (l < L_) {
      const SingleNode& node = nodes_[(size_t)l];
      const Wide scale = settled(program_.scale[l], 0);
      sigma = settled(sqrt(node.sums[Sum::aa]) * node.unit.x * scale.x, node.unit.e + scale.e);
    }
  }
  backward(rows, index);
  return true;
}

template <class T> void SingleChain<T>::backward(const Rows& rows, int64_t index) const {
  const int64_t L = L_;
  rows.loss[index] = NAN;
  double alpha = 0, beta = 1;  // what comes back is 2^e (alpha a + beta h), a as it was summed
  int64_t e = 0;
  double log10_delta = 0;  // of the layer above
  for (int64_t l = L; l >= 0; l--) {
    const SingleSums& s = nodes_[(size_t)l].sums;
    const double n = (double)program_.nodes[l];
    const auto square = [&](double aa, double ah, double hh) {
      return std::max(0., alpha * alpha * aa + 2 * alpha * beta * ah + beta * beta * hh);
    };
    const double delta = sqrt(square(s[Sum::AA], s[Sum::AH], s[Sum::HH])),
                 g_delta = alpha * s[Sum::gA] + beta * s[Sum::gH];
    const double before = log10_of(sqrt(square(s[Sum::aa], s[Sum::ah], s[Sum::hh])), e), behind = log10_of(delta, e);
    rows.log10_grad_activation[index * (L + 1) + l] = after_ ? before : behind;
    if (l < L) rows.log10_weight_factor[index * L + l] = before - log10_delta;
    if (l < L || after_) {
      const int64_t i = index * L + l - (after_ ? 1 : 0);
      if (l || !after_) {
        rows.log10_derivative_factor[i] = behind - before;
        rows.saturated[i] = s[Sum::saturated] / n;
        rows.dead[i] = row(l).flat ? s[Sum::dead] / n : 0;
      }
    }
    if (l == 0) break;
    const SingleNode& node = nodes_[(size_t)l - 1];
    const int64_t i = index * L + l - 1;
    rows.log10_grad_preactivation[i] = rows.log10_grad_bias[i] = log10_delta = behind;
    const double length = sqrt(node.sums[Sum::aa]);
    rows.log10_grad_weight[i] = behind + log10_of(length * node.unit.x, node.unit.e);
    const Wide scale = settled(program_.scale[l - 1], 0);
    alpha = length > 0 ? scale.x * (g_delta - delta * node.sums[Sum::ah] / length) / length : 0;
    beta = scale.x * delta;
    if (program_.nodes[l - 1] == 1 && length > 0)
      alpha = scale.x * g_delta / length, beta = 0;  // nothing lies outside one direction
    const double top = std::max(fabs(alpha) * length, fabs(beta));
    int shift = 0;
    if (top > 0 && isfinite(top)) frexp(top, &shift);
    alpha = ldexp(alpha, -shift), beta = ldexp(beta, -shift), e += shift + scale.e;
  }
}

template class SingleChain<float>;
template class SingleChain<double>;

}  // namespace pykernel
