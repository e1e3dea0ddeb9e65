// Number formats that a run rounds to: the C++ face of pykernel/formats.py, which has the table.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace pykernel {

// A binary floating-point format with subnormals whose numbers are floats. fraction 0: none, nothing is rounded.
struct Format {
  int fraction = 0;         // bits behind the leading one
  int lowest = 0;           // log2 of the smallest normal number
  double largest = 0;       // finite magnitude
  bool infinite = true;     // what lies beyond the largest is inf, else the largest
  bool stochastic = false;  // up or down by a random word at the number's address, else to nearest, ties to even
};

// Rounded are weights where they are used, the input and what every op hands on, and the gradient of each of those.
struct Formats {
  Format weights, signals, gradients;
  double loss_scale = 1;  // of the objective; gradients and their rows have it
};

// x to nearest, ties to even, whatever the format says.
double rounded(double x, const Format& format);

}  // namespace pykernel
