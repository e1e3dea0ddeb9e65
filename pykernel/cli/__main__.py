# SPDX-License-Identifier: BSD-3-Clause
"""`python -m pykernel.cli` is `pykernel`."""

import sys

from pykernel.cli import main

sys.exit(main())
