// SPDX-License-Identifier: BSD-3-Clause
// The small algebra between the passes over units. Matrices of directions: row i belongs to the i-th direction in
// ascending order.
#include "matrix_free.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "draws.hpp"
#include "isa.hpp"
#include "tape.hpp"

namespace pykernel {
namespace {

// Directions that stick out less than this make the coefficients of nearly parallel columns large and opposite.
constexpr double thin = 0x1p-6;

int64_t chunks_of(int64_t units) { return (units + chunk_units - 1) / chunk_units; }

double largest(const double* x, int64_t n) {
  double m = 0;
  for (int64_t i = 0; i < n; i++) m = std::max(m, fabs(x[i]));
  return m;
}

// Whether float would lose some coefficient, or what it multiplies.
bool uneven(const double* x, int64_t n) {
  return std::any_of(x, x + n, [](double c) { return c != 0 && !(fabs(c) > 0x1p-80 && fabs(c) < 0x1p60); });
}

// Multiplies x by scale / 2^e and returns e, chosen so that numbers of size `top` times the factor stay in range of
// float.
int64_t fold(double scale, double top, std::initializer_list<std::pair<double*, int64_t>> matrices) {
  int e = 0;
  const double mantissa = frexp(scale, &e);
  const int h = top > 0 ? ilogb(top) : 0, shift = h < -40 || h > 40 ? h : 0;
  if (abs(e) <= 20) e = 0;
  const double factor = e ? mantissa : scale;
  for (const auto& [x, n] : matrices)
    for (int64_t i = 0; i < n; i++) x[i] = ldexp(x[i], -shift) * factor;
  return e + shift;
}

}  // namespace

namespace {
// Columns that a weight is asked for at a time: of both runs where there are formats.
int64_t asked_columns(const Program& program) { return columns_of(program) * (program.formats ? 2 : 1); }
// Sums of all chunks of the widest block, of two kinds.
size_t partial_sums(const Program& program) {
  const int64_t chunks = chunks_of(largest_width(program)), columns = asked_columns(program);
  return chunks > 1 ? (size_t)(2 * chunks * columns * columns) : 0;
}
}  // namespace

template <class T>
MatrixFreeLinear<T>::MatrixFreeLinear(const Program& program)
    : program_(program),
      kernels_(matrix_free_table<T>()),
      B_(asked_columns(program)),
      L_(program.counts[Table::layer]) {
  haar_.reserve((size_t)program.draw_count);
  for (int64_t i = 0; i < program.draw_count; i++) haar_.push_back(unit_of(program.draws[i]).source == Source::haar);
  if (program.head.loss) head_.emplace(program, std::make_shared<const GivenWeights<T>>(program, L_ + 1), L_ + 1, 0);
  if (one_input(program)) single_.emplace(program);
  ascending_.reserve((size_t)B_);
  for (int64_t b = 0; b < B_; b++) ascending_.push_back((int32_t)b);
  for (auto* v : {&out_, &own_, &inside_, &f_, &x_}) v->resize((size_t)(B_ * B_));
  partials_.reserve(partial_sums(program));
  if (!program.formats) return;
  for (auto* buffer : {&both_in_, &both_delta_, &both_out_})
    *buffer = Buffer<T>((size_t)block_entries(largest_width(program), B_));
  both_gram_.resize((size_t)(B_ * B_)), both_delta_gram_.resize((size_t)(B_ * B_));
}

template <class T> int64_t MatrixFreeLinear<T>::bytes(const Program& program) {
  const int64_t B = asked_columns(program), first = program.counts[Table::layer] + 1;
  const int64_t both =
      program.formats ? 3 * Buffer<T>::bytes(block_entries(largest_width(program), B)) + 2 * taken<double>(B * B) : 0;
  return both + taken<char>(program.draw_count) + taken<int32_t>(B) + 5 * taken<double>(B * B) +
         3 * SmallFactor::bytes(B) + taken<double>((int64_t)partial_sums(program)) +
         (program.head.loss ? 256 + GivenWeights<T>::bytes(program, first) + Dense<T>::bytes(program, first) : 0) +
         (one_input(program) ? SingleChain<T>::bytes(program) : 0);
}

template <class T> bool MatrixFreeLinear<T>::alone(int64_t replica, const Rows& rows, int64_t index, Team& team) {
  return single_ && single_->replica(replica, rows, index, team);
}

template <class T> void MatrixFreeLinear<T>::begin(int64_t replica, Team& team) {
  replica_ = (uint32_t)replica;
  if (head_) head_->begin(replica, team);
}

// A unit and input take as long as 64 multiply-adds of a dense product, and a further 4 for each other input (Zen 3).
template <class T> double MatrixFreeLinear<T>::work(int64_t layer) const {
  const int64_t units = std::max(program_.units[layer - 1], program_.columns[layer - 1]);
  return units > chunk_units ? (double)units * (double)B_ * (double)(64 + 4 * B_) : 0;
}

template <class T> void MatrixFreeLinear<T>::pass(int64_t units, Team& team, const Pass& body) {
  const int64_t bytes = kernels_.room(B_);
  if (team.stopped()) return;
  team.each(chunks_of(units), [&](int64_t chunk) { body(chunk, nullptr, nullptr, thread_scratch((size_t)bytes)); });
}

// Like pass, with (B, B) sums over the chunks, added in order.
template <class T>
void MatrixFreeLinear<T>::sum(int64_t units, Team& team, double* out, double* own, const Pass& body) {
  const int64_t bytes = kernels_.room(B_), count = chunks_of(units), square = B_ * B_;
  if (team.stopped()) return;
  if (count == 1) return body(0, out, own, thread_scratch((size_t)bytes));
  partials_.assign((size_t)(2 * count * square), 0.0);
  team.each(count, [&](int64_t chunk) {
    double* mine = partials_.data() + 2 * chunk * square;
    body(chunk, mine, own ? mine + square : nullptr, thread_scratch((size_t)bytes));
  });
  for (int64_t i = 0; i < square; i++) {
    double a = 0, b = 0;
    for (int64_t c = 0; c < count; c++)
      a += partials_[(size_t)(2 * c * square + i)], b += partials_[(size_t)((2 * c + 1) * square + i)];
    if (out) out[i] = a;
    if (own) own[i] = b;
  }
}

template <class T> Draws MatrixFreeLinear<T>::draws(Purpose purpose, int64_t layer, const SmallFactor& factor) const {
  return {program_.seed, (uint32_t)program_.address[layer - 1] | (uint32_t)purpose << 24, replica_,
          factor.sorted.data(), (int64_t)factor.sorted.size()};
}

// The live rows of a factor, in ascending order of their directions.
template <class T> Factor MatrixFreeLinear<T>::rows(const SmallFactor& factor, double* out) const {
  for (size_t i = 0; i < factor.sorted.size(); i++)
    std::copy_n(&factor.rows[(size_t)(factor.sorted[i] * B_)], B_, out + (int64_t)i * B_);
  return {out, ascending_.data(), (int64_t)factor.sorted.size()};
}

template <class T>
void MatrixFreeLinear<T>::forward(int64_t layer, const Block<T>& u, const double* gram, Block<T>& z, Team& team,
                                  const Format& format) {
  if (layer > L_) return head_->forward(layer, u, gram, z, team, format);
  const bool haar = is_haar(layer);
  const int64_t N = program_.columns[layer - 1], M = program_.units[layer - 1], full = haar ? std::max(M, N) : M;
  input_.make(gram, gram, B_ + 1, B_, N);
  const Draws g = draws(Purpose::forward, layer, input_);
  const Factor F = rows(input_, f_.data());
  if (haar && F.count) {
    sum(full, team, nullptr, own_.data(), [&](int64_t chunk, double*, double* own, void* room) {
      kernels_.drawn(g, chunk, M, full, nullptr, z.data, B_, nullptr, own, true, room);
    });
    frame_.make_dense(own_.data(), B_, F.count);
    frame_.solve(f_.data(), B_, false);
  }
  z.exponent =
      u.exponent + fold(program_.scale[layer - 1], largest(f_.data(), F.count * B_), {{f_.data(), F.count * B_}});
  if (haar && F.count) {
    const Factor none = {nullptr, nullptr, 0};
    const bool thin_frame = frame_.smallest < thin;
    pass(M, team, [&](int64_t chunk, double*, double*, void* room) {
      kernels_.combine(u.data, none, F, chunk, M, z.data, B_, thin_frame, room);
    });
  } else {
    pass(M, team,
         [&](int64_t chunk, double*, double*, void* room) { kernels_.expand(g, F, chunk, M, z.data, B_, room); });
  }
}

template <class T>
void MatrixFreeLinear<T>::backward(int64_t layer, const Block<T>& u, const double* gram, const Block<T>& delta,
                                   const double* delta_gram, Block<T>& du, Team& team, const Format& format) {
  if (layer > L_) return head_->backward(layer, u, gram, delta, delta_gram, du, team, format);
  const bool haar = is_haar(layer);
  const int64_t N = program_.columns[layer - 1], M = program_.units[layer - 1], wide = std::max(M, N);
  input_.make(gram, gram, B_ + 1, B_, N);
  const int64_t r = (int64_t)input_.order.size();

  // Nearly dependent inputs divide what is added up here by little, and a frame is subtracted from it.
  const bool careful = haar || input_.smallest < thin;

  // inside: G^T delta, or U^T delta for the frame U that G becomes
  const Draws g = draws(Purpose::forward, layer, input_);
  if (r)
    sum(haar ? wide : M, team, inside_.data(), haar ? own_.data() : nullptr,
        [&](int64_t chunk, double* out, double* own, void* room) {
          kernels_.drawn(g, chunk, M, haar ? wide : M, delta.data, nullptr, B_, out, own, careful, room);
        });
  std::copy_n(delta_gram, B_ * B_, f_.data());
  if (haar && r) {
    frame_.make_dense(own_.data(), B_, r);
    frame_.solve(inside_.data(), B_, true);
    for (int64_t i = 0; i < r; i++)
      for (int64_t b = 0; b < B_; b++)
        for (int64_t c = 0; c < B_; c++)
          f_[(size_t)(b * B_ + c)] -= inside_[(size_t)(i * B_ + b)] * inside_[(size_t)(i * B_ + c)];
  }
  cotangent_.make(f_.data(), delta_gram, B_ + 1, B_, haar ? std::min(M, wide - r) : M);

  double thinnest = input_.smallest;

  // E: what multiplies H; along: A^T H, then Q^T H
  const Draws h = draws(Purpose::backward, layer, cotangent_);
  Factor E = rows(cotangent_, f_.data());
  const int64_t s = E.count;
  Vector<double>& along = x_;
  if (s)
    sum(haar ? wide : N, team, out_.data(), haar ? own_.data() : nullptr,
        [&](int64_t chunk, double* out, double* own, void* room) {
          kernels_.drawn(h, chunk, N, haar ? wide : N, u.data, du.data, B_, out, own, careful, room);
        });
  for (int64_t i = 0; i < r; i++)
    for (int64_t j = 0; j < s; j++) along[(size_t)(i * s + j)] = out_[(size_t)(j * B_ + input_.order[(size_t)i])];
  input_.solve(along.data(), s, true);
  if (haar && s) {
    for (int64_t i = 0; i < r; i++)
      for (int64_t j = 0; j < s; j++)
        for (int64_t k = 0; k < s; k++)
          own_[(size_t)(j * B_ + k)] -= along[(size_t)(i * s + j)] * along[(size_t)(i * s + k)];
    frame_.make_dense(own_.data(), B_, s);
    frame_.solve(f_.data(), B_, false);
    thinnest = std::min(thinnest, frame_.smallest);
  }

  // X = R^-1 (inside - Q^T H E)
  for (int64_t i = 0; i < r; i++) {
    const int64_t row =
        std::lower_bound(input_.sorted.begin(), input_.sorted.end(), input_.order[(size_t)i]) - input_.sorted.begin();
    double* x = out_.data() + i * B_;
    std::copy_n(inside_.data() + row * B_, B_, x);
    for (int64_t j = 0; j < s; j++)
      for (int64_t b = 0; b < B_; b++) x[b] -= along[(size_t)(i * s + j)] * E.entries[j * B_ + b];
  }
  input_.solve(out_.data(), B_, false);
  const Factor X = {out_.data(), input_.order.data(), r};
  double top =
      largest(f_.data(), s * B_);  // row by row: where inputs differ much in size, a small one has large coefficients
  for (int64_t i = 0; i < r; i++)
    top = std::max(top, largest(out_.data() + i * B_, B_) * sqrt(gram[input_.order[(size_t)i] * (B_ + 1)]));
  du.exponent = delta.exponent + fold(program_.scale[layer - 1], top, {{f_.data(), s * B_}, {out_.data(), r * B_}});
  const bool in_double = thinnest < thin || uneven(f_.data(), s * B_) || uneven(out_.data(), r * B_);
  pass(N, team, [&](int64_t chunk, double*, double*, void* room) {
    kernels_.combine(u.data, X, E, chunk, N, du.data, B_, in_double, room);
  });
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
  sum(n, team, gram.data(), nullptr, [&](int64_t chunk, double* out, double*, void* memory) {
    kernels_.inner(room.get(), room.get(), chunk, n, B_, out, memory);
  });
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
void MatrixFreeLinear<T>::forward_both(int64_t layer, const typename Linear<T>::Forward (&asked)[2], Team& team) {
  const auto& [plain, stored] = asked;
  if (layer > L_) return Linear<T>::forward_both(layer, asked, team);
  bool lost = false;
  const Block<T> u = join(plain.u, stored.u, both_in_, team, both_gram_, lost);
  Block<T> z = {both_out_.get(), plain.z.n, 0, 0};
  forward(layer, u, both_gram_.data(), z, team, stored.format);
  part(z, plain.z, stored.z, lost);
  plain.z.exponent = plain.u.exponent + z.exponent, stored.z.exponent = stored.u.exponent + z.exponent;
}

template <class T>
void MatrixFreeLinear<T>::backward_both(int64_t layer, const typename Linear<T>::Backward (&asked)[2], Team& team) {
  const auto& [plain, stored] = asked;
  if (layer > L_) return Linear<T>::backward_both(layer, asked, team);
  bool unknown = false, lost = false;
  const Block<T> u = join(plain.u, stored.u, both_in_, team, both_gram_, unknown);
  const Block<T> delta = join(plain.delta, stored.delta, both_delta_, team, both_delta_gram_, lost);
  Block<T> du = {both_out_.get(), plain.du.n, 0, 0};
  backward(layer, u, both_gram_.data(), delta, both_delta_gram_.data(), du, team, stored.format);
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
      if (of.address != l) throw std::invalid_argument("matrix_free needs a weight of its own in every layer");
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
