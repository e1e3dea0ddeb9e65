# SPDX-License-Identifier: BSD-3-Clause
"""What asv measures: speed and memory of the kernels, start-up, the machine's own peaks, and gradient scaling by
scheme."""
