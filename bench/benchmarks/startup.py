# SPDX-License-Identifier: BSD-3-Clause
"""How long a user waits before anything happens: imports in a fresh interpreter."""


class StartUp:
    """`import pykernel` loads NumPy and the extension, so it is to be read beside `import numpy`."""

    repeat = (1, 7, 3.0)
    number = 1
    rounds = 1

    def timeraw_import_pykernel(self):
        return "import pykernel"

    def timeraw_import_numpy(self):
        return "import numpy"

    def timeraw_first_chain(self):
        return "import pykernel as pk; str(pk.propagate(pk.Chain(depth=10, width=64)))"
