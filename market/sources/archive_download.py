"""Files from an address, gone on with where an earlier download of them broke off.

What has come of a file is kept beside where it will be, with the server's mark of it (ETag). The rest is asked for
with `Range`, and with `If-Range` where there is a mark, so that a file which has changed since comes whole. Whether
the parts make the file that was meant its checksum says: the caller verifies, and asks anew when it is wrong.
"""

from __future__ import annotations

import fcntl
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from market.errors import SourceUnreadable

ATTEMPTS = 4
"""Requests in a row that bring nothing before a download is given up."""
PAUSE_S = 0.5
TIMEOUT_S = 60.0
BLOCK_BYTES = 1 << 16
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")


@dataclass(frozen=True)
class Downloaded:
    """A file, and whether it was put together from several answers."""

    content: bytes
    pieced: bool


class _Broken(Exception):
    """The answer ended early, or does not fit to what is there."""


class _Absent(Exception):
    """The server has no such file."""


class Part:
    """What has come of a file: at `path`, or in memory where there is none or another process writes there."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self.pieced = False
        """Whether it was put together from several answers."""
        if path is not None and path.exists():
            self._open(path)

    def _open(self, path: Path | None) -> IO[bytes]:
        file: IO[bytes] = BytesIO()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                self._path, file = None, BytesIO()
        self._file = file
        return file

    def close(self) -> None:
        """Let go of the file; it stays."""
        if self._file is not None:
            self._file.close()

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return 0 if self._file is None else self._file.seek(0, 2)

    @property
    def mark(self) -> str:
        """The strong ETag of the file that the bytes are of; empty where the server gave none."""
        mark = None if self._path is None else _mark_of(self._path)
        found = mark.read_text() if mark is not None and mark.exists() else ""
        return found if found.startswith('"') else ""

    def begin(self, mark: str) -> None:
        """Forget everything; what comes is of the file with this mark."""
        file = self._file or self._open(self._path)
        file.seek(0)
        file.truncate()
        self.pieced = False
        if self._path is not None:
            _mark_of(self._path).write_text(mark)

    def add(self, block: bytes) -> None:
        """Bytes that follow."""
        file = self._file or self._open(self._path)
        file.seek(0, 2)
        file.write(block)

    def content(self) -> bytes:
        """All bytes."""
        if self._file is None:
            return b""
        self._file.seek(0)
        return self._file.read()


def forget(path: Path) -> None:
    """Remove what is kept of a file."""
    path.unlink(missing_ok=True)
    _mark_of(path).unlink(missing_ok=True)


def download(url: str, path: Path | None, pause: Callable[[float], None]) -> Downloaded | None:
    """The file at `url`, or None if there is none; what comes of it is kept at `path` until `forget`.

    Raises `SourceUnreadable` after too many attempts in a row that brought nothing.
    """
    with closing(Part(path)) as part:
        failures = 0
        while True:
            before = part.size
            try:
                _fetch(url, part)
                return Downloaded(part.content(), part.pieced)
            except _Absent:
                return None
            except urllib.error.HTTPError as error:
                reason, again = f"the server answered {error.code}", error.code >= 500 or error.code == 429
            except (OSError, http.client.HTTPException, _Broken) as error:
                reason, again = str(error) or type(error).__name__, True
            failures = 1 if part.size > before else failures + 1
            if not again or failures >= ATTEMPTS:
                raise SourceUnreadable(url, reason)
            pause(PAUSE_S * 2 ** (failures - 1))


def _fetch(url: str, part: Part) -> None:
    """Ask for what is missing and take it in."""
    request, have = urllib.request.Request(url), part.size  # noqa: S310 - the caller's address is http or https
    if have:
        request.add_header("Range", f"bytes={have}-")
        if part.mark:
            request.add_header("If-Range", part.mark)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as above
            _take(answer, part, have)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise _Absent from None
        if error.code != 416:
            raise
        _, total = _range_of(error.headers.get("Content-Range"))
        if total != have:
            part.begin("")
            raise _Broken("what was there is no part of the file") from None
        part.pieced = True  # all of it was there already


def _take(answer: http.client.HTTPResponse, part: Part, have: int) -> None:
    length = answer.headers.get("Content-Length")
    total = int(length) if length and length.isdecimal() else None
    if answer.status == 206:
        start, total = _range_of(answer.headers.get("Content-Range"))
        if start != have:
            part.begin("")
            raise _Broken(f"the server sent bytes from {start}, not from {have}")
        part.pieced = True
    else:
        part.begin(answer.headers.get("ETag") or "")
    while block := answer.read(BLOCK_BYTES):
        part.add(block)
    if total is not None and part.size != total:
        if part.size > total:
            part.begin("")
        raise _Broken(f"{part.size} of {total} bytes came")


def _range_of(text: str | None) -> tuple[int | None, int | None]:
    """Start and total of a `Content-Range`."""
    found = CONTENT_RANGE.fullmatch(text or "")
    if found is None:
        return None, None
    return int(found[1]) if found[1] else None, int(found[2])


def _mark_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.etag")
