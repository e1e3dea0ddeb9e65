# SPDX-License-Identifier: BSD-3-Clause
"""A file of a store: a line `pykernel <kind> <version> <sha256 of the rest>` and the rest; what does not match is never
believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

VERSION = 1


class StoreError(RuntimeError):
    """A store cannot be read or written; the message names the file and what to do.

    Examples:
        >>> import pykernel as pk
        >>> try:
        ...     pk.open("no/such/folder")
        ... except pk.StoreError as error:
        ...     print(str(error)[:15])
        no/such/folder
    """


class Damage(StoreError):
    """The bytes of one file do not match its checksum."""


def frame(kind: str, rest: bytes) -> bytes:
    return f"pykernel {kind} {VERSION} {hashlib.sha256(rest).hexdigest()}\n".encode() + rest


def unframe(kind: str, content: bytes, path: Path) -> bytes:
    """The rest of a framed file.

    Raises:
        Damage: if any byte is not what was written.
    """
    head, _, rest = content.partition(b"\n")
    words = head.split(b" ")
    if len(words) == 4 and words[:2] == [b"pykernel", kind.encode()] and words[2].isdigit() and int(words[2]) > VERSION:
        newer = frame(kind, rest).split(b" ", 3)[3]
        if content.split(b" ", 3)[3] == newer:
            raise StoreError(
                f"{path} was written by a newer pykernel (store version {int(words[2])}, this one reads {VERSION})"
            )
    if frame(kind, rest) != content:
        raise Damage(f"{path} is damaged: its bytes do not match its checksum")
    return rest


def encode(header: dict, blob: np.ndarray) -> bytes:
    """The bytes of a part: a line of JSON that says what the numbers are, and the numbers (float64, little endian)."""
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-(len(frame("part", b"")) + len(words) + 1) % 8)  # so that the numbers are aligned
    rest = words + b"\n" + np.ascontiguousarray(blob, dtype="<f8").tobytes()
    return frame("part", rest)


def decode(content: bytes, path: Path) -> tuple[dict, np.ndarray]:
    """Header and numbers of a part read from disk.

    Raises:
        Damage: if any byte is not what was written.
    """
    unframe("part", content, path)
    return split(content)


def split(content: bytes) -> tuple[dict, np.ndarray]:
    """Header and numbers of a part that was just made."""
    begin = content.index(b"\n") + 1
    end = content.index(b"\n", begin)
    return json.loads(content[begin:end]), np.frombuffer(content, dtype="<f8", offset=end + 1) if len(
        content
    ) > end + 1 else np.zeros(0)
