# SPDX-License-Identifier: BSD-3-Clause
"""What every test shares: a folder for compiled Numba code. What it holds knows its sources, so it is never stale and never cleared."""

import os
from pathlib import Path

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parent.parent / "build" / "numba"))
