# SPDX-License-Identifier: BSD-3-Clause
"""`python -m pykernel` is `pykernel`."""

import sys

from pykernel.cli import main

if __name__ == "__main__":
    sys.exit(main())
