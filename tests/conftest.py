# SPDX-License-Identifier: BSD-3-Clause
"""What every test shares: a Numba cache of this checkout. Kernels in it are stale when a file changes that they import (kernels/sources.py)."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent

os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / "build" / "numba"))
