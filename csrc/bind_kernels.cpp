// The kernels seen from Python, one by one and for each instruction set this machine has: for tests and benchmarks, not
// for users. SPDX-License-Identifier: BSD-3-Clause
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <math.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "isa.hpp"
#include "kernels/roofline.hpp"
#include "pykernel/block.hpp"

namespace py = pybind11;

namespace pykernel {
namespace {

template <class T> using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
template <class T> struct Aligned {
  explicit Aligned(int64_t n) : raw((size_t)n * sizeof(T) + 64) {}
  T* get() { return (T*)(((uintptr_t)raw.data() + 63) & ~(uintptr_t)63); }
  std::vector<char> raw;
};

const Isa& isa_called(const std::string& name) {
  for (const Isa& isa : usable_isas())
    if (name == isa.name) return isa;
  throw py::value_error("instruction set " + name + " is not one of this machine's");
}
template <class T> const Products<T>& products_of(const std::string& isa) {
  if constexpr (sizeof(T) == 4)
    return isa_called(isa).float_products(0);
  else
    return isa_called(isa).double_products(0);
}

template <class T> Aligned<T> to_block(const Array<T>& x) {
  const int64_t n = x.shape(0), B = x.shape(1);
  Aligned<T> block(padded(n) * B);
  for (int64_t i = 0; i < n; i++)
    for (int64_t b = 0; b < B; b++) block.get()[entry_at(i, b, B)] = x.at(i, b);
  return block;
}
template <class T> py::array from_block(Aligned<T>& block, int64_t n, int64_t B) {  // padding too
  py::array_t<T> x({padded(n), B});
  for (int64_t i = 0; i < padded(n); i++)
    for (int64_t b = 0; b < B; b++) x.mutable_at(i, b) = block.get()[entry_at(i, b, B)];
  return x;
}

// u (columns, B) or, transposed, delta (rows, B), made known to `multiply` in `parts` calls.
template <class T>
py::array multiply(const std::string& isa, int distribution, double parameter, uint64_t seed, uint32_t layer,
                   uint32_t replica, int64_t rows, int64_t columns, double scale, const Array<T>& x, bool transposed,
                   const std::string& source, int64_t parts) {
  const Products<T>& table = products_of<T>(isa);
  const int64_t B = x.shape(1), P = panels_of(rows), outputs = transposed ? columns : rows;
  Weights<T> w = {rows,    columns, (T)scale, (Distribution)distribution, parameter, seed, layer,
                  replica, nullptr, nullptr};
  w.by_blocks = lie_by_blocks(table, B);
  Aligned<T> in = to_block<T>(x), out(padded(outputs) * B), given(source == "given" ? padded(rows) * columns : 0);
  Aligned<float> draws(kept_size(rows, columns));
  Aligned<char> scratch((int64_t)backward_scratch<T>(rows, B));
  for (int64_t i = 0; i < padded(outputs) * B; i++) out.get()[i] = (T)NAN;
  float* keep = nullptr;
  if (source == "kept" && transposed) {  // by the forward product that would have come before
    Aligned<T> u(padded(columns) * B), z(padded(rows) * B);
    table.forward(w, 0, P, B, u.get(), z.get(), draws.get());
    w.kept = draws.get();
  } else if (source == "kept") {
    keep = draws.get();
  } else if (source == "given") {
    table.draw(w, 0, P, 0, columns, draws.get());
    std::vector<T> matrix((size_t)(rows * columns));
    for (int64_t i = 0; i < rows; i++)
      for (int64_t k = 0; k < columns; k++) matrix[(size_t)(i * columns + k)] = draws.get()[entry_at(i, k, columns)];
    table.pack(matrix.data(), rows, columns, 0, P, given.get());
    w.given = given.get();
  }
  const int64_t panels = panels_of(outputs);
  for (int64_t c = 0; c < parts; c++) {
    const int64_t first = panels * c / parts, last = panels * (c + 1) / parts;
    if (first == last) continue;
    if (transposed)
      table.backward(w, first * 16, std::min(last * 16, columns), B, in.get(), out.get(), scratch.get());
    else
      table.forward(w, first, last, B, in.get(), out.get(), keep);
  }
  return from_block(out, outputs, B);
}

py::array draws(const std::string& isa, int distribution, double parameter, uint64_t seed, uint32_t layer,
                uint32_t replica, int64_t rows, int64_t columns) {
  Weights<float> w = {rows, columns, 1, (Distribution)distribution, parameter, seed, layer, replica, nullptr, nullptr};
  Aligned<float> panels(padded(rows) * columns);
  products_of<float>(isa).draw(w, 0, panels_of(rows), 0, columns, panels.get());
  py::array_t<float> matrix({rows, columns});
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < columns; k++) matrix.mutable_at(i, k) = panels.get()[entry_at(i, k, columns)];
  return matrix;
}

py::array tall(const std::string& isa, int draw, uint64_t seed, uint32_t purpose, uint32_t layer, uint32_t replica,
               int64_t units, int64_t B) {
  Aligned<float> block(padded(units) * B);
  products_of<float>(isa).tall({seed, purpose, layer, replica, (TallDraw)draw}, units, 0, B, 0, panels_of(units),
                               block.get());
  return from_block(block, units, B);
}

template <class T> py::array gram(const std::string& isa, const Array<T>& x) {
  const int64_t B = x.shape(1);
  Aligned<T> block = to_block<T>(x);
  Aligned<char> scratch((int64_t)backward_scratch<T>(0, B));
  py::array_t<double> out({B, B});
  products_of<T>(isa).gram(block.get(), x.shape(0), B, out.mutable_data(), scratch.get());
  return out;
}

// x (n, B) as a format holds it, rounded so many times over; words: of every number, (n, B), or null.
template <class T>
py::array round_block(const std::string& isa, const Array<T>& x, int fraction, int lowest, double largest,
                      bool infinite, int64_t times, const std::optional<Array<uint32_t>>& words) {
  const int64_t n = x.shape(0), B = x.shape(1);
  Aligned<T> block = to_block<T>(x);
  Aligned<uint32_t> chances = words ? to_block<uint32_t>(*words) : Aligned<uint32_t>(0);
  const uint32_t* by = words ? chances.get() : nullptr;
  const Elementwise<T>& table = [&]() -> const Elementwise<T>& {
    if constexpr (sizeof(T) == 4)
      return isa_called(isa).floats(0);
    else
      return isa_called(isa).doubles(0);
  }();
  const Format format = {fraction, lowest, largest, infinite};
  for (int64_t i = 0; i < times; i++) table.round(block.get(), n, B, format, by);
  return from_block(block, n, B);
}

}  // namespace

void bind_kernels(py::module_& module) {
  py::module_ m = module.def_submodule("kernels", "Single kernels, for tests and benchmarks.");
  m.def("isas", [] {
    std::vector<std::string> names;
    for (const Isa& isa : usable_isas()) names.push_back(isa.name);
    return names;
  });
  const auto released = py::call_guard<py::gil_scoped_release>();
  m.def(
      "peak_multiply_add", [](int64_t n) { return roofline_table().multiply_add(n); }, released,
      "n fused multiply-adds of 16 lanes.");
  m.def("peak_draw", [](int64_t n) { return roofline_table().draw(n); }, released, "n normals.");
  m.def(
      "peak_read",
      [](const py::array_t<float, py::array::c_style>& x, int64_t times) {
        const float* data = x.data();
        const int64_t n = x.size() / 128 * 128;
        const py::gil_scoped_release released;
        float sum = 0;
        for (int64_t i = 0; i < times; i++) sum += roofline_table().read(data, n);
        return sum;
      },
      "The sum of x, as many times.");
  m.def("draws", draws);
  m.def("tall", tall);
  m.def("multiply_f32", multiply<float>);
  m.def("multiply_f64", multiply<double>);
  m.def("gram_f32", gram<float>);
  m.def("gram_f64", gram<double>);
  const auto of_round = [&](const char* name, auto function) {
    m.def(name, function, py::arg("isa"), py::arg("x"), py::arg("fraction"), py::arg("lowest"), py::arg("largest"),
          py::arg("infinite"), py::arg("times") = 1, py::arg("words") = py::none());
  };
  of_round("round_f32", round_block<float>);
  of_round("round_f64", round_block<double>);
}

}  // namespace pykernel
