# SPDX-License-Identifier: BSD-3-Clause
"""A file for people, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path, elsewhere: str) -> Iterator[Path]:
    """Where to write what stands under its name once all is written.

    Args:
        path: the file; its directory is made where there is none.
        elsewhere: of a message, what the caller can do: "--output FILE writes elsewhere".

    Raises:
        OSError: the disk refuses; what was there before stays.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     with whole(Path(out) / "here" / "a.txt", "") as temporary:
        ...         temporary.write_text("all") and None
        ...     (Path(out) / "here" / "a.txt").read_text()
        'all'
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"{path} could not be written ({error.strerror or error}); {elsewhere}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
