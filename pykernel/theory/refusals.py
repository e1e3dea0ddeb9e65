# SPDX-License-Identifier: BSD-3-Clause
"""What infinite-width theory does not say: the chains that it leaves out, each with its reason in a sentence."""

from __future__ import annotations

ONE_NORMED_INPUT = (
    "batch norm of a single input is zero: no branch passes a signal or a gradient, only skip connections do; use a batch of 2 or more"
)

# phi(-z) = -phi(z): a sum over skip connections then has no mean that a finite net would amplify.
ODD = ("linear", "tanh", "hardtanh", "softsign", "erf", "arctan", "sin")


def refusal(chain) -> str | None:
    """Why infinite width says nothing of a chain that could be measured, or None.

    Skip connections around branches that end in a function that is not odd: their outputs add up to a mean, and the gradient's part
    along it grows by more than infinite width says (152 layers of ReLU: 16 decades, not 11).
    """
    if chain.residual is not None and chain.order == "linear-norm-activation" and chain.activation.name not in ODD:
        return f"branches that end in {chain.activation} add up to a mean, which infinite width leaves out"
    return None
