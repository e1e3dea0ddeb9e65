// Forward keeps one block a layer, from which the preimage follows; backward takes the steps apart and writes down what each one did.
// SPDX-License-Identifier: BSD-3-Clause
#include "network.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "draws.hpp"
#include "isa.hpp"

namespace pykernel {
namespace {

constexpr double log10_2 = 0.30102999566398119521;

int64_t block_size(const Plan& plan, int64_t layer) { return padded(std::max(plan.widths[layer], plan.widths[layer - 1])) * plan.batch; }
int64_t largest_width(const Plan& plan) {
  return std::max(*std::max_element(plan.widths, plan.widths + plan.depth + 1), plan.loss ? plan.outputs : 0);
}

// Segments of `length` layers; where `out` is not null their places too, which take memory.
Extent lay_out(const Plan& plan, int64_t length, Segments* out) {
  Extent e = {length, 0, 0};
  int64_t offset = 0, count = 0;
  for (int64_t l = 1; l <= plan.depth; l++) {
    if ((l - 1) % length == 0) {
      count++, offset = 0;
      if (out) out->starts.push_back(l);
    }
    if (out) out->offsets.push_back(offset);
    offset += block_size(plan, l);
    e.size = std::max(e.size, offset);
  }
  const int64_t blocks = plan.residual_every > 1 ? 2 : 1;
  e.checkpoint = count > 1 ? count * blocks * padded(largest_width(plan)) * plan.batch : 0;
  return e;
}
Extent cut(const Plan& plan, int64_t count) { return lay_out(plan, (plan.depth + count - 1) / count, nullptr); }
bool gram_moves(const Plan& plan) { return plan.norm == batch_norm && plan.order == linear_norm_activation && plan.batch > 1; }

}  // namespace

int64_t bytes_of(const Plan& plan, const Extent& s, int copies, int64_t element_bytes) {
  return (s.size * copies + s.checkpoint) * element_bytes + s.length * plan.batch * plan.batch * (gram_moves(plan) ? 16 : 8);
}

Extent extent_of(const Plan& plan, int copies, int64_t element_bytes, int64_t bytes) {
  Extent best = cut(plan, 1);
  for (int64_t count = 2; bytes_of(plan, best, copies, element_bytes) > bytes && count <= plan.depth;
       count += std::max<int64_t>(1, count / 4)) {
    const Extent next = cut(plan, count);
    if (bytes_of(plan, next, copies, element_bytes) < bytes_of(plan, best, copies, element_bytes))
      best = next;
    else if (count * count > 4 * plan.depth)
      break;
  }
  return best;
}

Segments segments_of(const Plan& plan, const Extent& extent) {
  Segments s = {extent, {}, {}};
  s.starts.reserve((size_t)((plan.depth + extent.length - 1) / extent.length)), s.offsets.reserve((size_t)plan.depth);
  lay_out(plan, extent.length, &s);
  return s;
}

int64_t least_bytes(const Plan& plan, int copies, int64_t element_bytes) {
  const int64_t count = std::max<int64_t>(1, (int64_t)sqrt((double)plan.depth));
  return bytes_of(plan, cut(plan, count), copies, element_bytes) + 10 * padded(largest_width(plan)) * plan.batch * element_bytes;
}

template <class T>
Network<T>::Network(const Plan& plan, Linear<T>& linear, Team& team, int64_t bytes)
    : plan_(plan),
      linear_(linear),
      team_(team),
      B_(plan.batch),
      L_(plan.depth),
      keep_inputs_(plan.clip_value > 0 || linear.needs_input()),
      moving_(gram_moves(plan)),
      segments_(segments_of(plan, extent_of(plan, keep_inputs_ ? 2 : 1, sizeof(T), bytes))),
      layer_(plan, elementwise_table<T>(), team, largest_width(plan)),
      head_(plan) {
  const int64_t size = padded(largest_width(plan)) * B_;
  for (Block<T>* block : {&a_, &skip_, &z_, &h_, &u_, &g_, &dz_, &dh_, &skip_g_}) {
    if (block == &skip_ && plan.residual_every < 2) continue;
    if (block == &skip_g_ && !plan.residual_every) continue;
    if (block == &h_ && !plan.norm) continue;
    if ((block == &dz_ || block == &z_) && plan.order == linear_norm_activation && !plan.loss) continue;
    buffers_.emplace_back((size_t)size);
    *block = {buffers_.back().get(), 0, 0, 0};
  }
  store_ = Buffer<T>((size_t)segments_.extent.size, &team);
  if (keep_inputs_) inputs_ = Buffer<T>((size_t)segments_.extent.size, &team);
  checkpoints_ = Buffer<T>((size_t)segments_.extent.checkpoint, &team);
  const size_t segments = segments_.starts.size();
  checkpoint_a_.resize(segments), checkpoint_skip_.resize(segments);
  const size_t per = segments_.extent.checkpoint ? (size_t)segments_.extent.checkpoint / segments : 0;
  for (size_t s = 0; s < segments && segments > 1; s++) {
    checkpoint_a_[s].data = checkpoints_.get() + s * per;
    checkpoint_skip_[s].data = checkpoint_a_[s].data + size;
  }
  const int64_t length = segments > 1 ? segments_.starts[1] - 1 : L_;
  grams_.resize((size_t)(length * B_ * B_)), gram_a_.resize((size_t)(B_ * B_)), gram_delta_.resize((size_t)(B_ * B_));
  layers_.resize((size_t)L_ + 1);
  if (moving_) moving_grams_.resize(grams_.size());
  for (int64_t l = 1; l <= L_; l++) {
    layers_[(size_t)l].gram = grams_.data() + (l - 1) % length * B_ * B_;
    layers_[(size_t)l].moving = moving_ ? moving_grams_.data() + (l - 1) % length * B_ * B_ : layers_[(size_t)l].gram;
  }
  const int64_t chunks = (largest_width(plan) + chunk_units - 1) / chunk_units;
  if (chunks > 1 && B_ > 1) gram_parts_.resize((size_t)(chunks * B_ * B_));
  if (strcmp(plan.bias_distribution, "zero") || plan.head_bias) bias_.resize((size_t)padded(largest_width(plan)));
}

template <class T> void Network<T>::replica(int64_t replica, const Rows& rows, int64_t index) {
  replica_ = replica;
  linear_.begin(replica, team_);
  input();
  const size_t segments = segments_.starts.size();
  const auto end = [&](size_t s) { return s + 1 < segments ? segments_.starts[s + 1] : L_ + 1; };
  for (size_t s = 0; s < segments; s++) {
    if (segments > 1) checkpoint(s);
    for (int64_t l = segments_.starts[s]; l < end(s); l++) forward(l, first_pass, rows, index);
  }
  rows.loss[index] = objective();
  rows.log10_grad_activation[index * (L_ + 1) + L_] = log10_2 * g_norm_;
  for (size_t s = segments; s-- > 0;) {
    if (s + 1 < segments) {
      resume(s);
      for (int64_t l = segments_.starts[s]; l < end(s); l++) forward(l, again, rows, index);
    }
    for (int64_t l = end(s) - 1; l >= segments_.starts[s]; l--) backward(l, rows, index);
  }
}

namespace {
template <class T> void copy(const Block<T>& from, Block<T>& to, int64_t B) {
  memcpy(to.data, from.data, sizeof(T) * (size_t)(padded(from.n) * B));
  to.n = from.n, to.exponent = from.exponent, to.largest = from.largest;
}

}  // namespace

template <class T> void Network<T>::input() {
  const int64_t n = width(0);
  if (plan_.x) {
    pack(plan_.x, n, B_, a_, plan_.exponent);
  } else {
    a_.n = n, a_.exponent = 0;
    draw_tall(a_.data, n, B_, address(Purpose::input, 0), team_);
    if (plan_.correlation > 0) {
      draw_tall(u_.data, n, 1, address(Purpose::input_common, 0), team_);
      const T common = (T)sqrt(plan_.correlation), own = (T)sqrt(1 - plan_.correlation);
      for (int64_t p = 0; p < padded(n) / 16; p++)
        for (int64_t b = 0; b < B_; b++)
          for (int64_t i = 0; i < 16; i++) {
            T& x = a_.data[(p * B_ + b) * 16 + i];
            x = common * u_.data[p * 16 + i] + own * x;
          }
    }
  }
  const Measure m = layer_.settle(a_);
  if (plan_.residual_every > 1) copy(a_, skip_, B_);
  gram(a_, m, gram_a_.data(), &gram_a_exponent_);
}

template <class T> void Network<T>::checkpoint(size_t s) {
  copy(a_, checkpoint_a_[s], B_);
  if (plan_.residual_every > 1) copy(skip_, checkpoint_skip_[s], B_);
}

template <class T> void Network<T>::resume(size_t s) {
  copy(checkpoint_a_[s], a_, B_);
  if (plan_.residual_every > 1) copy(checkpoint_skip_[s], skip_, B_);
  gram(a_, layer_.settle(a_), gram_a_.data(), &gram_a_exponent_);
}

// x^T x of the mantissas; plain arithmetic, without exponents, has them scaled
// Batch norm of z makes delta sum to zero over the batch: dJ/dW = delta u^T does not see u's mean over it, and Gram matrices with that
// mean in them would cancel to the square root of the rounding where u hardly varies.
template <class T> void Network<T>::centre(const Block<T>& x, Block<T>& out) {
  out.n = x.n, out.exponent = x.exponent, out.largest = x.largest;
  const int64_t panels = (x.n + 15) / 16, chunk = chunk_units / 16;
  team_.each((panels + chunk - 1) / chunk, [&](int64_t c) {
    for (int64_t p = c * chunk; p < std::min(panels, (c + 1) * chunk); p++)
      for (int64_t lane = 0; lane < 16; lane++) {
        const T* from = x.data + p * B_ * 16 + lane;
        T mean = 0;
        for (int64_t b = 0; b < B_; b++) mean += from[b * 16];
        mean /= (T)B_;
        for (int64_t b = 0; b < B_; b++) out.data[(p * B_ + b) * 16 + lane] = from[b * 16] - mean;
      }
  });
}

template <class T> void Network<T>::gram(const Block<T>& block, const Measure& measure, double* out, int64_t* exponent) {
  if (B_ == 1) {
    *out = measure.square, *exponent = measure.exponent;
    return;
  }
  const Block<T> x = layer_.presentable(block);
  *exponent = x.exponent;
  const int64_t chunks = (x.n + chunk_units - 1) / chunk_units, entries = B_ * B_;
  const auto part = [&](int64_t c, double* gram) {
    if (linear_.needs_input()) {
      const MatrixFree<T>& table = matrix_free_table<T>();
      return table.inner(x.data, x.data, c, x.n, B_, gram, thread_scratch((size_t)table.room(B_)));
    }
    product_table<T>().gram(x.data + c * chunk_units * B_, std::min(chunk_units, x.n - c * chunk_units), B_, gram,
                            thread_scratch(backward_scratch<T>(0, B_)));
  };
  if (chunks == 1) {
    part(0, out);
  } else {
    team_.each(chunks, [&](int64_t c) { part(c, gram_parts_.data() + c * entries); });
    for (int64_t i = 0; i < entries; i++) {
      out[i] = 0;
      for (int64_t c = 0; c < chunks; c++) out[i] += gram_parts_[(size_t)(c * entries + i)];
    }
  }
  if constexpr (sizeof(T) == 4) {
    bool lost = false;  // a column so small that its squares are subnormal, or zero
    for (int64_t b = 0; b < B_; b++) lost |= out[b * B_ + b] < 0x1p-90;
    if (lost && x.largest > 0) gram_of_uneven(x, out);
  }
}

// In double, a panel at a time, for columns of very different size.
template <class T> void Network<T>::gram_of_uneven(const Block<T>& x, double* out) const {
  for (int64_t i = 0; i < B_ * B_; i++) out[i] = 0;
  for (int64_t p = 0; p < panels_of(x.n); p++) {
    const T* panel = x.data + p * B_ * 16;
    for (int64_t b = 0; b < B_; b++)
      for (int64_t c = 0; c <= b; c++) {
        double sum = 0;
        for (int64_t lane = 0; lane < 16; lane++) sum += (double)panel[b * 16 + lane] * (double)panel[c * 16 + lane];
        out[b * B_ + c] += sum;
      }
  }
  for (int64_t b = 0; b < B_; b++)
    for (int64_t c = 0; c < b; c++) out[c * B_ + b] = out[b * B_ + c];
}

template <class T> double Network<T>::similarity(const double* gram) const {
  double sum = 0;
  int64_t pairs = 0;
  for (int64_t b = 0; b < B_; b++)
    for (int64_t c = 0; c < b; c++) {
      const double lengths = sqrt(gram[b * B_ + b]) * sqrt(gram[c * B_ + c]);  // the product of the squares may vanish
      if (lengths == 0) continue;
      sum += gram[b * B_ + c] / lengths, pairs++;
    }
  return pairs ? sum / (double)pairs : NAN;
}

template <class T> Block<T> Network<T>::stored(int64_t l) const {
  const Stored& s = layers_[(size_t)l];
  return {store_.get() + segments_.offsets[(size_t)l - 1], width(plan_.order == linear_norm_activation ? l : l - 1), s.exponent, s.largest};
}

template <class T> Block<T> Network<T>::stored_input(int64_t l) const {
  const Stored& s = layers_[(size_t)l];
  if (!keep_inputs_) return {nullptr, width(l - 1), 0, 0};
  return {inputs_.get() + segments_.offsets[(size_t)l - 1], width(l - 1), s.input_exponent, s.input_largest};
}

template <class T> void Network<T>::keep(int64_t l, const Block<T>& u) {
  Stored& s = layers_[(size_t)l];
  s.input_exponent = u.exponent, s.input_largest = u.largest;
  if (!keep_inputs_) return;
  Block<T> to = stored_input(l);
  copy(u, to, B_);
}

template <class T> Measure Network<T>::linear(int64_t l, const Block<T>& u, const double* gram, Block<T>& z) {
  z.n = l <= L_ ? width(l) : plan_.outputs;
  linear_.forward(l, u, gram, z, team_);
  if (team_.stopped()) throw Stopped{};
  Measure m = layer_.settle(z);
  if (l <= L_ ? strcmp(plan_.bias_distribution, "zero") != 0 : plan_.head_bias != nullptr) {
    Block<T> b = {bias_.data(), z.n, 0, 0};
    if (l > L_) {
      pack(plan_.head_bias, z.n, 1, b, plan_.exponent);
      return layer_.add_bias(z, b.data, b.largest, ldexp(1, (int)b.exponent));
    }
    if (plan_.biases) {
      pack(plan_.biases[l - 1], z.n, 1, b, false);
    } else {
      draw_tall(b.data, z.n, 1,
                address(Purpose::bias, l, strcmp(plan_.bias_distribution, "uniform") ? TallDraw::normal : TallDraw::uniform), team_);
    }
    double largest = 0;
    for (int64_t i = 0; i < z.n; i++) largest = fmax(largest, fabs((double)b.data[i]));
    m = layer_.add_bias(z, b.data, largest, plan_.bias_scale[l - 1]);
  }
  return m;
}

template <class T> void Network<T>::forward(int64_t l, Pass pass, const Rows& rows, int64_t index) {
  if (team_.stopped()) throw Stopped{};
  Stored& s = layers_[(size_t)l];
  Measure mz, ma;
  const bool join = joins(l);
  if (plan_.order == linear_norm_activation) {
    memcpy(s.gram, gram_a_.data(), sizeof(double) * (size_t)(B_ * B_));
    s.gram_exponent = gram_a_exponent_;
    if (moving_) {
      centre(a_, u_);
      gram(u_, layer_.settle(u_), s.moving, &s.moving_exponent);
    }
    keep(l, a_);
    Block<T> z = stored(l);
    mz = linear(l, a_, s.gram, z);
    if (plan_.norm) layer_.normalise(z, h_);
    ma = layer_.activate(plan_.norm ? h_ : z, u_);
    s.exponent = z.exponent, s.largest = z.largest;
    if (join) ma = layer_.add(plan_.residual_every > 1 ? skip_ : a_, u_, plan_.residual_scale[l - 1], u_);
    std::swap(a_, u_);
  } else {
    if (plan_.norm) layer_.normalise(a_, h_);
    const Measure mu = layer_.activate(plan_.norm ? h_ : a_, u_);
    s.exponent = a_.exponent, s.largest = a_.largest;
    Block<T> to = stored(l);
    copy(a_, to, B_);
    gram(u_, mu, s.gram, &s.gram_exponent);
    keep(l, u_);
    ma = mz = linear(l, u_, s.gram, z_);
    if (join) ma = layer_.add(plan_.residual_every > 1 ? skip_ : a_, z_, plan_.residual_scale[l - 1], z_);
    std::swap(a_, z_);
  }
  if (join && plan_.residual_every > 1) copy(a_, skip_, B_);
  if (plan_.order == linear_norm_activation || B_ > 1 || l == L_) gram(a_, ma, gram_a_.data(), &gram_a_exponent_);
  if (pass == again) return;
  const int64_t i = index * L_ + l - 1;
  const double count = (double)width(l) * (double)B_, log2_count = log2(count);
  rows.log10_mean_square_preactivation[i] = log10_2 * (2 * mz.log2_norm() - log2_count);
  rows.log10_mean_square_activation[i] = log10_2 * (2 * ma.log2_norm() - log2_count);
  rows.mean_activation[i] = ldexp(ma.sum / count, (int)std::clamp<int64_t>(ma.exponent, -3000, 3000));
  rows.similarity[i] = B_ > 1 ? similarity(gram_a_.data()) : NAN;
}

template <class T> double Network<T>::objective() {
  const int64_t n = width(L_);
  double loss = NAN;
  if (plan_.loss) {
    Vector<double> drawn;
    if (!plan_.targets) drawn = draw_targets(address(Purpose::target, L_ + 1), plan_.loss, plan_.outputs, B_, team_);
    linear(L_ + 1, a_, gram_a_.data(), z_);
    dh_.n = plan_.outputs;
    loss = head_.differentiate(z_, plan_.targets ? plan_.targets : drawn.data(), dh_);
    const Measure m = layer_.settle(dh_);
    int64_t ignored;
    gram(dh_, m, gram_delta_.data(), &ignored);
    g_.n = n;
    linear_.backward(L_ + 1, a_, gram_a_.data(), dh_, gram_delta_.data(), g_, team_);
  } else if (plan_.cotangent) {
    pack(plan_.cotangent, n, B_, g_, plan_.exponent);
  } else {
    g_.n = n, g_.exponent = 0;
    draw_tall(g_.data, n, B_, address(Purpose::cotangent, L_), team_);
    layer_.settle(g_);
    layer_.scale(g_, 1 / sqrt((double)n * (double)B_), g_);
  }
  g_norm_ = layer_.settle(g_).log2_norm();
  return loss;
}

template <class T> void Network<T>::backward(int64_t l, const Rows& rows, int64_t index) {
  if (team_.stopped()) throw Stopped{};
  const int64_t i = index * L_ + l - 1, k = plan_.residual_every;
  const Stored& s = layers_[(size_t)l];
  Block<T> kept = stored(l);
  double before = g_norm_;
  if (joins(l)) {
    copy(g_, skip_g_, B_);
    if (plan_.residual_scale[l - 1] != 1) before = layer_.scale(g_, plan_.residual_scale[l - 1], g_).log2_norm();
  }
  SlopeCount count;
  const auto derivative = [&](const Block<T>& g) {  // through phi and Norm into dh_
    if (plan_.norm) layer_.normalise(kept, h_);
    Measure m = layer_.differentiate(plan_.norm ? h_ : kept, g, dh_, count);
    if (plan_.norm) m = layer_.normalise_backward(kept, h_, dh_, dh_);
    return m;
  };
  const bool first_order = plan_.order == linear_norm_activation;
  Measure m;
  if (first_order)
    m = derivative(g_);
  else
    m = layer_.settle(g_);
  const Block<T>& delta = first_order ? dh_ : g_;
  const double after = m.log2_norm();
  if (first_order) rows.log10_derivative_factor[i] = log10_2 * (after - before);
  rows.log10_grad_preactivation[i] = log10_2 * after;
  int64_t delta_exponent;
  gram(delta, m, gram_delta_.data(), &delta_exponent);
  if (plan_.clip_value > 0) {
    rows.log10_grad_weight[i] = log10_2 * log2_clipped_weight(delta, stored_input(l));
    rows.log10_grad_bias[i] = log10_2 * log2_clipped_bias(delta);
  } else {
    double square = 0;
    for (int64_t e = 0; e < B_ * B_; e++) square += gram_delta_[(size_t)e] * s.moving[e];
    if (square < 0) square = 0;  // rounding, where the gradient cancels
    rows.log10_grad_weight[i] = log10_2 * (.5 * log2(square) + (double)(delta_exponent + (moving_ ? s.moving_exponent : s.gram_exponent)));
    rows.log10_grad_bias[i] = log10_2 * (B_ == 1 ? after : layer_.log2_bias_norm(delta));
  }
  Block<T>& du = first_order ? g_ : dz_;
  du.n = width(l - 1);
  linear_.backward(l, stored_input(l), s.gram, delta, gram_delta_.data(), du, team_);
  if (team_.stopped()) throw Stopped{};
  double norm = layer_.settle(du).log2_norm();
  rows.log10_weight_factor[i] = log10_2 * (norm - after);
  if (!first_order) {
    const double behind = derivative(dz_).log2_norm();
    rows.log10_derivative_factor[i] = log10_2 * (behind - norm);
    norm = behind;
    std::swap(g_, dh_);
  }
  rows.saturated[i] = (double)count.saturated / ((double)kept.n * (double)B_);
  rows.dead[i] = (double)count.dead / (double)kept.n;
  if (k && (l - 1) % k == 0 && l - 1 + k <= L_) norm = layer_.add(g_, skip_g_, 1, g_).log2_norm();
  g_norm_ = norm;
  rows.log10_grad_activation[index * (L_ + 1) + l - 1] = log10_2 * norm;
}

// Every entry of delta u^T clamped to +-clip_value, one after the other
template <class T> double Network<T>::log2_clipped_weight(const Block<T>& delta, const Block<T>& u) {
  const int64_t e = delta.exponent + u.exponent;
  const double c = ldexp(plan_.clip_value, (int)std::clamp<int64_t>(-e, -2000, 2000));
  const bool all = c < 1e-150;  // every entry that is not zero is clamped
  Vector<double> squares((size_t)delta.n);
  team_.each((delta.n + 63) / 64, [&](int64_t block) {
    Vector<T> row((size_t)u.n);
    for (int64_t i = block * 64; i < std::min(delta.n, block * 64 + 64); i++) {
      std::fill(row.begin(), row.end(), T(0));
      for (int64_t b = 0; b < B_; b++) {
        const T d = delta.data[(i / 16 * B_ + b) * 16 + i % 16];
        for (int64_t p = 0; p * 16 < u.n; p++)
          for (int64_t j = 0; j < std::min<int64_t>(16, u.n - p * 16); j++) row[(size_t)(p * 16 + j)] += d * u.data[(p * B_ + b) * 16 + j];
      }
      double square = 0;
      for (const T x : row) {
        const double y = all ? (x != 0) : std::min(fabs((double)x), c);
        square += x == x ? y * y : (double)x;
      }
      squares[(size_t)i] = square;
    }
    if (team_.stopped()) return;
  });
  double square = 0;
  for (const double x : squares) square += x;
  return .5 * log2(square) + (all ? log2(plan_.clip_value) : (double)e);
}

template <class T> double Network<T>::log2_clipped_bias(const Block<T>& delta) {
  const double c = ldexp(plan_.clip_value, (int)std::clamp<int64_t>(-delta.exponent, -2000, 2000));
  const bool all = c < 1e-150;
  double square = 0;
  for (int64_t i = 0; i < delta.n; i++) {
    T sum = 0;
    for (int64_t b = 0; b < B_; b++) sum += delta.data[(i / 16 * B_ + b) * 16 + i % 16];
    const double y = all ? (sum != 0) : std::min(fabs((double)sum), c);
    square += sum == sum ? y * y : (double)sum;
  }
  return .5 * log2(square) + (all ? log2(plan_.clip_value) : (double)delta.exponent);
}

template class Network<float>;
template class Network<double>;

}  // namespace pykernel
