// Norms of whole blocks with their exponents, forward and backward.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "layer.hpp"

namespace pykernel {

template <class T> class Norms {
 public:
  // columns: the most of any block.
  Norms(int64_t columns, int64_t largest_width, Layer<T>& layer);
  static int64_t bytes(int64_t columns, int64_t largest_width);

  // h = Norm(z)
  void normalise(const NormRow& norm, const Block<T>& z, Block<T>& h);
  // dz from dh and z with h = Norm(z); dz may be dh
  Measure normalise_backward(const NormRow& norm, const Block<T>& z, const Block<T>& h, const Block<T>& g,
                             Block<T>& dz);

 private:
  void column_statistics(const NormRow& norm, const Block<T>& z);
  void normalise_far(const NormRow& norm, const Block<T>& z, Block<T>& h);
  Measure normalise_far_backward(const NormRow& norm, const Block<T>& z, const Block<T>& g, Block<T>& dz);
  template <class F> Measure write_far(F visit, Block<T>& out);

  Layer<T>& layer_;
  Vector<double> column_;                     // partial sums over chunks, then columns
  Vector<T> mean_, factor_, first_, second_;  // (B)
};

}  // namespace pykernel
