// Activation functions of whole blocks with their exponents.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "layer.hpp"
#include "tails.hpp"

namespace pykernel {

// An activation function as a run calls it.
template <class T> struct Phi {
  const ActivationRow* row;
  const Activation<T>* kernel;
  const Activation<T>* two_slopes;  // the kernel of its asymptotes
  const Tails* tails;               // null: none that floating point loses
};
// Both throw std::invalid_argument for an unknown name, phi_of also for a callback that lacks functions for T.
template <class T> const Activation<T>& kernel_called(const char* name);
template <class T> Phi<T> phi_of(const ActivationRow& row);

// v = phi(h); may rescale h
template <class T> Measure activate(Layer<T>& layer, const Phi<T>& phi, Block<T>& h, Block<T>& v);
// out = g phi'(h); out must not be g; may rescale h
template <class T>
Measure differentiate(Layer<T>& layer, const Phi<T>& phi, Block<T>& h, const Block<T>& g, Block<T>& out,
                      SlopeCount& count);

}  // namespace pykernel
