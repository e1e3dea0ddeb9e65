# SPDX-License-Identifier: BSD-3-Clause
"""Nominal seconds of one replica on one core, for every engine and backend: what sweeps cut blocks by, and `auto` chooses by.

Figures are of one Zen 3 core at 2.3 GHz (AVX2, float32). A sweep learns the factor between them and the machine at hand.
"""

from __future__ import annotations

import numpy as np


def seconds(engine: str, backend: str, widths: np.ndarray, batch: int, distribution: str) -> float:
    """Nominal seconds of one replica.

    Args:
        widths: n[0] .. n[L].  batch: inputs.  distribution: of the weights (see `Plan`).
    """
    depth, units = len(widths) - 1, float(widths[1:].sum()) * batch
    if engine == "matrix_free" and backend != "cpp":  # NumPy between the draws
        return depth * (3.3e-3 + 1e-4 * batch) + units * 1e-6
    total = 2e-5 + depth * (6e-5 if backend == "numba" else 1.5e-6) + units * 12e-9
    if engine == "matrix_free":
        total += units * (8e-9 + 2e-9 * batch)
    else:
        weights = float(np.dot(widths[1:].astype(float), widths[:-1]))
        total += weights * (1.2e-9 + 0.08e-9 * batch) * (distribution not in ("identity", "constant"))
        if distribution == "haar":
            low, high = np.minimum(widths[1:], widths[:-1]), np.maximum(widths[1:], widths[:-1]).astype(float)
            total += float((high * low.astype(float) ** 2).sum()) * 0.5e-9
    return total * {"reference": 1000.0, "numba": 1.5}.get(backend, 1.0)
