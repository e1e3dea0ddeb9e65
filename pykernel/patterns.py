# SPDX-License-Identifier: BSD-3-Clause
"""The patterns of chains, lowered once where a chain is asked for again and again."""

from __future__ import annotations

import functools
from typing import Any

from pykernel.pattern import Pattern

REMEMBERED = 1000  # repetitions: the numbers of a longer chain take some memory
CHAINS = 64  # a sweep of as many reads each once, not once a stage; more push each other out of the processor's memory


def pattern_of(chain: Any, positions: tuple[int, ...] = ()) -> Pattern:
    """The pattern of a chain for inputs of these positions, not to be changed; those of chains that are asked for again
    and again, or are made anew of the same words, are remembered.

    Raises:
        ValueError: what does not fit together; a chain that looks at positions as a field, without them.
    """
    positions = tuple(positions) if chain.is_spatial else ()
    return Pattern(chain, positions) if chain.depth > REMEMBERED else _of_object(_Itself(chain), positions)


class _Itself:
    """A chain as a key that nothing but the same object equals: found without reading all its words."""

    def __init__(self, chain: Any) -> None:
        self.chain = chain

    def __hash__(self) -> int:
        return id(self.chain)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.chain is other.chain


@functools.lru_cache(maxsize=CHAINS)
def _of_object(itself: _Itself, positions: tuple[int, ...]) -> Pattern:
    return _of_words(itself.chain, positions)


@functools.lru_cache(maxsize=CHAINS)
def _of_words(chain: Any, positions: tuple[int, ...]) -> Pattern:
    return Pattern(chain, positions)
