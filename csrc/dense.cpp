// Draws of the forward pass are kept for the backward pass as far as memory allows, the last layers first, and drawn again for the others.
// SPDX-License-Identifier: BSD-3-Clause
#include "dense.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "haar.hpp"
#include "isa.hpp"
#include "layer.hpp"
#include "pages.hpp"

namespace pykernel {
namespace {

enum class Kind { drawn, given, identity, constant, haar };

struct Source {
  Kind kind;
  Distribution distribution;
  double parameter;
};

Source source_of(const char* name, double parameter) {
  constexpr std::pair<const char*, Kind> others[] = {
      {"given", Kind::given}, {"identity", Kind::identity}, {"constant", Kind::constant}, {"haar", Kind::haar}};
  for (const auto& [other, kind] : others)
    if (!strcmp(name, other)) return {kind, Distribution::normal, 0};
  return {Kind::drawn, distribution_called(name), parameter};
}

// A call of a kernel is short enough that Ctrl-C is noticed, and long enough that a thread is worth waking.
constexpr int64_t longest_call = 1 << 25, shortest_share = 1 << 15;

template <class T> class Dense final : public Linear<T> {
 public:
  Dense(const Plan& plan, std::shared_ptr<Vector<Buffer<T>>> given, int64_t bytes)
      : plan_(plan),
        table_(product_table<T>()),
        body_(source_of(plan.distribution, plan.distribution_parameter)),
        head_(body_),
        given_(std::move(given)) {
    if (plan.loss) head_ = source_of(plan.head_distribution, plan.head_parameter);
    const int64_t last = plan.depth + (plan.loss != no_loss);
    kept_.assign((size_t)last, nullptr), written_.assign((size_t)last, false);
    Vector<int64_t> offsets((size_t)last, -1);
    int64_t entries = 0, all = 0;
    for (int64_t l = 1; l <= last && all <= bytes; l++)
      if (at(l).kind == Kind::drawn) all += padded(rows(l)) * columns(l) * (int64_t)sizeof(float);
    if (all > bytes && !is_lent()) bytes /= 2;  // a part of a network saves but a part of the time
    for (int64_t l = last; l >= 1; l--) {
      const int64_t size = padded(rows(l)) * columns(l);
      if (at(l).kind != Kind::drawn || (entries + size) * (int64_t)sizeof(float) > bytes) continue;
      offsets[(size_t)l - 1] = entries, entries += size;
    }
    float* room;
    if (is_lent())
      room = static_cast<float*>(take((size_t)entries * sizeof(float)));  // until the workspace goes back
    else
      pages_ = Pages((size_t)entries * sizeof(float)), room = static_cast<float*>(pages_.get());
    for (size_t l = 0; l < kept_.size(); l++)
      if (room && offsets[l] >= 0) kept_[l] = room + offsets[l];
    if (body_.kind == Kind::haar || (plan.loss && head_.kind == Kind::haar)) {
      int64_t largest = 0;
      for (int64_t l = 1; l <= plan.depth + (plan.loss != no_loss); l++)
        if (at(l).kind == Kind::haar) largest = std::max(largest, padded(rows(l)) * columns(l));
      frames_ = Buffer<T>((size_t)largest);
    }
  }

  void begin(int64_t replica, Team&) override {
    replica_ = (uint32_t)replica, framed_ = 0;
    std::fill(written_.begin(), written_.end(), false);
  }

  void forward(int64_t l, const Block<T>& u, const double*, Block<T>& z, Team& team) override {
    const Source& source = at(l);
    int shift;
    Weights<T> w = weights(l, source, team, shift);
    z.exponent = u.exponent + shift;
    if (source.kind == Kind::identity) return diagonal(u, w.scale, z);
    if (source.kind == Kind::constant) return rank_one(u, w.scale, z);
    float* keep = kept_[(size_t)l - 1];
    if (written_[(size_t)l - 1]) w.kept = keep, keep = nullptr;  // a segment computed again
    written_[(size_t)l - 1] = kept_[(size_t)l - 1];
    const int64_t panels = panels_of(w.rows), step = share(panels, 16 * w.columns * plan_.batch, 4, team);
    team.each((panels + step - 1) / step, [&](int64_t c) {
      if (!team.stopped()) table_.forward(w, c * step, std::min(panels, (c + 1) * step), plan_.batch, u.data, z.data, keep);
    });
  }

  void backward(int64_t l, const Block<T>&, const double*, const Block<T>& delta, const double*, Block<T>& du, Team& team) override {
    const Source& source = at(l);
    int shift;
    Weights<T> w = weights(l, source, team, shift);
    du.exponent = delta.exponent + shift;
    if (source.kind == Kind::identity) return diagonal(delta, w.scale, du);
    if (source.kind == Kind::constant) return rank_one(delta, w.scale, du);
    w.kept = kept_[(size_t)l - 1];
    const int64_t panels = panels_of(w.columns), step = share(panels, 16 * w.rows * plan_.batch, 4, team);
    team.each((panels + step - 1) / step, [&](int64_t c) {
      if (team.stopped()) return;
      table_.backward(w, c * step * 16, std::min(w.columns, (c + 1) * step * 16), plan_.batch, delta.data, du.data,
                      thread_scratch(backward_scratch<T>(w.rows, plan_.batch)));
    });
  }

 private:
  int64_t rows(int64_t l) const { return l <= plan_.depth ? plan_.widths[l] : plan_.outputs; }
  int64_t columns(int64_t l) const { return plan_.widths[l - 1]; }
  const Source& at(int64_t l) const { return l <= plan_.depth ? body_ : head_; }

  // Scales that T might not hold give their power of two to the block's exponent.
  Weights<T> weights(int64_t l, const Source& source, Team& team, int& shift) {
    const double scale = l <= plan_.depth ? plan_.scale[l - 1] : plan_.head_scale;
    shift = 0;
    const bool far = plan_.exponent && scale != 0 && (fabs(scale) > 0x1p30 || fabs(scale) < 0x1p-30);
    const double mantissa = far ? frexp(scale, &shift) : scale;
    Weights<T> w = {rows(l),  columns(l), (T)mantissa, source.distribution, source.parameter, plan_.seed, (uint32_t)l,
                    replica_, nullptr,    nullptr};
    if (source.kind == Kind::given) w.given = (*given_)[(size_t)l - 1].get();
    if (source.kind == Kind::haar) {
      if (framed_ != l) draw_frame(w, frames_.get(), table_, team);
      framed_ = l;
      w.given = frames_.get();
    }
    return w;
  }

  int64_t share(int64_t panels, int64_t work, int64_t multiple, const Team& team) const {
    int64_t parts = panels * work / longest_call + 1;
    if (team.size() > 1) parts = std::max(parts, std::min<int64_t>(4 * team.size(), panels * work / shortest_share + 1));
    const int64_t step = (panels + parts - 1) / parts;
    return (step + multiple - 1) / multiple * multiple;
  }

  void diagonal(const Block<T>& x, T scale, Block<T>& y) const {
    const int64_t B = plan_.batch, shared = std::min(x.n, y.n);
    for (int64_t p = 0; p < panels_of(y.n); p++)
      for (int64_t b = 0; b < B; b++)
        for (int64_t i = 0; i < 16; i++) y.data[(p * B + b) * 16 + i] = p * 16 + i < shared ? scale * x.data[(p * B + b) * 16 + i] : T(0);
  }

  void rank_one(const Block<T>& x, T scale, Block<T>& y) const {
    const int64_t B = plan_.batch;
    for (int64_t b = 0; b < B; b++) {
      double sum = 0;
      for (int64_t i = 0; i < x.n; i++) sum += (double)x.data[(i / 16 * B + b) * 16 + i % 16];
      const T value = (T)((double)scale * sum);
      for (int64_t i = 0; i < padded(y.n); i++) y.data[(i / 16 * B + b) * 16 + i % 16] = i < y.n ? value : T(0);
    }
  }

  const Plan& plan_;
  const Products<T>& table_;
  Source body_, head_;
  std::shared_ptr<Vector<Buffer<T>>> given_;
  Pages pages_;
  Vector<float*> kept_;   // of each layer, or null
  Vector<bool> written_;  // in this replica
  Buffer<T> frames_;
  uint32_t replica_ = 0;
  int64_t framed_ = 0;
};

// The caller's matrices in panels, made once for all workers
template <class T> std::shared_ptr<Vector<Buffer<T>>> pack_given(const Plan& plan) {
  auto given = std::make_shared<Vector<Buffer<T>>>((size_t)plan.depth + 1);
  for (int64_t l = 1; l <= plan.depth + (plan.loss != no_loss); l++) {
    const double* matrix = l > plan.depth ? plan.head_weight : plan.weights ? plan.weights[l - 1] : nullptr;
    if (!matrix) continue;
    const int64_t rows = l > plan.depth ? plan.outputs : plan.widths[l], columns = plan.widths[l - 1];
    Buffer<T> panels((size_t)(padded(rows) * columns));
    for (int64_t i = 0; i < rows; i++)
      for (int64_t k = 0; k < columns; k++) panels.get()[(i / 16 * columns + k) * 16 + i % 16] = (T)matrix[i * columns + k];
    (*given)[(size_t)l - 1] = std::move(panels);
  }
  return given;
}

}  // namespace

template <class T> MakeLinear<T> make_dense(int64_t keep_bytes) {
  return [given = std::shared_ptr<Vector<Buffer<T>>>(), keep_bytes](const Plan& plan, int workers) mutable -> std::unique_ptr<Linear<T>> {
    if (!given) given = pack_given<T>(plan);
    return std::make_unique<Dense<T>>(plan, given, keep_bytes / workers);
  };
}
template MakeLinear<float> make_dense(int64_t);
template MakeLinear<double> make_dense(int64_t);

}  // namespace pykernel
