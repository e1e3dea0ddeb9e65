# SPDX-License-Identifier: BSD-3-Clause
"""A neural ODE solver in Numba with the library's layer in its own loop: dx/dt = phi(W x), Euler steps, and
backpropagation through them.

Run it: `python ode_network.py`. With a weight of its own for every step the numbers are those of pykernel.propagate
with Residual(every=1, scale=dt); with one weight for all steps it is a recurrent network, which propagate does not
know.
"""

import numpy as np
from numba import njit, prange

import pykernel.numba as pkn
from pykernel import stream


@njit(cache=True)
def solve(x, cotangent, steps, dt, scale, row, row_parameter, seed, replica, tied):
    """x(1) and the gradient of <cotangent, x(1)> with respect to x(0); `tied` uses one weight for all steps."""
    n, B = x.shape
    size = pkn.kept_size(n, n)
    kept = np.empty((1 if tied else steps, size), x.dtype)
    z, a, g = np.empty((steps, n, B), x.dtype), np.empty_like(x), cotangent.copy()
    state, delta, du = x.copy(), np.empty_like(x), np.empty_like(x)
    for t in range(steps):
        layer = 1 if tied else t + 1
        pkn.layer_forward_keep(z[t], state, scale, seed, layer, replica, pkn.NORMAL, 0.0, kept[layer - 1])
        pkn.activate(a, z[t], row, row_parameter)
        state += dt * a
    for t in range(steps - 1, -1, -1):
        pkn.activate_backward(delta, dt * g, z[t], row, row_parameter)
        pkn.layer_backward_kept(du, delta, scale, kept[0 if tied else t])
        g += du
    return state, g


@njit(cache=True, parallel=True)
def ensemble(n, B, steps, dt, scale, row, row_parameter, seed, replicas, tied):
    """log10 of the norm of dJ/dx(0) for each replica, in parallel: addresses need no locks and no order."""
    out = np.empty(replicas)
    for r in prange(replicas):
        x, c = np.empty((n, B), np.float32), np.empty((n, B), np.float32)
        pkn.normals(x, seed, stream.INPUT, 0, r)
        pkn.normals(c, seed, stream.COTANGENT, steps, r)
        c *= np.float32(1 / np.sqrt(n * B))
        _, g = solve(x, c, steps, np.float32(dt), scale, row, row_parameter, seed, r, tied)
        square = 0.0
        for v in g.ravel():
            square += np.float64(v) ** 2
        out[r] = 0.5 * np.log10(square)
    return out


def main():
    row = pkn.activation("tanh")
    for tied in (False, True):
        gradient = ensemble(64, 2, 50, 0.1, 64**-0.5, *row, 7, 20, tied)
        print("one weight" if tied else "a weight a step", np.median(gradient))


if __name__ == "__main__":
    main()
