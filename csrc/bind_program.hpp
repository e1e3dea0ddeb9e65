// Programs of pykernel/program.py, read field by field, with their arrays kept alive and checked for shape.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pykernel/program.hpp"

namespace pykernel {

// A literal as Python looks it up fastest: a name that is made anew costs as much as all else of a field.
pybind11::handle interned(const char* name);

// The fields of a dataclass or named tuple: each must be read, so that none is forgotten here.
class Fields {
 public:
  explicit Fields(pybind11::object source) : source_(std::move(source)) { read_.reserve(40); }
  pybind11::object get(const char* name);
  template <class T> T read(const char* name) { return pybind11::cast<T>(get(name)); }
  void ignore(const char* name) { read_.push_back(name); }  // a field that this engine has no use for
  void done() const;

 private:
  pybind11::object source_;
  std::vector<std::string_view> read_;
};

class HeldProgram {
 public:
  // own: of each activation the addresses of the user's value and slope, and whether each takes one number; empty for
  // built-in ones.
  typedef std::vector<std::vector<std::pair<uintptr_t, bool>>> Own;
  HeldProgram(const pybind11::object& source, const Own& own);
  HeldProgram(const HeldProgram&) = delete;
  const Program& program() const { return program_; }
  bool is_float() const { return is_float_; }

 private:
  struct OwnFunctions {
    uintptr_t functions[2];
    Callback callback;
  };
  template <class T>
  const T* array(const pybind11::handle& object, const std::vector<int64_t>& shape, const char* what);
  template <class T> const T* array(Fields& fields, const char* name, const std::vector<int64_t>& shape) {
    return array<T>(fields.get(name), shape, name);
  }
  const double* const* arrays(const pybind11::object& list, bool matrices, const char* what);
  const char* text(const pybind11::handle& object);
  Draw draw_of(const pybind11::handle& row);
  void read_stretches(const pybind11::object& stretches);
  void read_layers(Fields fields);
  void read_activations(const pybind11::object& rows, const Own& own);
  void read_norms(const pybind11::object& rows);
  void read_affines(const pybind11::object& rows);
  void read_drives(const pybind11::object& units, const pybind11::object& arrays);
  void read_windows(const pybind11::object& rows);
  void read_head(Fields fields);
  void read_formats(const pybind11::object& formats);

  Program program_ = {};
  bool is_float_ = false;
  std::vector<pybind11::object> held_;
  std::deque<std::string> texts_;
  std::deque<std::vector<double>> parameters_;
  std::deque<std::vector<const double*>> pointers_;
  std::deque<std::vector<Op>> ops_;
  std::deque<OwnFunctions> own_;
  std::vector<Stretch> stretches_;
  std::vector<Draw> draws_;
  std::vector<ActivationRow> activations_;
  std::vector<NormRow> norms_;
  Formats formats_;
  std::vector<AffineRow> affines_;
  std::vector<Window> windows_;
};

}  // namespace pykernel
