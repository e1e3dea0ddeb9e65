# SPDX-License-Identifier: BSD-3-Clause
"""What every test shares: a folder for compiled Numba code, which knows its sources and so is never stale, and a Ctrl-C
that is heard."""

import os
import signal
from pathlib import Path

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parent.parent / "build" / "numba"))
# A shell starts what it runs in the background deaf to Ctrl-C, and so would be what tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
