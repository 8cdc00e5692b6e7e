"""A file in memory, made whole before it has its name."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from trading_worker.errors import StateUnwritable

PAGE = 4096


def pages(size: int) -> int:
    """`size` bytes, rounded up to whole pages.

    >>> pages(1), pages(4096), pages(0)
    (4096, 4096, 0)
    """
    return -(-size // PAGE) * PAGE


class MappedFile:
    """The bytes of a file as an array, shared with the kernel: what is stored in them survives the process.

    A killed process loses nothing that it has stored, for the pages are the kernel's; a loss of power loses what the
    kernel has not written back. Whoever stores here says by checksums what is whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("r+b") as file:
                # Without this a page that cannot be had later would kill the process.
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
                self._map = mmap.mmap(file.fileno(), 0)
        except OSError as error:
            raise StateUnwritable(path, str(error)) from error
        self.bytes: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        """All of it, uint8 [size]; stored into, never kept beyond `close`."""

    @staticmethod
    def replace(path: Path, size: int, *parts: tuple[int, bytes]) -> MappedFile:
        """Put a file of `size` bytes at `path`, zero but for `parts` (offset, bytes), in place of what is there.

        Whenever the process is killed, the old file is there or the new one, whole; the disk is not waited for.
        Raises `StateUnwritable`.
        """
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w+b") as file:
                _fill(file, size, parts)
            partial.replace(path)
        except OSError as error:
            raise StateUnwritable(path, str(error)) from error
        return MappedFile(path)

    def close(self) -> None:
        """Let go of it. Arrays over its bytes that are still held keep the memory until they go."""
        self.bytes = np.empty(0, dtype=np.uint8)
        try:
            self._map.close()
        except BufferError:
            return


def _fill(file: IO[bytes], size: int, parts: tuple[tuple[int, bytes], ...]) -> None:
    os.posix_fallocate(file.fileno(), 0, size)
    for offset, part in parts:
        file.seek(offset)
        file.write(part)
    file.flush()
