// SPDX-License-Identifier: BSD-3-Clause
// The door to Python: the only file that includes Python, and no arithmetic in it.
#include <pybind11/pybind11.h>

#include "pykernel/version.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
    m.doc() = "Compiled kernels of pykernel.";
    m.attr("version") = pykernel::version();
}
