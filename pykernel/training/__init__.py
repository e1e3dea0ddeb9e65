# SPDX-License-Identifier: BSD-3-Clause
"""From a fresh network by full-batch gradient descent: train, and the coordinate check over widths."""
