"""Files that a reader sees as they were or as they will be, never in between, also when the writer is killed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from market.folders import make_folders, sync_folder


def put_atomic(filesystem: fs.FileSystem, path: str, data: bytes | pa.Buffer) -> None:
    """Write a whole file so that it is seen either as it was or as it will be, and is on disk on return.

    Locally: a hidden temporary file beside it, fsync, rename, fsync of the folder. Elsewhere (S3) one stream,
    which the store shows only when it is complete.
    """
    if not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)
        return
    target = Path(path)
    make_folders(target.parent)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)  # there is one only where something went wrong
    sync_folder(target.parent)
