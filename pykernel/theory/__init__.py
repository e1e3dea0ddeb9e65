# SPDX-License-Identifier: BSD-3-Clause
"""What theory says about a chain: mean field, finite width, critical points, spectra, and advice."""
