# SPDX-License-Identifier: BSD-3-Clause
"""nn.RNN and nn.RNNCell as the step of a tied chain: h = phi(W h + U x + b)."""

from __future__ import annotations

import numpy as np

from pykernel.bridges import recognise
from pykernel.bridges.torch_kinds import array, where_of
from pykernel.chain import Chain
from pykernel.drive import Drive
from pykernel.init import Given
from pykernel.layers import Block, Linear

CELLS = ("RNN", "RNNCell")


def is_cell(module) -> bool:
    """Whether a module is a recurrence of one layer that a chain can be."""
    return type(module).__module__.startswith("torch.nn.") and type(module).__name__ in CELLS


def require_none_inside(module) -> None:
    """Refuse a module that unrolls a cell, or has one among other layers: how often it is called, and what comes in at
    each step, is in a forward of its own, while a chain says it by its depth and its drive.

    Raises:
        ValueError: naming the cell and how to read it.
    """
    parts = module.named_modules() if hasattr(module, "named_modules") else ()  # what is no module is refused later
    found = next(((path, part) for path, part in parts if path and is_cell(part)), None)
    if found is not None:
        path, cell = found
        kind, own = type(cell).__name__, type(module).__name__
        raise ValueError(
            f"{own} calls {path} ({kind}) step by step; a recurrence is read by itself, as one step of a tied chain: "
            f"from_torch of the module's {path}, then .replace(depth=steps), propagate(x=...) for its first state and "
            "propagate(drive=...) for its inputs"
        )


def step(module, *, weights: bool, init) -> Chain:
    """The tied chain of one step of a cell, see `from_torch`.

    Raises:
        ValueError: layers or directions of which a chain has one.
    """
    where = where_of(module, "")
    if getattr(module, "num_layers", 1) != 1 or getattr(module, "bidirectional", False):
        raise ValueError(f"{where} has several layers or directions; a tied chain is one recurrence: give one of them")
    suffix = "_l0" if type(module).__name__ == "RNN" else ""
    W, U = (getattr(module, f"weight_{kind}{suffix}") for kind in ("hh", "ih"))
    n, m = (int(size) for size in U.shape)
    biases = [getattr(module, f"bias_{kind}{suffix}", None) for kind in ("ih", "hh")]
    bias = None if biases[0] is None or not module.bias else sum(array(b, where) for b in biases)
    words = [{}, {}]
    own: dict = {"init": init}
    if weights:
        given = Given([array(W, where), array(U, where)], [bias, None], name="the module's weights")
        own = {"init": given}
    elif init is None:
        for word, weight in zip(words, (W, U), strict=True):
            word["init"], word["gain"], _ = recognise.scheme([array(weight, where)], [None])
        own = {}
        words[0]["bias_std"] = 0.0 if bias is None else float(np.sqrt(np.square(bias).mean()))
    body = Block(Linear(n, **words[0]), Drive(m, **words[1]), module.nonlinearity)
    return Chain(width=n, blocks=(body,), tied=True, **own)
