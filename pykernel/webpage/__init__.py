# SPDX-License-Identifier: BSD-3-Clause
"""Reports: a sweep or a network as one HTML file that needs no network; what it says in words is made here, its figures
by the scripts beside."""
