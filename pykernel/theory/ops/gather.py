# SPDX-License-Identifier: BSD-3-Clause
"""Patches of positions at infinite width: positions of one input would have to be told apart, so theory refuses it."""

from __future__ import annotations

from pykernel.theory.structure import NoTheory

ROWS = FAR_ROWS = ()


def law(walk, stretch, op):
    raise NoTheory(
        "mean field does not tell neighbours apart, so it knows no convolutions over several positions; use propagate"
    )
