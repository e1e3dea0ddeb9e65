// Norms of whole blocks: by kernels where no exponent is carried, in scalar double where one is.
// SPDX-License-Identifier: BSD-3-Clause
#include "norms.hpp"

#include <math.h>

#include <algorithm>

#include "exponents.hpp"
#include "isa.hpp"

namespace pykernel {
namespace {

// What is normalised over, where z carries an exponent, in scalar double. With e > 0 every group has a power p of its
// own, so that the squares of none are lost beside a larger one's: the factor is 2^-(e + p) / sqrt(variance + eps
// 2^-2(e + p)), the variance of mantissas times 2^-p. A group of zeros has p = -e.
template <class T> class FarGroups {
 public:
  FarGroups(const NormRow& norm, const Block<T>& z, int64_t columns)
      : count(norm.kind == batch_norm ? z.n : columns),
        members(norm.kind == batch_norm ? columns : z.n),
        up(ldexp(1., z.exponent > 0 ? 0 : (int)std::max<int64_t>(z.exponent, -2000))),
        rest((size_t)members),
        z_(z),
        columns_(columns),
        over_columns_(norm.kind == batch_norm),
        centred_(norm.kind != rms_norm),
        eps_(norm.eps) {}

  int64_t at(int64_t group, int64_t member) const {
    return over_columns_ ? entry_at(group, member, columns_) : entry_at(member, group, columns_);
  }
  // power, rest and factor of a group
  void read(int64_t group) {
    double mean = 0, square = 0, top = 0;
    for (int64_t m = 0; m < members && centred_; m++) mean += (double)z_.data[at(group, m)];
    mean /= (double)members;
    for (int64_t m = 0; m < members; m++) {
      rest[(size_t)m] = (double)z_.data[at(group, m)] - mean;
      top = std::max(top, fabs(rest[(size_t)m]));
    }
    const int64_t e = std::max<int64_t>(z_.exponent, 0);
    power = e == 0 ? 0 : top > 0 ? std::max<int64_t>(ilogb(top), -e) : -e;
    for (double& x : rest) {
      x = scaled<double>(x, -power);
      square += x * x;
    }
    factor = 1 / ::sqrt(square / (double)members * up * up + scaled<double>(eps_, -2 * (e + power)));
  }
  // mean of g, and of g times Norm(z)
  void project(int64_t group, const T* g, double& mean, double& product) const {
    mean = product = 0;
    for (int64_t m = 0; m < members; m++) {
      const double gm = (double)g[at(group, m)];
      mean += gm;
      product += gm * rest[(size_t)m] * factor * up;
    }
    mean = centred_ ? mean / (double)members : 0;
    product /= (double)members;
  }

  const int64_t count, members;
  const double up;      // 2^e where e is below zero
  Vector<double> rest;  // mantissas without their mean, times 2^-power
  double factor = 0;
  int64_t power = 0;

 private:
  const Block<T>& z_;
  const int64_t columns_;
  const bool over_columns_, centred_;
  const double eps_;
};

}  // namespace

template <class T>
Norms<T>::Norms(int64_t columns, int64_t largest_width, Layer<T>& layer)
    : layer_(layer), column_((size_t)(2 * columns * (chunks_of(largest_width) + 1))) {
  for (auto* v : {&mean_, &factor_, &first_, &second_}) v->resize((size_t)columns);
}

template <class T> int64_t Norms<T>::bytes(int64_t columns, int64_t largest_width) {
  return taken<double>(2 * columns * (chunks_of(largest_width) + 1)) + 4 * taken<T>(columns) +
         taken<double>(std::max(largest_width, columns));  // the last while a norm of a far block is taken
}

template <class T> void Norms<T>::normalise(const NormRow& norm, const Block<T>& z, Block<T>& h) {
  h.n = z.n, h.exponent = 0;
  if (z.exponent) {
    normalise_far(norm, z, h);
    return;
  }
  if (norm.kind == batch_norm) {
    layer_.chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      layer_.kernels.batch_norm(z.data + o, h.data + o, units, layer_.columns, (T)norm.eps);
    });
  } else {
    column_statistics(norm, z);
    layer_.chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      layer_.kernels.column_norm(z.data + o, h.data + o, units, layer_.columns, mean_.data(), factor_.data());
    });
  }
  h.largest = 1;
}

// mean_ and factor_ of every column, z's exponent zero
template <class T> void Norms<T>::column_statistics(const NormRow& norm, const Block<T>& z) {
  const int64_t count = chunks_of(z.n);
  double* total = column_.data() + 2 * layer_.columns * count;
  const auto sum_chunks = [&] {
    for (int64_t b = 0; b < 2 * layer_.columns; b++) {
      total[b] = 0;
      for (int64_t c = 0; c < count; c++) total[b] += column_[(size_t)(2 * layer_.columns * c + b)];
    }
  };
  layer_.chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
    double* out = column_.data() + first / chunk_units * 2 * layer_.columns;
    layer_.kernels.column_sums(z.data + o, nullptr, units, layer_.columns, out, out + layer_.columns);
  });
  sum_chunks();
  const bool centred = norm.kind == layer_norm;
  for (int64_t b = 0; b < layer_.columns; b++) mean_[(size_t)b] = centred ? (T)(total[b] / (double)z.n) : T(0);
  if (centred) {
    layer_.chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
      double* out = column_.data() + first / chunk_units * 2 * layer_.columns;
      layer_.kernels.column_squares(z.data + o, units, layer_.columns, mean_.data(), out + layer_.columns);
    });
    sum_chunks();
  }
  for (int64_t b = 0; b < layer_.columns; b++)
    factor_[(size_t)b] = (T)(1 / ::sqrt(total[layer_.columns + b] / (double)z.n + norm.eps));
}

template <class T>
Measure Norms<T>::normalise_backward(const NormRow& norm, const Block<T>& z, const Block<T>& h, const Block<T>& g,
                                     Block<T>& dz) {
  dz.n = z.n;
  if (z.exponent) return normalise_far_backward(norm, z, g, dz);
  dz.exponent = g.exponent;
  SlopeSums sums;
  if (norm.kind == batch_norm) {
    sums = layer_.chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      return layer_.kernels.batch_norm_backward(z.data + o, g.data + o, dz.data + o, units, layer_.columns,
                                                (T)norm.eps);
    });
  } else {
    const int64_t count = chunks_of(z.n);
    column_statistics(norm, z);
    layer_.chunks(z.n, [&](int64_t first, int64_t units, int64_t o) {
      double* out = column_.data() + first / chunk_units * 2 * layer_.columns;
      layer_.kernels.column_sums(g.data + o, h.data + o, units, layer_.columns, out, out + layer_.columns);
    });
    for (int64_t b = 0; b < layer_.columns; b++) {
      double sum = 0, product = 0;
      for (int64_t c = 0; c < count; c++)
        sum += column_[(size_t)(2 * layer_.columns * c + b)],
            product += column_[(size_t)(2 * layer_.columns * c + layer_.columns + b)];
      first_[(size_t)b] = norm.kind == layer_norm ? (T)(sum / (double)z.n) : T(0);
      second_[(size_t)b] = (T)(product / (double)z.n);
    }
    sums = layer_.chunks(z.n, [&](int64_t, int64_t units, int64_t o) {
      return layer_.kernels.column_norm_backward(h.data + o, g.data + o, dz.data + o, units, layer_.columns,
                                                 first_.data(), second_.data(), factor_.data());
    });
  }
  return layer_.settle(dz, {0, sums.square, sums.largest});
}

// visit(use) calls use(number, power of two, place) for every entry of out, twice alike; what all have in common goes
// to the exponent.
template <class T> template <class F> Measure Norms<T>::write_far(F visit, Block<T>& out) {
  constexpr int64_t none = INT64_MIN;
  int64_t top = none;
  visit([&](double x, int64_t power, int64_t) {
    if (x != 0 && !isnan(x)) top = std::max(top, ilogb(x) + power);
  });
  const int64_t shift = top == none ? 0 : top;
  visit([&](double x, int64_t power, int64_t o) { out.data[o] = scaled<T>(x, power - shift); });
  for (int64_t i = out.n; i < padded(out.n); i++)
    for (int64_t b = 0; b < layer_.columns; b++) out.data[entry_at(i, b, layer_.columns)] = 0;
  out.exponent += shift;
  return layer_.settle(out);
}

template <class T> void Norms<T>::normalise_far(const NormRow& norm, const Block<T>& z, Block<T>& h) {
  FarGroups<T> groups(norm, z, layer_.columns);
  h.exponent = std::min<int64_t>(z.exponent, 0);
  write_far(
      [&](auto use) {
        for (int64_t group = 0; group < groups.count; group++) {
          groups.read(group);
          for (int64_t m = 0; m < groups.members; m++)
            use(groups.rest[(size_t)m] * groups.factor, 0, groups.at(group, m));
        }
      },
      h);
}

template <class T>
Measure Norms<T>::normalise_far_backward(const NormRow& norm, const Block<T>& z, const Block<T>& g, Block<T>& dz) {
  FarGroups<T> groups(norm, z, layer_.columns);
  dz.exponent = g.exponent - std::max<int64_t>(z.exponent, 0);
  return write_far(
      [&](auto use) {
        for (int64_t group = 0; group < groups.count; group++) {
          double mean, product;
          groups.read(group);
          groups.project(group, g.data, mean, product);
          for (int64_t m = 0; m < groups.members; m++) {
            const double h = groups.rest[(size_t)m] * groups.factor;
            use(groups.factor * ((double)g.data[groups.at(group, m)] - mean - h * groups.up * product), -groups.power,
                groups.at(group, m));
          }
        }
      },
      dz);
}

template class Norms<float>;
template class Norms<double>;

}  // namespace pykernel
