// What the C functions share: structs of any age are read, exceptions become status codes.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <utility>

#include "pykernel/chain.hpp"
#include "pykernel/pykernel.h"

namespace pykernel::c_door {

inline int say(int status, const char* what, char* message, size_t size) {
  if (message && size) snprintf(message, size, "%s", what);
  return status;
}

// Nothing is thrown through this door.
template <class Body> int guarded(char* message, size_t size, Body body) noexcept {
  try {
    return say(body(), "", message, size);
  } catch (const std::invalid_argument& error) {
    return say(PK_INVALID, error.what(), message, size);
  } catch (const std::bad_alloc&) {
    return say(PK_TOO_FEW_BYTES,
               "the workspace has too few bytes, or memory is exhausted; the query says how many are needed", message,
               size);
  } catch (const std::exception& error) {
    return say(PK_FAILED, error.what(), message, size);
  } catch (...) {
    return say(PK_FAILED, "an unknown error", message, size);
  }
}
template <class Body> int done(char* message, size_t size, Body body) noexcept {
  return guarded(message, size, [&] { return body(), (int)PK_OK; });
}

inline void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

constexpr int64_t large = (int64_t)1 << 32;

// A struct of the caller's header, older or newer than ours: what it lacks is zero.
template <class S> S read(const S* given) {
  require(given, "a struct must be given, got null");
  require(given->size >= sizeof(size_t) && given->size < 1 << 16, "a struct's size must be sizeof(the struct)");
  S s;
  memset(static_cast<void*>(&s), 0, sizeof s);
  memcpy(static_cast<void*>(&s), given, std::min(given->size, sizeof s));
  return s;
}

// The C++ row of a C one; the callback lies in the caller's frame.
inline ActivationRow row_of(const pk_activation* given, Callback& callback) {
  const pk_activation a = read(given);
  require(a.name, "the activation's name must be given");
  if (strcmp(a.name, "callback")) return activation_row(a.name, a.parameters);
  callback = {a.value_f32, a.slope_f32, a.value_f64, a.slope_f64, a.user};
  ActivationRow row = activation_row(callback);
  row.left = a.left, row.right = a.right, row.before_zero = a.before_zero, row.after_zero = a.after_zero;
  row.at_zero = a.at_zero, row.max_slope = a.max_slope, row.flat = a.flat;
  return row;
}

// f with a T as its argument, of the dtype asked for
template <class F> auto with_dtype(int dtype, F f) {
  require(dtype == PK_FLOAT32 || dtype == PK_FLOAT64, "dtype must be PK_FLOAT32 or PK_FLOAT64");
  return dtype == PK_FLOAT32 ? f(float()) : f(double());
}

// The rows that C has words for: those of formats need programs that it cannot say.
constexpr std::pair<double* pk_rows::*, double* Rows::*> c_rows[] = {
    {&pk_rows::log10_grad_weight, &Rows::log10_grad_weight},
    {&pk_rows::log10_grad_bias, &Rows::log10_grad_bias},
    {&pk_rows::log10_grad_preactivation, &Rows::log10_grad_preactivation},
    {&pk_rows::log10_grad_activation, &Rows::log10_grad_activation},
    {&pk_rows::log10_mean_square_preactivation, &Rows::log10_mean_square_preactivation},
    {&pk_rows::log10_mean_square_activation, &Rows::log10_mean_square_activation},
    {&pk_rows::mean_activation, &Rows::mean_activation},
    {&pk_rows::saturated, &Rows::saturated},
    {&pk_rows::dead, &Rows::dead},
    {&pk_rows::similarity, &Rows::similarity},
    {&pk_rows::log10_weight_factor, &Rows::log10_weight_factor},
    {&pk_rows::log10_derivative_factor, &Rows::log10_derivative_factor},
    {&pk_rows::loss, &Rows::loss},
    {&pk_rows::attention_entropy, &Rows::attention_entropy},
    {&pk_rows::score_std, &Rows::score_std},
    {&pk_rows::log10_grad_weight_total, &Rows::log10_grad_weight_total},
    {&pk_rows::log10_grad_bias_total, &Rows::log10_grad_bias_total},
};
inline Rows rows_of(const pk_rows* given) {
  const pk_rows r = read(given);
  Rows rows{};
  for (const auto& [from, row] : c_rows) rows.*row = r.*from;
  return rows;
}

// The caller's question whether to end, as C++ asks it.
class Asked {
 public:
  Asked(int (*stop)(void*), void* user) : stop_(stop), user_(user) {}
  Asked(const Asked&) = delete;
  Stop stop() { return {stop_ ? ask : nullptr, this}; }

 private:
  static bool ask(void* asked) { return static_cast<Asked*>(asked)->stop_(static_cast<Asked*>(asked)->user_) != 0; }
  int (*stop_)(void*);
  void* user_;
};

// A run that says whether it finished.
template <class Body> int finished(char* message, size_t size, Body body) noexcept {
  const int status = guarded(message, size, [&] { return body() ? (int)PK_OK : (int)PK_STOPPED; });
  return status == PK_STOPPED ? say(status, "stopped by the caller's function", message, size) : status;
}

}  // namespace pykernel::c_door
