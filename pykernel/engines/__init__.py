# SPDX-License-Identifier: BSD-3-Clause
"""The table of engines and backends, and how `auto` chooses. A module is imported when it is first asked for."""
