// Draws of the forward pass are kept for the backward pass as far as memory allows, the last layers first, and drawn
// again for the others. SPDX-License-Identifier: BSD-3-Clause
#include "dense.hpp"

#include <math.h>

#include <algorithm>

#include "draws.hpp"
#include "grouped.hpp"
#include "haar.hpp"
#include "isa.hpp"
#include "pages.hpp"

namespace pykernel {
namespace {

// A call of a kernel is short enough that Ctrl-C is noticed, and long enough that a thread is worth waking.
constexpr int64_t longest_call = 1 << 25, shortest_share = 1 << 15;

int64_t panel_size(const LayerOf& l) { return padded(l.rows) * l.columns; }
int64_t kept_size(const LayerOf& l) { return pykernel::kept_size(l.rows, l.columns); }
Unit unit_of(const LayerOf& l) { return l.given ? Unit{Source::given, Distribution::normal, 0} : unit_of(l.draw); }

// Rounded weights have their scale in them, but for those of one number.
template <class T> T scale_of_groups(const Weights<T>& w, const Unit& unit) {
  const bool within = w.format.fraction && unit.source != Source::identity && unit.source != Source::constant;
  return within ? T(1) : w.scale;
}

// Panels of a matrix with `columns` columns become those of one that has it at the middle of `taps` taps.
template <class T> void set_apart(T* panels, int64_t rows, int64_t columns, int64_t taps) {
  Vector<T> one((size_t)(columns * 16));
  for (int64_t p = panels_of(rows); p-- > 0;) {
    std::copy_n(panels + p * columns * 16, columns * 16, one.data());
    T* to = panels + p * taps * columns * 16;
    std::fill_n(to, taps * columns * 16, T(0));
    std::copy_n(one.data(), columns * 16, to + taps / 2 * columns * 16);
  }
}

bool is_grouped(const Program& program, int64_t l) {
  return l <= program.counts[Table::layer] && groups_of(program, l - 1) > 1;
}
int64_t largest_grouped(const Program& program, int64_t first) {
  int64_t largest = 0;
  for (int64_t l = first; program.groups && l <= all_layers(program); l++)
    if (is_grouped(program, l)) largest = std::max(largest, panel_size(layer_of(program, l)));
  return largest;
}

int64_t largest_by_chance(const Program& program, int64_t first) {
  int64_t largest = 0;
  for (int64_t l = first; program.formats && program.formats->weights.stochastic && l <= all_layers(program); l++)
    largest = std::max(largest, panel_size(layer_of(program, l)));
  return largest;
}

// The most that `size` says of a layer with an orthogonal weight.
template <class Size> int64_t largest_frame(const Program& program, int64_t first, Size size) {
  const auto is_frame = [](const Draw& draw) { return unit_of(draw).source == Source::haar; };
  int64_t largest = 0;
  if (std::none_of(program.draws, program.draws + program.draw_count, is_frame) && !program.head.loss) return 0;
  for (int64_t l = first; l <= all_layers(program); l++)
    if (const LayerOf of = layer_of(program, l); unit_of(of).source == Source::haar)
      largest = std::max<int64_t>(largest, size(of));
  return largest;
}

}  // namespace

template <class T> GivenWeights<T>::GivenWeights(const Program& program, int64_t first_layer) {
  if (!program.weights && !program.head.weight) return;
  panels_.reserve((size_t)(all_layers(program) - first_layer + 1));
  each_weight(program, first_layer, [&](int64_t l) {
    const LayerOf of = layer_of(program, l);
    Buffer<T>& panels = of.given ? panels_.emplace_back((size_t)panel_size(of)) : panels_.emplace_back();
    for (int64_t i = 0; of.given && i < of.rows; i++)
      for (int64_t k = 0; k < of.columns; k++)
        panels.get()[entry_at(i, k, of.columns)] = (T)of.given[i * of.columns + k];
  });
}
template <class T> int64_t GivenWeights<T>::bytes(const Program& program, int64_t first_layer) {
  if (!program.weights && !program.head.weight) return 0;
  int64_t bytes = taken<Buffer<T>>(all_layers(program) - first_layer + 1);
  each_weight(program, first_layer, [&](int64_t l) {
    if (const LayerOf of = layer_of(program, l); of.given) bytes += Buffer<T>::bytes(panel_size(of));
  });
  return bytes;
}
template class GivenWeights<float>;
template class GivenWeights<double>;

template <class T>
Dense<T>::Dense(const Program& program, std::shared_ptr<const GivenWeights<T>> given, int64_t first_layer,
                int64_t bytes)
    : program_(program),
      table_(product_table<T>()),
      first_(first_layer),
      last_(all_layers(program)),
      given_(std::move(given)) {
  units_.reserve((size_t)program.draw_count + 2);
  for (int64_t i = 0; i < program.draw_count; i++) units_.push_back(unit_of(program.draws[i]));
  units_.push_back(program.head.loss && !program.head.weight ? unit_of(program.head.draw) : Unit{});
  units_.push_back({Source::given, Distribution::normal, 0});
  drawn_.reserve((size_t)std::max<int64_t>(0, last_ - first_ + 1));
  each_weight(program, first_, [this](int64_t l) { drawn_.push_back({l, nullptr, false, false}); });
  shares_ = (int64_t)drawn_.size() <= last_ - first_;
  keep_draws(bytes);
  if (const int64_t size = largest_frame(program, first_, panel_size)) frames_ = Buffer<T>((size_t)size);
  if (const int64_t size = largest_grouped(program, first_)) grouped_ = Buffer<T>((size_t)size);
  if (const int64_t size = largest_by_chance(program, first_)) chance_ = Buffer<T>((size_t)size);
}

template <class T> int64_t Dense<T>::bytes(const Program& program, int64_t first_layer) {
  const int64_t size = largest_frame(program, first_layer, panel_size), grouped = largest_grouped(program, first_layer),
                chance = largest_by_chance(program, first_layer);
  return taken<Unit>(program.draw_count + 2) + taken<Drawn>(all_layers(program) - first_layer + 1) +
         (size ? Buffer<T>::bytes(size) : 0) + (grouped ? Buffer<T>::bytes(grouped) : 0) +
         (chance ? Buffer<T>::bytes(chance) : 0) +
         largest_frame(program, first_layer, [](const LayerOf& of) { return frame_bytes(of.rows, of.columns); });
}
template <class T> int64_t Dense<T>::draw_bytes(const Program& program) {
  int64_t entries = 0;
  each_weight(program, 1, [&](int64_t l) { entries += kept_size(layer_of(program, l)); });
  return entries * (int64_t)sizeof(float);
}

template <class T> const Unit& Dense<T>::unit(int64_t l, const LayerOf& of) const {
  if (of.given) return units_.back();
  return units_[(size_t)(l > program_.counts[Table::layer] ? program_.draw_count : program_.draw[l - 1])];
}

template <class T> void Dense<T>::keep_draws(int64_t bytes) {
  int64_t entries = 0, all = 0;
  for (const Drawn& drawn : drawn_)
    if (const LayerOf of = layer_of(program_, drawn.layer);
        unit(drawn.layer, of).source == Source::drawn && !is_grouped(program_, drawn.layer))
      all += kept_size(of) * (int64_t)sizeof(float);
  keeps_all_ = all <= bytes;
  if (!keeps_all_ && !is_lent()) bytes /= 2;  // a part of a network saves but a part of the time
  const auto each_kept = [&](auto use) {
    entries = 0;
    for (size_t i = drawn_.size(); i-- > 0;) {
      const LayerOf of = layer_of(program_, drawn_[i].layer);
      const int64_t size = kept_size(of);
      if (unit(drawn_[i].layer, of).source != Source::drawn || is_grouped(program_, drawn_[i].layer) ||
          (entries + size) * (int64_t)sizeof(float) > bytes)
        continue;
      use(drawn_[i], entries);
      entries += size;
    }
  };
  if (keeps_all_)
    entries = all / (int64_t)sizeof(float);
  else
    each_kept([](Drawn&, int64_t) {});
  float* room;
  if (is_lent()) {
    room = static_cast<float*>(take((size_t)entries * sizeof(float)));  // until the workspace goes back
  } else {
    pages_ = Pages((size_t)entries * sizeof(float));
    room = static_cast<float*>(pages_.get());
  }
  if (room) each_kept([room](Drawn& drawn, int64_t offset) { drawn.kept = room + offset; });
}

template <class T> void Dense<T>::begin(int64_t replica, Team&) {
  replica_ = (uint32_t)replica;
  framed_ = 0;
  for (Drawn& drawn : drawn_) drawn.written = false;
}

template <class T> double Dense<T>::work(int64_t l, int64_t columns) const {
  const LayerOf of = layer_of(program_, l);
  return (double)of.rows * (double)of.columns * (double)columns;
}

template <class T>
void Dense<T>::forward(int64_t l, int64_t B, const Block<T>& u, const double*, Block<T>& z, Team& team,
                       const Format& format) {
  const LayerOf of = layer_of(program_, l);
  const Unit& drawn = unit(l, of);
  Drawn& known = at(l);
  if (!known.written) known.by_blocks = !shares_ && lie_by_blocks(table_, B);
  int shift;
  Weights<T> w = weights(l, of, drawn, team, format, shift);
  z.exponent = u.exponent + shift;
  if (is_grouped(program_, l)) {
    const T* panels = panels_of_groups(w, drawn, team);
    return multiply_groups(groups_of_layer(program_, l - 1), panels, scale_of_groups(w, drawn), u.data, B, z.data,
                           team);
  }
  if (drawn.source == Source::identity && !w.given) return diagonal(u, B, w.scale, z);
  if (drawn.source == Source::constant && !w.given) return rank_one(u, B, w.scale, z);
  float* keep = w.given ? nullptr : known.kept;
  if (known.written) {  // by another use, or a segment is computed again
    w.kept = keep;
    keep = nullptr;
  }
  known.written = known.written || keep;
  const int64_t panels = panels_of(w.rows), step = share(panels, 16 * w.columns * B, team);
  team.each((panels + step - 1) / step, [&](int64_t c) {
    if (!team.stopped()) table_.forward(w, c * step, std::min(panels, (c + 1) * step), B, u.data, z.data, keep);
  });
}

template <class T>
void Dense<T>::backward(int64_t l, int64_t B, const Block<T>&, const double*, const Block<T>& delta, const double*,
                        Block<T>& du, Team& team, const Format& format) {
  const LayerOf of = layer_of(program_, l);
  const Unit& drawn = unit(l, of);
  int shift;
  Weights<T> w = weights(l, of, drawn, team, format, shift);
  du.exponent = delta.exponent + shift;
  if (is_grouped(program_, l)) {
    const T* panels = panels_of_groups(w, drawn, team);
    return multiply_groups_back(groups_of_layer(program_, l - 1), panels, scale_of_groups(w, drawn), delta.data, B,
                                du.data, team);
  }
  if (drawn.source == Source::identity && !w.given) return diagonal(delta, B, w.scale, du);
  if (drawn.source == Source::constant && !w.given) return rank_one(delta, B, w.scale, du);
  w.kept = at(l).kept;
  const int64_t panels = panels_of(w.columns), step = share(panels, 16 * w.rows * B, team);
  team.each((panels + step - 1) / step, [&](int64_t c) {
    if (team.stopped()) return;
    table_.backward(w, c * step * 16, std::min(w.columns, (c + 1) * step * 16), B, delta.data, du.data,
                    thread_scratch(backward_scratch<T>(w.rows, B)));
  });
}

// Scales that T might not hold give their power of two to the block's exponent; rounded weights are true values.
template <class T>
Weights<T> Dense<T>::weights(int64_t l, const LayerOf& of, const Unit& drawn, Team& team, const Format& format,
                             int& shift) {
  shift = 0;
  const bool far =
      program_.exponent && !format.fraction && of.scale != 0 && (fabs(of.scale) > 0x1p30 || fabs(of.scale) < 0x1p-30);
  const double mantissa = far ? frexp(of.scale, &shift) : of.scale;
  Weights<T> w = {of.rows,
                  of.columns,
                  (T)mantissa,
                  drawn.distribution,
                  drawn.parameter,
                  program_.seed,
                  (uint32_t)of.address,
                  replica_,
                  nullptr,
                  nullptr,
                  format,
                  at(l).by_blocks};
  if (format.fraction && !format.stochastic && (drawn.source == Source::identity || drawn.source == Source::constant))
    w.scale = (T)rounded(of.scale, format);
  if (drawn.source == Source::given) w.given = given_->of(place(l));
  if (drawn.source == Source::haar) {
    if (framed_ != at(l).layer) {
      Weights<T> frame = w;
      const int64_t taps = drawn.parameter > 0 && program_.taps ? program_.taps[l - 1] : 1;
      frame.columns = w.columns / taps;
      draw_frame(frame, frames_.get(), table_, team);
      if (taps > 1) set_apart(frames_.get(), w.rows, frame.columns, taps);
    }
    framed_ = at(l).layer;
    w.given = frames_.get();
  }
  if (format.stochastic) round_by_chance(w, drawn, l, team);
  return w;
}

// Panel p of a weight that is made as a whole; `kept`: its draws, where they are known.
template <class T>
void Dense<T>::lay_panel(const Weights<T>& w, const Unit& drawn, const float* kept, int64_t p, T* all) const {
  const int64_t size = w.columns * 16;
  T* out = all + p * size;
  if (w.given) {
    std::copy_n(w.given + p * size, size, out);
  } else if (drawn.source == Source::drawn) {
    float* draws = kept ? nullptr : static_cast<float*>(thread_scratch((size_t)size * sizeof(float)));
    if (draws) table_.draw(w, p, p + 1, 0, w.columns, draws);
    for (int64_t k = 0; k < w.columns; k += 16)
      std::copy_n(kept ? kept + kept_at(w, p, k) : draws + k * 16, std::min<int64_t>(16, w.columns - k) * 16,
                  out + k * 16);
  } else {
    for (int64_t k = 0; k < w.columns; k++)
      for (int64_t lane = 0; lane < 16; lane++)
        out[k * 16 + lane] = drawn.source == Source::constant || p * 16 + lane == k ? T(1) : T(0);
  }
  for (int64_t lane = w.rows - p * 16; lane < 16; lane++)  // of the last panel there may be no such rows
    for (int64_t k = 0; k < w.columns; k++) out[k * 16 + lane] = T(0);
}

// The weight as a whole, as its format holds it: its products know no words.
template <class T> void Dense<T>::round_by_chance(Weights<T>& w, const Unit& drawn, int64_t l, Team& team) {
  const Drawn& known = at(l);
  const float* kept = known.written ? known.kept : nullptr;
  T* all = chance_.get();
  team.each(panels_of(w.rows), [&](int64_t p) {
    lay_panel(w, drawn, kept, p, all);
    table_.round_panels(w, p, p + 1, all);
  });
  w.given = all, w.scale = T(1), w.format = {};
}

// A weight in groups as a whole: it has few entries, and its product reads them one by one.
template <class T> const T* Dense<T>::panels_of_groups(const Weights<T>& w, const Unit& drawn, Team& team) {
  if (w.given && !w.format.fraction) return w.given;
  const int64_t panels = panels_of(w.rows);
  T* all = grouped_.get();
  team.each(panels, [&](int64_t p) {
    lay_panel(w, drawn, nullptr, p, all);
    T* out = all + p * w.columns * 16;
    const bool rounds = w.format.fraction && drawn.source != Source::identity && drawn.source != Source::constant;
    for (int64_t i = 0; rounds && i < w.columns * 16; i++) out[i] = (T)rounded((double)(w.scale * out[i]), w.format);
  });
  return all;
}

// Panels of a call, of which there are as many as a team can use; in fours, as tall draws come.
template <class T> int64_t Dense<T>::share(int64_t panels, int64_t work, const Team& team) const {
  int64_t parts = panels * work / longest_call + 1;
  if (team.size() > 1) parts = std::max(parts, std::min<int64_t>(4 * team.size(), panels * work / shortest_share + 1));
  const int64_t step = (panels + parts - 1) / parts;
  return (step + 3) / 4 * 4;
}

template <class T> void Dense<T>::diagonal(const Block<T>& x, int64_t B, T scale, Block<T>& y) const {
  const int64_t shared = std::min(x.n, y.n);
  for (int64_t p = 0; p < panels_of(y.n); p++)
    for (int64_t b = 0; b < B; b++)
      for (int64_t i = 0; i < 16; i++)
        y.data[(p * B + b) * 16 + i] = p * 16 + i < shared ? scale * x.data[(p * B + b) * 16 + i] : T(0);
}

template <class T> void Dense<T>::rank_one(const Block<T>& x, int64_t B, T scale, Block<T>& y) const {
  for (int64_t b = 0; b < B; b++) {
    double sum = 0;
    for (int64_t i = 0; i < x.n; i++) sum += (double)x.data[entry_at(i, b, B)];
    const T value = (T)((double)scale * sum);
    for (int64_t i = 0; i < padded(y.n); i++) y.data[entry_at(i, b, B)] = i < y.n ? value : T(0);
  }
}

template class Dense<float>;
template class Dense<double>;

template <class T> MakeLinear<T> make_dense(int64_t keep_bytes) {
  return [given = std::shared_ptr<const GivenWeights<T>>(), keep_bytes](
             const Program& program, int workers) mutable -> std::unique_ptr<Linear<T>> {
    if (!given) given = std::make_shared<const GivenWeights<T>>(program, 1);
    return std::make_unique<Dense<T>>(program, given, 1, keep_bytes / workers);
  };
}
template MakeLinear<float> make_dense(int64_t);
template MakeLinear<double> make_dense(int64_t);

}  // namespace pykernel
