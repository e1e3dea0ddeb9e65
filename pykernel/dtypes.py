# SPDX-License-Identifier: BSD-3-Clause
"""Types of arrays by what they hold, as signatures name them; shapes stand in docstrings. As texts, since
`numpy.typing` takes time and memory to load."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Floats: TypeAlias = "np.ndarray[tuple[Any, ...], np.dtype[np.float64]]"
Singles: TypeAlias = "np.ndarray[tuple[Any, ...], np.dtype[np.float32]]"
# float32 or float64, as the dtype of a run says
Reals: TypeAlias = "np.ndarray[tuple[Any, ...], np.dtype[np.floating[Any]]]"
Ints: TypeAlias = "np.ndarray[tuple[Any, ...], np.dtype[np.int64]]"
Bools: TypeAlias = "np.ndarray[tuple[Any, ...], np.dtype[np.bool_]]"
Words32: TypeAlias = "np.ndarray[tuple[Any, ...], np.dtype[np.uint32]]"
