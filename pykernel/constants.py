# SPDX-License-Identifier: BSD-3-Clause
"""Thresholds that Python and C++ share; csrc/constants.hpp says them and where they come from."""

from pykernel._core import constants as _shared

RANGE: int = _shared.range  # blocks of float64 are renormalised when their largest magnitude leaves [2^-RANGE, 2^RANGE]
LOST_DIRECTION: float = _shared.lost_direction
PREFERRED_DIRECTION: float = _shared.preferred_direction
