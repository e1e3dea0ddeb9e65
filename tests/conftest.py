# SPDX-License-Identifier: BSD-3-Clause
"""What every test shares: a Numba cache that belongs to exactly these sources, and a Ctrl-C that is heard."""

import hashlib
import os
import signal
from pathlib import Path

ROOT = Path(__file__).parent.parent


def numba_cache_of_sources() -> Path:
    """Numba does not notice an edit in another file than the kernel's own; a folder named after all its sources cannot be stale."""
    package = ROOT / "pykernel"
    constants = (package / name for name in ("stream.py", "activations.py", "plan.py", "observables.py", "numba.py"))
    digest = hashlib.sha256()
    for path in sorted([*constants, *(package / "kernels").glob("*.py"), *(package / "engines").glob("numba*.py")]):
        digest.update(path.read_bytes())
    return ROOT / "build" / f"numba-{digest.hexdigest()[:16]}"


os.environ.setdefault("NUMBA_CACHE_DIR", str(numba_cache_of_sources()))
# A shell starts what it runs in the background deaf to Ctrl-C, and so would be what tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
