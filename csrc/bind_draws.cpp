// Drawn arrays by address and their products with a few columns, for training: nothing of a weight is stored.
// SPDX-License-Identifier: BSD-3-Clause
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "buffer.hpp"
#include "isa.hpp"
#include "pool.hpp"
#include "pykernel/block.hpp"
#include "pykernel/stream.hpp"

namespace py = pybind11;

namespace pykernel {
namespace {

constexpr int64_t grain = 1 << 17;  // multiply-adds: less is done by the thread that calls

// f(first, last) for shares of so many panels, each on its own thread.
template <class F> void share(int threads, int64_t panels, int64_t work, F&& f) {
  const int64_t teams = std::min<int64_t>({(int64_t)threads, panels, work / grain});
  if (teams <= 1) return f((int64_t)0, panels);
  run_on_threads((int)teams, [&](int t) { f(panels * t / teams, panels * (t + 1) / teams); }, [] {});
}

py::array tall(uint64_t seed, uint32_t purpose, uint32_t layer, uint32_t replica, int64_t units, int64_t first,
               int64_t count, int threads) {
  py::array_t<float> out({units, count});
  float* to = out.mutable_data();
  {
    py::gil_scoped_release released;
    constexpr int64_t piece = 16;
    share(threads, (units + group_units - 1) / group_units, units * count, [&](int64_t from, int64_t end) {
      alignas(64) float block[group_units * piece];
      for (int64_t group = from; group < end; group++)
        for (int64_t b = 0; b < count; b += piece) {
          const int64_t B = std::min(piece, count - b), unit = group * group_units;
          const int64_t n = std::min<int64_t>(group_units, units - unit);
          product_table<float>().tall({seed, purpose, layer, replica, TallDraw::normal}, units, first + b, B,
                                      unit / panel_units, unit / panel_units + panels_of(n), block);
          for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < B; j++) to[(unit + i) * count + b + j] = block[entry_at(i, j, B)];
        }
    });
  }
  return out;
}

// D x of x (columns, B) or, transposed, D^T x of x (rows, B), in T.
template <class T>
py::array product(const std::string& distribution, double parameter, uint64_t seed, uint32_t layer, uint32_t replica,
                  int64_t rows, int64_t columns, const py::array_t<T, py::array::c_style>& x, bool transposed,
                  int threads) {
  const int64_t inputs = transposed ? rows : columns, outputs = transposed ? columns : rows, B = x.shape(1);
  if (x.ndim() != 2 || x.shape(0) != inputs) throw py::value_error("x must have as many rows as the matrix takes");
  const Distribution kind = distribution_called(distribution.c_str());
  check_parameter(kind, parameter);
  const Weights<T> w = {rows, columns, (T)1, kind, parameter, seed, layer, replica, nullptr, nullptr};
  py::array_t<T> result({outputs, B});
  const T* from = x.data();
  T* to = result.mutable_data();
  {
    py::gil_scoped_release released;
    const Products<T>& table = product_table<T>();
    Buffer<T> in((size_t)(panels_of(inputs) * panel_units * B)), out((size_t)(panels_of(outputs) * panel_units * B));
    for (int64_t i = 0; i < inputs; i++)
      for (int64_t b = 0; b < B; b++) in.get()[entry_at(i, b, B)] = from[i * B + b];
    share(threads, panels_of(outputs), rows * columns * (B + 8), [&](int64_t first, int64_t last) {
      if (!transposed) return table.forward(w, first, last, B, in.get(), out.get(), nullptr);
      Buffer<T> scratch(backward_scratch<T>(rows, B) / sizeof(T));
      table.backward(w, first * panel_units, std::min(last * panel_units, columns), B, in.get(), out.get(),
                     scratch.get());
    });
    for (int64_t i = 0; i < outputs; i++)
      for (int64_t b = 0; b < B; b++) to[i * B + b] = out.get()[entry_at(i, b, B)];
  }
  return result;
}

}  // namespace

void bind_draws(py::module_& module) {
  py::module_ m = module.def_submodule("draws", "Drawn arrays by address, and their products.");
  m.def("tall", tall, py::arg("seed"), py::arg("purpose"), py::arg("layer"), py::arg("replica"), py::arg("units"),
        py::arg("first"), py::arg("count"), py::arg("threads"),
        "Standard normals of a tall array, columns first .. first + count - 1, (units, count) float32.");
  m.def("product", product<float>, py::arg("distribution"), py::arg("parameter"), py::arg("seed"), py::arg("layer"),
        py::arg("replica"), py::arg("rows"), py::arg("columns"), py::arg("x").noconvert(), py::arg("transposed"),
        py::arg("threads"), "A drawn matrix, or transposed its transpose, times columns, in their dtype.");
  m.def("product", product<double>, py::arg("distribution"), py::arg("parameter"), py::arg("seed"), py::arg("layer"),
        py::arg("replica"), py::arg("rows"), py::arg("columns"), py::arg("x").noconvert(), py::arg("transposed"),
        py::arg("threads"), "The same in double precision.");
}

}  // namespace pykernel
