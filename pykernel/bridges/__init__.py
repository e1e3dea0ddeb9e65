# SPDX-License-Identifier: BSD-3-Clause
"""Networks of other libraries as chains, and chains as their weights. Nothing here imports those libraries before they
are used."""
