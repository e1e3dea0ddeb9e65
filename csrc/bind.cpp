// SPDX-License-Identifier: BSD-3-Clause
// The door to Python: the only file that includes Python, and no arithmetic in it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "dense.hpp"
#include "isa.hpp"
#include "matrix_free.hpp"
#include "pykernel/version.hpp"

namespace py = pybind11;

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

// A plan of pykernel/plan.py, with its arrays kept alive and checked for shape.
struct HeldPlan {
  pykernel::Plan plan{};
  py::array_t<int64_t, py::array::c_style | py::array::forcecast> widths;
  std::vector<Doubles> arrays;
  std::vector<const double*> weights, biases;
  std::vector<double> parameters;
  std::string name, distribution, bias_distribution, head_distribution, dtype;
  uintptr_t functions[2] = {};
  pykernel::Callback callback{};

  // The user's functions of one number, for those who want arrays.
  template <int which> static void call_each(const double* z, double* out, int64_t n, void* functions) {
    const auto f = reinterpret_cast<double (*)(double)>(static_cast<const uintptr_t*>(functions)[which]);
    for (int64_t i = 0; i < n; i++) out[i] = f(z[i]);
  }

  const double* hold(const py::handle& object, const std::vector<py::ssize_t>& shape, const char* what) {
    if (object.is_none()) return nullptr;
    Doubles array = py::cast<Doubles>(object);
    if (std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()) != shape)
      throw py::value_error(std::string(what) + " has the wrong shape");
    arrays.push_back(array);
    return arrays.back().data();
  }

  HeldPlan(const py::object& source, const std::vector<std::pair<uintptr_t, bool>>& own) {
    const auto get = [&](const char* field) { return source.attr(field); };
    widths = py::cast<decltype(widths)>(get("widths"));
    if (widths.ndim() != 1 || widths.size() < 2) throw py::value_error("widths must hold at least two numbers");
    plan.depth = widths.size() - 1;
    plan.widths = widths.data();
    plan.batch = py::cast<int64_t>(get("batch"));
    plan.seed = py::cast<uint64_t>(get("seed"));
    plan.exponent = py::cast<bool>(get("exponent"));
    dtype = py::cast<std::string>(get("dtype"));

    const py::object row = get("activation");
    name = py::cast<std::string>(row.attr("name"));
    parameters = py::cast<std::vector<double>>(row.attr("parameters"));
    const auto fact = [&](const char* field) { return py::cast<double>(row.attr(field)); };
    plan.activation = {name.c_str(),    parameters.data(),   fact("left"),
                       fact("right"),   fact("before_zero"), fact("after_zero"),
                       fact("at_zero"), fact("max_slope"),   py::cast<bool>(row.attr("flat"))};

    if (own.size() == 2) {
      for (size_t i = 0; i < 2; i++) functions[i] = own[i].first;
      const auto array = [&](size_t i) { return reinterpret_cast<pykernel::Function<double>>(functions[i]); };
      callback = {nullptr, nullptr, own[0].second ? call_each<0> : array(0), own[1].second ? call_each<1> : array(1), functions};
      plan.activation.name = "callback", plan.activation.parameters = pykernel::activation_row(callback).parameters;
    }

    plan.norm = py::cast<int>(get("norm"));
    plan.norm_eps = py::cast<double>(get("norm_eps"));
    plan.order = py::cast<int>(get("order"));
    plan.residual_every = py::cast<int64_t>(get("residual_every"));
    plan.residual_scale = hold(get("residual_scale"), {plan.depth}, "residual_scale");
    distribution = py::cast<std::string>(get("distribution"));
    plan.distribution = distribution.c_str();
    plan.distribution_parameter = py::cast<double>(get("distribution_parameter"));
    plan.scale = hold(get("scale"), {plan.depth}, "scale");
    bias_distribution = py::cast<std::string>(get("bias_distribution"));
    plan.bias_distribution = bias_distribution.c_str();
    plan.bias_scale = hold(get("bias_scale"), {plan.depth}, "bias_scale");
    plan.correlation = py::cast<double>(get("correlation"));
    plan.x = hold(get("x"), {plan.widths[0], plan.batch}, "x");
    plan.cotangent = hold(get("cotangent"), {plan.widths[plan.depth], plan.batch}, "cotangent");
    plan.weights = hold_layers(get("weights"), weights, true);
    plan.biases = hold_layers(get("biases"), biases, false);
    plan.loss = py::cast<int>(get("loss"));
    plan.outputs = py::cast<int64_t>(get("outputs"));
    head_distribution = py::cast<std::string>(get("head_distribution"));
    plan.head_distribution = head_distribution.c_str();
    plan.head_parameter = py::cast<double>(get("head_parameter"));
    plan.head_scale = py::cast<double>(get("head_scale"));
    if (plan.loss) {
      plan.head_weight = hold(get("head_weight"), {plan.outputs, plan.widths[plan.depth]}, "head_weight");
      plan.head_bias = hold(get("head_bias"), {plan.outputs}, "head_bias");
    }
    plan.targets = plan.loss ? hold(get("targets"), {plan.outputs, plan.batch}, "targets") : nullptr;
    plan.clip_value = py::cast<double>(get("clip_value"));
  }
  HeldPlan(const HeldPlan&) = delete;

  const double* const* hold_layers(const py::object& list, std::vector<const double*>& pointers, bool matrices) {
    if (list.is_none()) return nullptr;
    if ((int64_t)py::len(list) != plan.depth) throw py::value_error("weights and biases must hold one array a layer");
    for (int64_t l = 1; l <= plan.depth; l++) {
      const py::object array = list[py::int_(l - 1)];
      pointers.push_back(matrices ? hold(array, {plan.widths[l], plan.widths[l - 1]}, "weights") : hold(array, {plan.widths[l]}, "biases"));
      if (!pointers.back()) throw py::value_error("weights and biases must hold one array a layer");
    }
    return pointers.data();
  }
};

void poll_signals() {
  py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals()) throw py::error_already_set();
}

template <class T> pykernel::MakeLinear<T> engine_of(const std::string& name, int64_t keep_bytes) {
  if (name == "dense") return pykernel::make_dense<T>(keep_bytes);
  if (name == "matrix_free") return pykernel::make_matrix_free<T>();
  throw py::value_error("unknown engine " + name);
}

py::dict run(const py::object& plan, const std::string& engine, int64_t first, int64_t count, int threads, int64_t memory,
             const std::vector<std::pair<uintptr_t, bool>>& own) {
  const HeldPlan held(plan, own);
  if (count < 0) throw py::value_error("count must not be negative");
  py::dict out;
  const auto row = [&](const char* name, const std::vector<py::ssize_t>& shape) {
    py::array_t<double> array(shape);
    out[name] = array;
    return array.mutable_data();
  };
  const py::ssize_t L = held.plan.depth;
  pykernel::Rows rows{};
  rows.log10_grad_weight = row("log10_grad_weight", {count, L});
  rows.log10_grad_bias = row("log10_grad_bias", {count, L});
  rows.log10_grad_preactivation = row("log10_grad_preactivation", {count, L});
  rows.log10_grad_activation = row("log10_grad_activation", {count, L + 1});
  rows.log10_mean_square_preactivation = row("log10_mean_square_preactivation", {count, L});
  rows.log10_mean_square_activation = row("log10_mean_square_activation", {count, L});
  rows.mean_activation = row("mean_activation", {count, L});
  rows.saturated = row("saturated", {count, L});
  rows.dead = row("dead", {count, L});
  rows.similarity = row("similarity", {count, L});
  rows.log10_weight_factor = row("log10_weight_factor", {count, L});
  rows.log10_derivative_factor = row("log10_derivative_factor", {count, L});
  rows.loss = row("loss", {count});
  const pykernel::Run how{first, count, threads, memory, poll_signals};
  if (held.dtype != "float32" && held.dtype != "float64") throw py::value_error("dtype must be float32 or float64");
  const auto make32 = engine_of<float>(engine, memory / 2);
  const auto make64 = engine_of<double>(engine, memory / 2);
  {
    py::gil_scoped_release release;
    if (held.dtype == "float32")
      pykernel::run<float>(held.plan, how, make32, rows);
    else
      pykernel::run<double>(held.plan, how, make64, rows);
  }
  return out;
}

}  // namespace

namespace pykernel {
void bind_kernels(py::module_& module);
}

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of pykernel.";
  m.attr("version") = pykernel::version();
  m.def("isa", &pykernel::isa_name, "The instruction set in use.");
  m.def(
      "run", &run, py::arg("plan"), py::arg("engine"), py::arg("first"), py::arg("count"), py::arg("threads"), py::arg("memory"),
      py::arg("own") = std::vector<std::pair<uintptr_t, bool>>(),
      "Rows of replicas first .. first + count - 1 of a Plan, as a dict of float64 arrays. `own`: (address, whether of one number) of the "
      "user's value and slope.");
  pykernel::bind_kernels(m);
}
