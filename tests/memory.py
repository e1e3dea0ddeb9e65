# SPDX-License-Identifier: BSD-3-Clause
"""Greatest memory of a program of its own, for tests that bound it."""

import subprocess
import sys

PREAMBLE = """
import pykernel as pk


def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
"""


def peaks(code):
    """Run `code` in a fresh interpreter, with `pk` imported; greatest memory after the import and at the end, in MiB.

    `getrusage` would not do: its greatest value passes from a parent to the program that the parent starts, so it can
    be that of the test runner.
    """
    script = f"{PREAMBLE}\nbefore = peak()\n{code}\nprint(before, peak())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))
