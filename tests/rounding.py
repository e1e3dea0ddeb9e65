# SPDX-License-Identifier: BSD-3-Clause
"""What a rounding error of every layer's weights does to the definition's rows: no engine gets closer than that."""

import dataclasses

import numpy as np

from pykernel.engines import reference


def definition_and_moved(program):
    """The reference's rows, and those where the weights of every layer are one rounding error off."""
    signs = np.random.default_rng(0).integers(-1, 2, program.depth)
    layers = program.layers._replace(scale=program.layers.scale * (1 + signs * 2.0**-52))
    return (reference.run(p, 0, 1, threads=1) for p in (program, dataclasses.replace(program, layers=layers)))
