// SPDX-License-Identifier: BSD-3-Clause
// The door to Python: programs in, rows out, and no arithmetic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bind_program.hpp"
#include "check.hpp"
#include "constants.hpp"
#include "dense.hpp"
#include "isa.hpp"
#include "matrix_free.hpp"
#include "network.hpp"
#include "pykernel/version.hpp"
#include "run.hpp"

namespace py = pybind11;

namespace pykernel {
namespace {

void poll_signals() {
  py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals()) throw py::error_already_set();
}

Engine engine_called(const std::string& name) {
  if (name == "dense") return dense;
  if (name == "matrix_free") return matrix_free;
  throw py::value_error("unknown engine " + name);
}

py::dict run_replicas(const py::object& program, const std::string& engine, int64_t first, int64_t count, int threads,
                      int64_t memory, const HeldProgram::Own& own) {
  const HeldProgram held(program, own);
  const Engine which = engine_called(engine);
  if (!program.attr("samplers").is_none()) throw py::value_error("samplers must be resolved to weights before a run");
  if (count < 0) throw py::value_error("count must not be negative");
  py::dict out;
  Rows rows{};
  typedef std::vector<py::ssize_t> Shape;
  const RowExtents extents = extents_of(held.program());
  const py::array_t<double> none(Shape{count, 0});  // of what the program has not: one array for all
  for (const RowFact& row : row_facts) {
    const py::ssize_t extent = extents.of(row.extent);
    const bool of_replicas = row.extent == RowExtent::replica;
    py::array_t<double> array = extent ? py::array_t<double>(of_replicas ? Shape{count} : Shape{count, extent}) : none;
    rows.*row.of = array.mutable_data();
    out[interned(row.name)] = array;
  }
  double* tangent_kernel = nullptr;
  if (held.program().common) {
    py::array_t<double> array({count, held.program().batch, held.program().batch});
    tangent_kernel = array.mutable_data();
    out["tangent_kernel"] = array;
  }
  const Run how{first, count, threads, memory, poll_signals, tangent_kernel};
  const auto run_as = [&]<class T>(T) {
    run<T>(held.program(), how, which == dense ? make_dense<T>(memory / 2) : make_matrix_free<T>(), rows);
  };
  py::gil_scoped_release release;
  held.is_float() ? run_as(float()) : run_as(double());
  return out;
}

py::array_t<double> trace_replica(const py::object& program, const std::string& engine, int64_t replica, int64_t memory,
                                  const HeldProgram::Own& own) {
  const HeldProgram held(program, own);
  const Engine which = engine_called(engine);
  std::vector<Traced> found;
  const auto trace_as = [&]<class T>(T) {
    found =
        trace<T>(held.program(), replica, memory, which == dense ? make_dense<T>(memory / 2) : make_matrix_free<T>());
  };
  {
    py::gil_scoped_release release;
    held.is_float() ? trace_as(float()) : trace_as(double());
  }
  py::array_t<double> out(std::vector<py::ssize_t>{(py::ssize_t)found.size(), 2});
  double* to = out.mutable_data();
  for (const Traced& one : found) *to++ = (double)one.exponent, *to++ = log10_2 * one.log2_norm;
  return out;
}

int64_t memory(const py::object& program, const std::string& engine) {
  const HeldProgram held(program, {});
  const Engine which = engine_called(engine);
  return held.is_float() ? least_bytes<float>(held.program(), which) : least_bytes<double>(held.program(), which);
}

}  // namespace

void bind_draws(py::module_& module);
void bind_kernels(py::module_& module);

}  // namespace pykernel

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of pykernel.";
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const pykernel::TooLarge& error) {
      PyErr_SetString(PyExc_OverflowError, error.what());
    }
  });
  m.attr("version") = pykernel::version();
  m.def("isa", &pykernel::isa_name, "The instruction set in use.");
  m.def("run", &pykernel::run_replicas, py::arg("program"), py::arg("engine"), py::arg("first"), py::arg("count"),
        py::arg("threads"), py::arg("memory"), py::arg("own") = pykernel::HeldProgram::Own(),
        "Rows of replicas first .. first + count - 1 of a Program, as a dict of float64 arrays. `own`: of each "
        "activation (address, whether "
        "of one number) of the user's value and slope; none for built-in ones.");
  m.def("trace", &pykernel::trace_replica, py::arg("program"), py::arg("engine"), py::arg("replica"), py::arg("memory"),
        py::arg("own") = pykernel::HeldProgram::Own(),
        "Exponent and log10 of the norm of what every op of a Program wrote: forward the ops in order, backward the "
        "registers that each read.");
  m.def("memory", &pykernel::memory, py::arg("program"), py::arg("engine"),
        "Bytes without which one worker cannot run a Program.");
  m.def(
      "one_input",
      [](const py::object& program) { return pykernel::one_input(pykernel::HeldProgram(program, {}).program()); },
      py::arg("program"), "Whether the matrix-free engine runs a Program by sums over units alone.");
  py::module_ shared = m.def_submodule("constants", "Numbers that Python and C++ share.");
  shared.attr("log2_e") = pykernel::log2_e;
  shared.attr("log10_2") = pykernel::log10_2;
  shared.attr("selu_alpha") = pykernel::selu_alpha;
  shared.attr("selu_lambda") = pykernel::selu_lambda;
  shared.attr("gelu_cubic") = pykernel::gelu_cubic;
  shared.attr("range") = pykernel::range<double>;
  shared.attr("lost_direction") = pykernel::lost_direction;
  shared.attr("preferred_direction") = pykernel::preferred_direction;
  pykernel::bind_draws(m);
  pykernel::bind_kernels(m);
}
