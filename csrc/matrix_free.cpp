// The small algebra between the passes over units. Matrices of directions: row i belongs to the i-th direction in
// ascending order. SPDX-License-Identifier: BSD-3-Clause
#include "matrix_free.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "coefficients.hpp"
#include "draws.hpp"
#include "isa.hpp"
#include "tape.hpp"

namespace pykernel {
namespace {

// Directions that stick out less than this make the coefficients of nearly parallel columns large and opposite.
constexpr double thin = 0x1p-6;

// Where the products of an input's and a gradient's smallest entries may be lost in float.
constexpr double faint = 0x1p-90;

// The length of the shortest column that is not zero.
double shortest(const double* gram, int64_t B) {
  double least = INFINITY;
  for (int64_t b = 0; b < B; b++)
    if (const double square = gram[b * (B + 1)]; square > 0) least = std::min(least, square);
  return sqrt(least);
}

// The most columns that a weight is asked for at a time: of both runs where there are formats.
int64_t asked_columns(const Program& program) {
  return largest_of(program, {true, true}).columns * (program.formats ? 2 : 1);
}
// Entries of the largest block that a weight is asked for.
int64_t asked_entries(const Program& program) {
  return largest_of(program, {true, true}).block * (program.formats ? 2 : 1);
}

// A task's memory, a group of units of all columns.
template <class T> size_t group_bytes(int64_t columns) { return (size_t)(columns * group_units) * sizeof(T); }

// Columns that make a group of units worth a team's while.
constexpr int64_t many_columns = 32;
int64_t groups_at_once(int64_t B) { return B < many_columns ? 4 : 1; }

// What the next group is written to, or read from soon, comes near while draws keep the processor busy.
template <int written, class T> void fetch(const T* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / (int64_t)sizeof(T)) __builtin_prefetch(from + i, written, 2);
}

}  // namespace

template <class T>
MatrixFreeLinear<T>::MatrixFreeLinear(const Program& program)
    : program_(program),
      kernels_(matrix_free_table<T>()),
      L_(program.counts[Table::layer]),
      B_(asked_columns(program)),
      stride_(row_stride(B_)),
      inner_(B_, largest_of(program, {true, true}).width),
      input_(B_),
      cotangent_(B_),
      frame_(B_),
      input_directions_(B_),
      cotangent_directions_(B_) {
  haar_.reserve((size_t)program.draw_count);
  for (int64_t i = 0; i < program.draw_count; i++) haar_.push_back(unit_of(program.draws[i]).source == Source::haar);
  input_gram_.resize((size_t)(B_ * B_));
  for (auto* v : {&own_, &inside_, &along_, &f_, &x_}) v->resize((size_t)(B_ * stride_));
  factor_.resize((size_t)factor_bytes(B_, B_));
  if (program.head.loss) head_.emplace(program, std::make_shared<const GivenWeights<T>>(program, L_ + 1), L_ + 1, 0);
  if (one_input(program)) single_.emplace(program);
  if (program.weight_count) oracles_.emplace(program);
  if (!program.formats) return;
  for (auto* buffer : {&both_in_, &both_delta_, &both_out_}) *buffer = Buffer<T>((size_t)asked_entries(program));
  both_gram_.resize((size_t)(B_ * B_)), both_delta_gram_.resize((size_t)(B_ * B_));
}

template <class T> int64_t MatrixFreeLinear<T>::bytes(const Program& program) {
  const int64_t B = asked_columns(program), first = program.counts[Table::layer] + 1;
  const int64_t both = program.formats ? 3 * Buffer<T>::bytes(asked_entries(program)) + 2 * taken<double>(B * B) : 0;
  return both + taken<char>(program.draw_count) + 2 * Directions::bytes(B) + taken<double>(B * B) +
         5 * taken<double>(B * row_stride(B)) + taken<char>(factor_bytes(B, B)) + 3 * SmallFactor::bytes(B) +
         InnerProducts<T>::bytes(B, largest_of(program, {true, true}).width) +
         (program.head.loss ? 256 + GivenWeights<T>::bytes(program, first) + Dense<T>::bytes(program, first) : 0) +
         (one_input(program) ? SingleChain<T>::bytes(program) : 0) +
         (program.weight_count ? Oracles<T>::bytes(program) : 0);
}
template <class T> int64_t MatrixFreeLinear<T>::scratch_bytes(const Program& program) {
  const int64_t columns = asked_columns(program);
  return std::max((int64_t)group_bytes<T>(columns), InnerProducts<T>::scratch_bytes(columns));
}

template <class T> bool MatrixFreeLinear<T>::alone(int64_t replica, const Rows& rows, int64_t index, Team& team) {
  return single_ && single_->replica(replica, rows, index, team);
}

template <class T> void MatrixFreeLinear<T>::begin(int64_t replica, Team& team) {
  replica_ = (uint32_t)replica;
  if (head_) head_->begin(replica, team);
  if (oracles_) oracles_->begin(replica);
}

template <class T> void MatrixFreeLinear<T>::ask(int64_t columns) {
  B_ = columns;
  stride_ = row_stride(columns);
}

// A unit and input take as long as 64 multiply-adds of a dense product, and a further 4 for each input that is asked
// with it (Zen 3).
template <class T> double MatrixFreeLinear<T>::work(int64_t layer, int64_t columns) const {
  const int64_t units = std::max(program_.units[layer - 1], program_.columns[layer - 1]);
  const int64_t B = columns * (program_.formats ? 2 : 1);
  if (const int64_t asked = oracles_ ? oracles_->asked(layer) : 0)
    return (double)units * (double)B * (double)(64 + 4 * asked);
  return units > chunk_units || B >= many_columns ? (double)units * (double)B * (double)(64 + 4 * B) : 0;
}

// In double precision: rank is read from it.
template <class T> bool MatrixFreeLinear<T>::gram(const Block<T>& x, int64_t columns, double* out, Team& team) {
  inner_({x.data, {}, columns}, nullptr, x.n, true, out, columns, team);
  return true;
}

// -- small matrices: row i belongs to the i-th direction in ascending order, or in the order in which they were taken

// Layers that read one block share its factor, and so do the passes over the last of them.
template <class T> void MatrixFreeLinear<T>::factorise_input(const double* gram, int64_t units, Team& team) {
  if (units == input_units_ && B_ == input_columns_ &&
      !memcmp(gram, input_gram_.data(), sizeof(double) * (size_t)(B_ * B_)))
    return;
  input_.make(gram, B_, gram, B_ + 1, B_, units, team);
  ascend(input_, input_directions_);
  input_units_ = units, input_columns_ = B_;
  std::copy_n(gram, B_ * B_, input_gram_.data());
}

// Of one row for each column those of directions, as they were taken.
template <class T>
void MatrixFreeLinear<T>::take_order(const SmallFactor& factor, const double* rows, int64_t columns,
                                     double* out) const {
  for (size_t i = 0; i < factor.order.size(); i++)
    std::copy_n(rows + factor.order[i] * stride_, columns, out + (int64_t)i * stride_);
}

// Zero beyond the columns, in so many rows.
template <class T> void MatrixFreeLinear<T>::clear_rests(int64_t rows, Vector<double>& matrix) const {
  for (int64_t i = 0; i < rows; i++) std::fill_n(matrix.data() + i * stride_ + B_, stride_ - B_, 0.0);
}

// from -= x^T x, (columns, columns)
template <class T>
void MatrixFreeLinear<T>::subtract_square(const double* x, int64_t rows, int64_t columns, double* from) const {
  algebra_table().subtract(columns, row_stride(columns), rows, x, 1, stride_, x, stride_, from, stride_);
}

// -- over units

template <class T>
Draws MatrixFreeLinear<T>::draws(Purpose purpose, int64_t layer, const Directions& directions) const {
  return {program_.seed, (uint32_t)program_.address[layer - 1] | (uint32_t)purpose << 24, replica_,
          directions.columns.data(), (int64_t)directions.columns.size()};
}

// out = G F; `next`, of as many columns and units, is read afterwards, if given.
template <class T>
void MatrixFreeLinear<T>::expand(const Draws& draws, const double* F, bool careful, int64_t units, T* out,
                                 const T* next, Team& team) {
  const int64_t groups = (units + group_units - 1) / group_units, each = groups_at_once(B_);
  kernels_.pack(F, stride_, draws.count, B_, careful, factor_.data());
  team.each((groups + each - 1) / each, [&](int64_t task) {
    T* room = (T*)thread_scratch(group_bytes<T>(B_));
    for (int64_t g = task * each; g < std::min(groups, (task + 1) * each); g++) {
      const int64_t panels = std::min<int64_t>(group_panels, panels_of(units) - g * group_panels),
                    at = g * group_units * B_, entries = panels * panel_units * B_;
      fetch<1>(out + at, entries);
      if (next) fetch<0>(next + at, entries);
      kernels_.draw(draws, g, units, room, panel_units, panel_units * draws.count);
      kernels_.combine({room, panel_units, panel_units * draws.count}, draws.count, factor_.data(), B_, (int)panels,
                       careful, false, out + at, B_);
    }
  });
}

// to += u X
template <class T>
void MatrixFreeLinear<T>::add_combination(const Block<T>& u, const double* X, bool careful, T* to, Team& team) {
  const int64_t panels = panels_of(u.n), each = groups_at_once(B_) * group_panels;
  kernels_.pack(X, stride_, B_, B_, careful, factor_.data());
  team.each((panels + each - 1) / each, [&](int64_t task) {
    const int64_t at = task * each * panel_units * B_;
    kernels_.combine({u.data + at, panel_units, panel_units * B_}, B_, factor_.data(), B_,
                     (int)std::min(each, panels - task * each), careful, true, to + at, B_);
  });
}

template <class T>
void MatrixFreeLinear<T>::forward(int64_t layer, int64_t columns, const Block<T>& u, const double* gram, Block<T>& z,
                                  Team& team, const Format& format) {
  if (layer > L_) return head_->forward(layer, columns, u, gram, z, team, format);
  if (team.stopped()) return;
  if (Oracle<T>* shared = oracle(layer))
    return shared->ask(false, u, gram, columns, program_.scale[layer - 1], z, team);
  ask(columns);
  const bool haar = is_haar(layer);
  const int64_t N = program_.columns[layer - 1], M = program_.units[layer - 1];
  factorise_input(gram, N, team);
  const int64_t r = input_.rank();
  const Draws g = draws(Purpose::forward, layer, input_directions_);
  rows_of(input_, input_directions_, stride_, f_.data());
  if (haar && r) {
    inner_({nullptr, g, r}, nullptr, std::max(M, N), true, own_.data(), stride_, team);
    frame_.make_dense(own_.data(), stride_, r, team);
    frame_.solve(f_.data(), stride_, stride_, false, team);
  }
  z.exponent =
      u.exponent + fold(program_.scale[layer - 1], largest(f_.data(), r * stride_), {{f_.data(), r * stride_}});
  expand(g, f_.data(), haar && frame_.smallest < thin, M, z.data, nullptr, team);
}

template <class T>
void MatrixFreeLinear<T>::backward(int64_t layer, int64_t columns, const Block<T>& u, const double* gram,
                                   const Block<T>& delta, const double* delta_gram, Block<T>& du, Team& team,
                                   const Format& format) {
  if (layer > L_) return head_->backward(layer, columns, u, gram, delta, delta_gram, du, team, format);
  if (team.stopped()) return;
  if (Oracle<T>* shared = oracle(layer))
    return shared->ask(true, delta, delta_gram, columns, program_.scale[layer - 1], du, team);
  ask(columns);
  const bool haar = is_haar(layer);
  const int64_t N = program_.columns[layer - 1], M = program_.units[layer - 1], wide = std::max(M, N);
  factorise_input(gram, N, team);
  const int64_t r = input_.rank();
  const Side<T> input = {u.data, {}, B_}, gradient = {delta.data, {}, B_}, result = {du.data, {}, B_};

  // Nearly dependent inputs divide what is added up here by little, and a frame is subtracted from it.
  const bool careful = haar || input_.smallest < thin || shortest(gram, B_) * shortest(delta_gram, B_) < faint;

  // inside: G^T delta, or U^T delta for the frame U that G becomes
  const Side<T> g = {nullptr, draws(Purpose::forward, layer, input_directions_), r};
  clear_rests(r, inside_);
  if (r) inner_(g, &gradient, M, careful, inside_.data(), stride_, team);
  const double* rest = delta_gram;  // of the gradient's Gram matrix
  int64_t rest_stride = B_;
  if (haar && r) {
    for (int64_t b = 0; b < B_; b++) std::copy_n(delta_gram + b * B_, B_, f_.data() + b * stride_);
    rest = f_.data(), rest_stride = stride_;
    inner_(g, nullptr, wide, true, own_.data(), stride_, team);
    frame_.make_dense(own_.data(), stride_, r, team);
    frame_.solve(inside_.data(), stride_, stride_, true, team);
    subtract_square(inside_.data(), r, B_, f_.data());
  }
  cotangent_.make(rest, rest_stride, delta_gram, B_ + 1, B_, haar ? std::min(M, wide - r) : M, team);
  ascend(cotangent_, cotangent_directions_);
  const int64_t s = cotangent_.rank();
  double thinnest = input_.smallest;

  // E: what multiplies H
  const Side<T> h = {nullptr, draws(Purpose::backward, layer, cotangent_directions_), s};
  rows_of(cotangent_, cotangent_directions_, stride_, f_.data());
  if (haar && s) {  // H without its part along the input, made a frame
    inner_(h, nullptr, wide, true, own_.data(), stride_, team);
    std::fill(along_.begin(), along_.end(), 0.0);
    inner_(input, &h, N, true, x_.data(), stride_, team);
    take_order(input_, x_.data(), s, along_.data());
    input_.solve(along_.data(), row_stride(s), stride_, true, team);
    subtract_square(along_.data(), r, s, own_.data());
    frame_.make_dense(own_.data(), stride_, s, team);
    frame_.solve(f_.data(), stride_, stride_, false, team);
    thinnest = std::min(thinnest, frame_.smallest);
  }
  const double top = std::max(largest(f_.data(), s * stride_), largest(inside_.data(), r * stride_));
  du.exponent =
      delta.exponent + fold(program_.scale[layer - 1], top, {{f_.data(), s * stride_}, {inside_.data(), r * stride_}});
  expand(h.draws, f_.data(), (haar && thinnest < thin) || uneven(f_.data(), s * stride_), N, du.data, u.data, team);
  if (!r) return;

  // X = R^-1 (inside - Q^T H E), Q^T = R^-T u^T; its rows in the order of columns
  inner_(input, &result, N, careful, x_.data(), stride_, team);
  clear_rests(r, along_);
  take_order(input_, x_.data(), B_, along_.data());
  input_.solve(along_.data(), stride_, stride_, true, team);
  for (int64_t i = 0; i < r; i++) {
    double *to = along_.data() + input_directions_.place[(size_t)i] * stride_, *from = inside_.data() + i * stride_;
    for (int64_t b = 0; b < B_; b++) to[b] = from[b] - to[b];
  }
  input_.solve(along_.data(), stride_, stride_, false, team);
  if (r < B_) std::fill_n(x_.begin(), B_ * stride_, 0.0);
  for (int64_t i = 0; i < r; i++)
    std::copy_n(along_.data() + i * stride_, stride_, x_.data() + input_.order[(size_t)i] * stride_);
  add_combination(u, x_.data(), thinnest < thin || uneven(x_.data(), B_ * stride_), du.data, team);
}

// Mantissas side by side, since W acts on each column alone, and their Gram matrix. What is inf or nan is lost: its
// columns count as zero here, and as nan in the answer.
template <class T>
Block<T> MatrixFreeLinear<T>::join(const Block<T>& plain, const Block<T>& stored, const Buffer<T>& room, Team& team,
                                   Vector<double>& gram, bool& lost) {
  const int64_t half = B_ / 2, n = plain.n;
  const auto lay = [&](const Block<T>& from, int64_t b0) {
    for (int64_t p = 0; p < panels_of(n); p++)
      memcpy(room.get() + (p * B_ + b0) * 16, from.data + p * half * 16, sizeof(T) * (size_t)(half * 16));
  };
  lay(plain, 0), lay(stored, half);
  const auto is_lost = [](T x) { return !isfinite(x); };
  const int64_t entries = block_entries(n, half);
  if (std::any_of(stored.data, stored.data + entries, is_lost)) {
    lost = true;
    for (int64_t p = 0; p < panels_of(n); p++)
      memset(room.get() + (p * B_ + half) * 16, 0, sizeof(T) * (size_t)(half * 16));
  }
  inner_({room.get(), {}, B_}, nullptr, n, true, gram.data(), B_, team);
  return {room.get(), n, 0, 1};
}

template <class T>
void MatrixFreeLinear<T>::part(const Block<T>& both, Block<T>& plain, Block<T>& stored, bool lost) const {
  const int64_t half = B_ / 2;
  const auto take = [&](Block<T>& to, int64_t b0) {
    for (int64_t p = 0; p < panels_of(both.n); p++)
      memcpy(to.data + p * half * 16, both.data + (p * B_ + b0) * 16, sizeof(T) * (size_t)(half * 16));
  };
  take(plain, 0), take(stored, half);
  for (int64_t i = 0; lost && i < both.n; i++)
    for (int64_t b = 0; b < half; b++) stored.data[entry_at(i, b, half)] = (T)NAN;
}

template <class T>
void MatrixFreeLinear<T>::forward_both(int64_t layer, int64_t columns, const typename Linear<T>::Forward (&asked)[2],
                                       Team& team) {
  const auto& [plain, stored] = asked;
  if (layer > L_ || oracle(layer)) return Linear<T>::forward_both(layer, columns, asked, team);
  ask(2 * columns);
  bool lost = false;
  const Block<T> u = join(plain.u, stored.u, both_in_, team, both_gram_, lost);
  Block<T> z = {both_out_.get(), plain.z.n, 0, 0};
  forward(layer, 2 * columns, u, both_gram_.data(), z, team, stored.format);
  part(z, plain.z, stored.z, lost);
  plain.z.exponent = plain.u.exponent + z.exponent, stored.z.exponent = stored.u.exponent + z.exponent;
}

template <class T>
void MatrixFreeLinear<T>::backward_both(int64_t layer, int64_t columns, const typename Linear<T>::Backward (&asked)[2],
                                        Team& team) {
  const auto& [plain, stored] = asked;
  if (layer > L_ || oracle(layer)) return Linear<T>::backward_both(layer, columns, asked, team);
  ask(2 * columns);
  bool unknown = false, lost = false;
  const Block<T> u = join(plain.u, stored.u, both_in_, team, both_gram_, unknown);
  const Block<T> delta = join(plain.delta, stored.delta, both_delta_, team, both_delta_gram_, lost);
  Block<T> du = {both_out_.get(), plain.du.n, 0, 0};
  backward(layer, 2 * columns, u, both_gram_.data(), delta, both_delta_gram_.data(), du, team, stored.format);
  part(du, plain.du, stored.du, lost);
  plain.du.exponent = plain.delta.exponent + du.exponent, stored.du.exponent = stored.delta.exponent + du.exponent;
}

template <class T> MakeLinear<T> make_matrix_free() {
  return [](const Program& program, int) -> std::unique_ptr<Linear<T>> {
    const int64_t L = program.counts[Table::layer];
    for (int64_t l = 1; l <= L; l++) {
      const LayerOf of = layer_of(program, l);
      if (of.given || (strcmp(of.draw.distribution, "normal") && strcmp(of.draw.distribution, "haar")))
        throw std::invalid_argument("matrix_free needs distribution \"normal\" or \"haar\"");
      if (program.taps && of.draw.parameter > 0 && unit_of(of.draw).source == Source::haar)
        throw std::invalid_argument("matrix_free has no delta-orthogonal weights");
      if (groups_of(program, l - 1) > 1) throw std::invalid_argument("matrix_free has no groups");
      if (of.address > L || weight_of(program, of.address) != weight_of(program, l))
        throw std::invalid_argument(
            "matrix_free needs the address of a weight to be the number of a layer that uses it");
    }
    if (program.clip_value > 0 || !program.exponent)
      throw std::invalid_argument("matrix_free has no clip_value and needs exponents");
    return std::make_unique<MatrixFreeLinear<T>>(program);
  };
}
template MakeLinear<float> make_matrix_free();
template MakeLinear<double> make_matrix_free();

template class MatrixFreeLinear<float>;
template class MatrixFreeLinear<double>;

}  // namespace pykernel
