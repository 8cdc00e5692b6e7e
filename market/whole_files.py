"""Small files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from market.folders import sync_folder


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`: to a temporary file beside it, flushed to the disk, then renamed over it.

    A process that is killed leaves the old content or the new, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)
