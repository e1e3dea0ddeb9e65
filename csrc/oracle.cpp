// Questions: what of them is known, what is new, and what becomes of it.
// SPDX-License-Identifier: BSD-3-Clause
#include "oracle.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "coefficients.hpp"
#include "constants.hpp"
#include "draws.hpp"
#include "isa.hpp"
#include "tape.hpp"

namespace pykernel {
namespace {

constexpr int64_t group_chunks = 8;   // chunks of units whose sums go into one, before the groups' are added up
constexpr int64_t strip_rows = 64;    // rows of inner products that are one task
constexpr int64_t share_panels = 16;  // panels of a combination that are one task

template <class T> int64_t groups_of_units(int64_t units) {
  const int64_t span = group_chunks * summed_units<T>;
  return (units + span - 1) / span;
}

double power_near(double square) { return square > 0 ? ldexp(1, ilogb(square) / 2) : 1; }

template <class T> void all_nan(Block<T>& z, int64_t columns) {
  z.exponent = 0;
  for (int64_t i = 0; i < padded(z.n); i++)
    for (int64_t b = 0; b < columns; b++) z.data[entry_at(i, b, columns)] = i < z.n ? (T)NAN : T(0);
}

}  // namespace

// -- sums over units

template <class T> int64_t Desk<T>::sums_of(int64_t columns, int64_t directions, int64_t units) {
  return groups_of_units<T>(units) * std::max(directions, columns) * row_stride(columns);
}

template <class T>
Desk<T>::Desk(int64_t columns, int64_t directions, int64_t units, bool haar)
    : kernels(matrix_free_table<T>()),
      rest((size_t)block_entries(units, columns)),
      fresh(haar ? (size_t)block_entries(units, columns) : 0),
      factor(columns),
      frame(columns),
      directions(columns),
      frame_directions(columns),
      columns_(columns) {
  const int64_t stride = row_stride(columns);
  for (auto* v : {&gram, &inverse}) v->resize((size_t)(columns * stride));
  for (auto* v : {&lengths, &powers}) v->resize((size_t)stride);
  inside.resize((size_t)((directions + columns) * stride));
  for (auto* v : {&again, &seen, &lost}) v->resize((size_t)(directions * stride));
  sums_.resize((size_t)sums_of(columns, directions, units));
  packed_.resize((size_t)factor_bytes(columns, directions + columns));
}

template <class T> int64_t Desk<T>::bytes(int64_t columns, int64_t directions, int64_t units, bool haar) {
  const int64_t stride = row_stride(columns);
  return Buffer<T>::bytes(block_entries(units, columns)) * (haar ? 2 : 1) + Buffer<T>::bytes(0) +
         2 * SmallFactor::bytes(columns) + 2 * Directions::bytes(columns) + 2 * taken<double>(columns * stride) +
         2 * taken<double>(stride) + taken<double>((directions + columns) * stride) +
         3 * taken<double>(directions * stride) + taken<double>(sums_of(columns, directions, units)) +
         taken<char>(factor_bytes(columns, directions + columns));
}

template <class T>
void Desk<T>::inner(const Beside<T>& x, const Beside<T>& y, bool careful, double* out, int64_t stride, Team& team) {
  const bool triangle = x.data == y.data;
  const int64_t all = panels_of(x.units), chunk = summed_units<T> / panel_units, span = group_chunks * chunk,
                groups = groups_of_units<T>(x.units), strips = triangle ? 1 : (x.count + strip_rows - 1) / strip_rows,
                square = x.count * stride;
  if (!x.count || !y.count) return;
  team.each(groups * strips, [&](int64_t task) {
    const int64_t group = task / strips, j = task % strips * strip_rows;
    double* to = (groups == 1 ? out : sums_.data() + group * square) + j * stride;
    for (int64_t p = group * span; p < std::min(all, (group + 1) * span); p += chunk)
      kernels.inner({x.data + p * 16 * x.room + j * 16, panel_units, panel_units * x.room},
                    triangle ? x.count : std::min(strip_rows, x.count - j),
                    {y.data + p * 16 * y.room, panel_units, panel_units * y.room}, 0, y.count,
                    (int)std::min(chunk, all - p), careful, triangle, p > group * span, to, stride);
  });
  for (int64_t group = 0; groups > 1 && group < groups; group++)
    for (int64_t j = 0; j < x.count; j++)
      for (int64_t b = triangle ? j : 0; b < y.count; b++) {
        const double sum = sums_[(size_t)(group * square + j * stride + b)];
        out[j * stride + b] = group ? out[j * stride + b] + sum : sum;
      }
  for (int64_t j = 0; triangle && j < x.count; j++)
    for (int64_t b = 0; b < j; b++) out[j * stride + b] = out[b * stride + j];
}

template <class T>
void Desk<T>::combine(const Beside<T>& x, const double* F, int64_t stride, bool careful, bool add, const Beside<T>& to,
                      Team& team) {
  const int64_t panels = panels_of(to.units);
  if (!to.count) return;
  kernels.pack(F, stride, x.count, to.count, careful, packed_.data());
  team.each((panels + share_panels - 1) / share_panels, [&](int64_t task) {
    const int64_t p = task * share_panels;
    kernels.combine({x.data + p * 16 * x.room, panel_units, panel_units * x.room}, x.count, packed_.data(), to.count,
                    (int)std::min(share_panels, panels - p), careful, add, to.data + p * 16 * to.room, to.room);
  });
}

template <class T> void Desk<T>::draw(const Draws& draws, const Beside<T>& to, Team& team) {
  const int64_t panels = panels_of(to.units), groups = (panels + group_panels - 1) / group_panels;
  if (!draws.count) return;
  team.each(groups, [&](int64_t g) {
    T* drawn = (T*)thread_scratch((size_t)(columns_ * group_units) * sizeof(T));
    kernels.draw(draws, g, to.units, drawn, group_units, panel_units);
    for (int64_t p = 0; p < group_panels && g * group_panels + p < panels; p++)
      for (int64_t k = 0; k < draws.count; k++)
        memcpy(to.column(k) + (g * group_panels + p) * 16 * to.room, drawn + k * group_units + p * 16, 16 * sizeof(T));
  });
}

// -- the oracle

template <class T> Oracle<T>::Oracle(const Size& size, Desk<T>& desk) : size_(size), desk_(desk) {
  for (const bool back : {false, true}) {
    Known& known = known_[back];
    known.units = size.haar ? size.full() : back ? size.rows : size.columns;
    known.others = back ? size.columns : size.rows;
    known.room = size.directions(back);
    known.basis = Buffer<T>((size_t)block_entries(known.units, known.room));
    if (!size.haar) known.image = Buffer<T>((size_t)block_entries(known.others, known.room));
  }
}

template <class T> int64_t Oracle<T>::bytes(const Size& size) {
  int64_t bytes = 0;
  for (const bool back : {false, true}) {
    const int64_t room = size.directions(back);
    bytes += size.haar ? Buffer<T>::bytes(block_entries(size.full(), room))
                       : Buffer<T>::bytes(block_entries(size.rows, room)) +
                             Buffer<T>::bytes(block_entries(size.columns, room));
  }
  return bytes;
}

template <class T> void Oracle<T>::begin(uint64_t seed, uint32_t address, uint32_t replica) {
  seed_ = seed, address_ = address, replica_ = replica;
  for (Known& known : known_) known.count = known.asked = 0;
}

// The question's columns at lengths of about one, and these lengths squared.
template <class T> void Oracle<T>::take(const Block<T>& u, const double* gram, const Beside<T>& rest, Team& team) {
  const int64_t columns = rest.count;
  for (int64_t b = 0; b < columns; b++) {
    const double square = gram[b * (columns + 1)], power = power_near(square);
    desk_.powers[(size_t)b] = power, desk_.lengths[(size_t)b] = square / power / power;
  }
  const int64_t panels = panels_of(u.n), all = panels_of(rest.units);
  team.each((all + share_panels - 1) / share_panels, [&](int64_t task) {
    for (int64_t p = task * share_panels; p < std::min(all, (task + 1) * share_panels); p++)
      for (int64_t b = 0; b < columns; b++) {
        const T factor = (T)(1 / desk_.powers[(size_t)b]);
        T* to = rest.column(b) + p * 16 * rest.room;
        if (p >= panels)
          std::fill_n(to, 16, T(0));  // an orthogonal matrix has units there
        else
          for (int i = 0; i < 16; i++) to[i] = u.data[(p * columns + b) * 16 + i] * factor;
      }
  });
}

// Takes out of columns what lies along known directions; twice where that leaves less than half, which is enough, and
// once where it leaves as good as nothing. `inside`, a row for each direction, and the Gram matrix of what is left.
template <class T> void Oracle<T>::split(const Known& known, const Beside<T>& columns, double* inside, Team& team) {
  const int64_t count = known.count * stride_;
  for (int round = 0; round < 2; round++) {
    double* found = round ? desk_.again.data() : inside;
    if (known.count) {
      std::fill(found, found + count, 0.0);
      desk_.inner(known.directions(), columns, size_.haar, found, stride_, team);
      for (int64_t i = 0; i < count; i++) found[i] = -found[i];
      desk_.combine(known.directions(), found, stride_, false, true, columns, team);
      for (int64_t i = 0; i < count; i++) inside[i] = round ? inside[i] - found[i] : -found[i];
    }
    desk_.inner(columns, columns, true, desk_.gram.data(), stride_, team);
    const auto halved = [&](int64_t b) {
      const double part = desk_.gram[(size_t)(b * (stride_ + 1))] / std::max(desk_.lengths[(size_t)b], 1e-300);
      return part > lost_direction / 4 && part < .25;
    };
    bool again = false;
    for (int64_t b = 0; b < columns.count; b++) again |= known.count && halved(b);
    if (!again) return;
  }
}

// Orthonormal columns in a factor's directions.
template <class T>
void Oracle<T>::normalise(const SmallFactor& factor, const Directions& directions, const Beside<T>& from,
                          const Beside<T>& to, Team& team) {
  const int64_t r = factor.rank();
  double *inverse = desk_.inverse.data(), *F = desk_.gram.data();
  std::fill(inverse, inverse + r * stride_, 0.0);
  for (int64_t i = 0; i < r; i++) inverse[i * (stride_ + 1)] = 1;
  factor.solve(inverse, row_stride(r), stride_, false, team);
  std::fill(F, F + from.count * stride_, 0.0);
  for (int64_t j = 0; j < r; j++)
    for (int64_t i = 0; i < r; i++)
      F[factor.order[(size_t)j] * stride_ + i] = inverse[j * stride_ + directions.place[(size_t)i]];
  desk_.combine(from, F, stride_, true, false, to, team);
}

// New directions of a Gaussian matrix: along what was asked from the other side their images are known, and fresh
// beside it. Of columns that are no direction of their own `lost` is what is known beyond the nearest combination.
template <class T>
void Oracle<T>::learn(Known& mine, const Known& other, const Draws& draws, const Beside<T>& rest, const double* rows,
                      Team& team) {
  const int64_t r = draws.count, count = other.count;
  const Beside<T> fresh = mine.directions().from(mine.count, r), image = mine.images().from(mine.count, r);
  double *seen = desk_.seen.data(), *drawn = desk_.again.data(), *lost = desk_.lost.data();
  normalise(desk_.factor, desk_.directions, rest, fresh, team);
  desk_.draw(draws, image, team);
  mine.count += r;
  if (!count) return;
  std::fill(seen, seen + count * stride_, 0.0);
  desk_.inner(other.images(), fresh, false, seen, stride_, team);
  if (r < rest.count) {
    std::fill(lost, lost + count * stride_, 0.0);
    desk_.inner(other.images(), rest, false, lost, stride_, team);
    algebra_table().subtract(count, stride_, r, seen, stride_, 1, rows, stride_, lost, stride_);
  }
  std::fill(drawn, drawn + count * stride_, 0.0);
  desk_.inner(other.directions(), image, false, drawn, stride_, team);
  for (int64_t i = 0; i < count * stride_; i++) seen[i] -= drawn[i];
  desk_.combine(other.directions(), seen, stride_, false, true, image, team);
}

// Those of an orthogonal matrix go to a uniform frame outside all that it is known to make.
template <class T>
void Oracle<T>::learn_frame(Known& mine, Known& other, const Draws& draws, const Beside<T>& rest, Team& team) {
  const int64_t r = draws.count;
  const Beside<T> fresh = {desk_.fresh.get(), size_.full(), r, rest.count};
  normalise(desk_.factor, desk_.directions, rest, mine.directions().from(mine.count, r), team);
  desk_.draw(draws, fresh, team);
  desk_.inner(fresh, fresh, true, desk_.gram.data(), stride_, team);
  for (int64_t i = 0; i < r; i++) desk_.lengths[(size_t)i] = desk_.gram[(size_t)(i * (stride_ + 1))];
  split(other, fresh, desk_.seen.data(), team);
  desk_.frame.make_dense(desk_.gram.data(), stride_, r, team);
  ascend(desk_.frame, desk_.frame_directions);
  normalise(desk_.frame, desk_.frame_directions, fresh, other.directions().from(other.count, r), team);
  mine.count += r, other.count += r;
}

template <class T>
void Oracle<T>::ask(bool back, const Block<T>& u, const double* gram, int64_t columns, double scale, Block<T>& z,
                    Team& team) {
  Known &mine = known_[back], &other = known_[!back];
  const int64_t first = mine.asked;
  stride_ = row_stride(columns);
  mine.asked += columns;
  bool finite = true;
  for (int64_t b = 0; b < columns; b++) finite &= (bool)isfinite(gram[b * (columns + 1)]);
  if (!finite) return all_nan(z, columns);

  const Beside<T> rest = {desk_.rest.get(), mine.units, columns, columns};
  take(u, gram, rest, team);
  double* known = desk_.inside.data();
  split(mine, rest, known, team);
  desk_.factor.make(desk_.gram.data(), stride_, desk_.lengths.data(), 1, columns,
                    std::max<int64_t>(0, std::min(mine.units - mine.count, u.n)), team);
  ascend(desk_.factor, desk_.directions);
  const int64_t r = desk_.factor.rank(), before = mine.count;
  double* rows = known + before * stride_;
  rows_of(desk_.factor, desk_.directions, stride_, rows);
  for (int32_t& column : desk_.directions.columns) column += (int32_t)first;
  const Draws draws = {seed_, address_ | (uint32_t)(back ? Purpose::backward : Purpose::forward) << 24, replica_,
                       desk_.directions.columns.data(), r};
  const bool lost = !size_.haar && r < columns && other.count;
  if (size_.haar)
    learn_frame(mine, other, draws, rest, team);
  else
    learn(mine, other, draws, rest, rows, team);

  const int64_t numbers = (before + r) * stride_, lost_numbers = lost ? other.count * stride_ : 0;
  double* beyond = desk_.lost.data();
  for (const auto& [matrix, count] : {std::pair{known, numbers}, {beyond, lost_numbers}})
    for (int64_t i = 0; i < count; i += stride_)
      for (int64_t b = 0; b < columns; b++) matrix[i + b] *= desk_.powers[(size_t)b];
  const double top = std::max(largest(known, numbers), largest(beyond, lost_numbers));
  z.exponent = u.exponent + fold(scale, top, {{known, numbers}, {beyond, lost_numbers}});
  const auto add = [&](Beside<T> answers, int64_t count, const double* matrix, bool more) {
    answers.units = z.n, answers.count = count;
    desk_.combine(answers, matrix, stride_, uneven(matrix, count * stride_), more, {z.data, z.n, columns, columns},
                  team);
  };
  add(size_.haar ? other.directions() : mine.images(), before + r, known, false);
  if (lost) add(other.directions(), other.count, beyond, true);
  for (int64_t i = z.n; size_.haar && i < padded(z.n); i++)  // an orthogonal matrix has rows there
    for (int64_t b = 0; b < columns; b++) z.data[entry_at(i, b, columns)] = 0;
}

// -- those of a program

// What every shared weight is asked, by its number; of those that one layer alone uses nothing.
template <class T> struct Oracles<T>::Needs {
  Vector<typename Oracle<T>::Size> sizes;
  Vector<int64_t> addresses;
  int64_t columns, directions = 0, units = 0;
  bool haar = false;

  explicit Needs(const Program& p) : columns(largest_of(p, {true, true}).columns) {
    const int64_t runs = p.formats ? 2 : 1;  // with the same weights
    Vector<int64_t> uses((size_t)p.weight_count);
    sizes.resize(uses.size()), addresses.resize(uses.size());
    for (int64_t i = 0; i < p.counts[Table::layer]; i++) {
      const size_t w = (size_t)p.weight[i];
      uses[w]++;
      addresses[w] = p.address[i];
      sizes[w] = {p.units[i], p.columns[i], uses[w] > 1 ? uses[w] * columns * runs : 0,
                  unit_of(p.draws[p.draw[i]]).source == Source::haar};
    }
    for (const auto& size : sizes) {
      if (!size.asked) continue;
      directions = std::max({directions, size.directions(false), size.directions(true)});
      units = std::max(units, size.full());
      haar |= size.haar;
    }
  }
};

template <class T> Oracles<T>::Oracles(const Program& program) : Oracles(program, Needs(program)) {}

template <class T>
Oracles<T>::Oracles(const Program& program, const Needs& needs)
    : program_(program), desk_(needs.columns, needs.directions, needs.units, needs.haar) {
  const size_t count = needs.sizes.size();
  oracles_.reserve(count), place_.reserve(count), addresses_.reserve(count);
  for (size_t w = 0; w < count; w++) {
    place_.push_back(needs.sizes[w].asked ? (int32_t)oracles_.size() : -1);
    if (!needs.sizes[w].asked) continue;
    oracles_.emplace_back(needs.sizes[w], desk_);
    addresses_.push_back(needs.addresses[w]);
  }
}

template <class T> int64_t Oracles<T>::bytes(const Program& program) {
  const Needs needs(program);
  const int64_t count = (int64_t)needs.sizes.size();
  int64_t bytes = Desk<T>::bytes(needs.columns, needs.directions, needs.units, needs.haar) + taken<Oracle<T>>(count) +
                  taken<int32_t>(count) + taken<int64_t>(count) +
                  3 * taken<typename Oracle<T>::Size>(count);  // the last while they are made
  for (const auto& size : needs.sizes)
    if (size.asked) bytes += Oracle<T>::bytes(size);
  return bytes;
}

template <class T> void Oracles<T>::begin(int64_t replica) {
  for (size_t i = 0; i < oracles_.size(); i++)
    oracles_[i].begin(program_.seed, (uint32_t)addresses_[i], (uint32_t)replica);
}

template class Desk<float>;
template class Desk<double>;
template class Oracle<float>;
template class Oracle<double>;
template class Oracles<float>;
template class Oracles<double>;

}  // namespace pykernel
