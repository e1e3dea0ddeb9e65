// Numbers that several rooms must agree on, Python's among them.
// SPDX-License-Identifier: BSD-3-Clause
//
// pykernel/constants.py reads thresholds from here; a test holds the others against pykernel/activations.py.
#pragma once

namespace pykernel {

inline constexpr double log2_e = 1.44269504088896340736, log10_2 = 0.30102999566398119521;
inline constexpr double selu_alpha = 1.6732632423543772,
                        selu_lambda = 1.0507009873554805;  // Klambauer et al. 2017, arXiv 1706.02515
inline constexpr double gelu_cubic = 0.044715;             // Hendrycks, Gimpel 2016, arXiv 1606.08415

// Largest magnitudes of a block are kept within 2^+-range, so that squares and sums of 10^18 of them stay normal
// numbers.
template <class T> inline constexpr int range = 0;
template <> inline constexpr int range<float> = 40;
template <> inline constexpr int range<double> = 200;

// Matrix-free, of squared lengths: a column whose part outside the directions already found is below 2^-20 of its
// length is taken to lie inside them; columns are taken in their own order unless one sticks out less than a quarter as
// far as another.
inline constexpr double lost_direction = 0x1p-40, preferred_direction = 0x1p-4;

}  // namespace pykernel
