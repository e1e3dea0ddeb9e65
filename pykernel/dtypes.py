# SPDX-License-Identifier: BSD-3-Clause
"""Types of arrays by what they hold, as signatures name them; shapes stand in docstrings."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Singles: TypeAlias = NDArray[np.float32]
Reals: TypeAlias = NDArray[np.floating[Any]]  # float32 or float64, as the dtype of a run says
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Words32: TypeAlias = NDArray[np.uint32]
