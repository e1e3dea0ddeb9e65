# SPDX-License-Identifier: BSD-3-Clause
"""Signal and gradient propagation through very deep random chains, and how gradients scale with depth."""

from pykernel._core import version as __version__

__all__ = ["__version__"]
