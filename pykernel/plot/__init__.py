# SPDX-License-Identifier: BSD-3-Clause
"""Figures by matplotlib, which is imported when the first is drawn: `sweeps` for grids of chains."""
