"""The exchange's own archive (data.binance.vision), from a mirror on disk or over HTTP."""

from __future__ import annotations

import hashlib
import threading
import urllib.error
import urllib.request
from collections import OrderedDict
from pathlib import Path
from urllib.parse import quote

import numpy as np
from pyarrow import fs

from market import bars as bars_module
from market import funding as funding_module
from market.bars import DAY_MS, Bars
from market.errors import SourceUnreadable, UnknownSymbol
from market.funding import Fundings
from market.klines_store import dates, day_start
from market.lake import put_atomic
from market.sources import recorded

BASE_URL = "https://data.binance.vision"
_ROOT = "data/futures/um"
_KEPT_FILES = 64
_TIMEOUT_S = 60.0


class BinanceArchive:
    """A `BarSource` over the archive's daily and monthly zips, each checked against its `.CHECKSUM`.

    A month's file is used where there is one, else the days' files; a day that the archive lacks has no bars.

    Parameters
    ----------
    location
        A folder that mirrors the archive (`data/futures/um/…` below it), or its address. The archive cannot be
        listed over HTTP, so at an address the coverage is not known (None).
    symbols
        The symbols to offer; a mirror offers all that it holds unless told otherwise.
    cache
        Where files from an address are kept, as a mirror; by default `~/.cache/perpforge/archive`.
    """

    def __init__(self, location: str, symbols: tuple[str, ...] = (), cache: Path | None = None) -> None:
        self.location = location.rstrip("/")
        self._remote = self.location.startswith(("http://", "https://"))
        if self._remote:
            self._mirror = cache or Path.home() / ".cache" / "perpforge" / "archive"
        else:
            self._mirror = Path(location)
            if not (self._mirror / _ROOT).is_dir():
                raise SourceUnreadable(location, f"it is no mirror of the archive, it has no {_ROOT}")
        for symbol in symbols:
            self._check(symbol)
        self._symbols = symbols or tuple(sorted(self._listed()))
        # A missing day may be there tomorrow; a month that was missing once is read by days.
        self._missing_months: set[str] = set()
        self._bars: OrderedDict[Path, Bars] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """`archive(LOCATION)`."""
        return f"archive({self.location})"

    def symbols(self) -> tuple[str, ...]:
        """The symbols given, else those of the mirror; empty at an address when none were given."""
        return self._symbols

    def coverage(self, symbol: str) -> tuple[int, int] | None:
        """From the first day that a mirror has a file of to the end of the last; None at an address."""
        self._known(symbol)
        if self._remote:
            return None
        folders = (self._mirror / _ROOT / folder / "klines" / symbol / "1m" for folder in ("daily", "monthly"))
        names = (path.stem for folder in folders for path in folder.glob(f"{symbol}-1m-*.zip"))
        spans = [_span(name.removeprefix(f"{symbol}-1m-")) for name in names]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """The archived 1m bars with open_time in [start_ms, end_ms)."""
        self._known(symbol)
        pieces, months = [], set[str]()
        with self._lock:
            for date in dates(start_ms, end_ms):
                month = date[:7]
                if month in months:
                    continue
                bars = self._file(f"monthly/klines/{symbol}/1m/{symbol}-1m-{month}.zip")
                if bars is not None:
                    months.add(month)
                else:
                    bars = self._file(f"daily/klines/{symbol}/1m/{symbol}-1m-{date}.zip")
                if bars is not None:
                    pieces.append(bars)
        bars = np.concatenate(pieces) if pieces else bars_module.empty()
        first, last = np.searchsorted(bars["open_time"], (start_ms, end_ms))
        return bars_module.validate(symbol, bars[first : max(first, last)])

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """The archived fundings in [start_ms, end_ms); the archive has them by whole months only."""
        self._known(symbol)
        pieces = []
        for month in sorted({date[:7] for date in dates(start_ms, end_ms)}):
            with self._lock:
                path = self._fetch(f"monthly/fundingRate/{symbol}/{symbol}-fundingRate-{month}.zip")
            if path is not None:
                pieces.append(recorded.read_archived_funding(path))
        joined = np.concatenate(pieces) if pieces else funding_module.empty()
        return funding_module.between(joined, start_ms, end_ms)

    def _listed(self) -> set[str]:
        if self._remote:
            return set()
        folders = (self._mirror / _ROOT / folder / "klines" for folder in ("daily", "monthly"))
        return {path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()}

    def _known(self, symbol: str) -> None:
        self._check(symbol)
        if self._symbols and symbol not in self._symbols:
            raise UnknownSymbol(symbol, self.name)

    def _check(self, symbol: str) -> None:
        # The name becomes part of a path. Some symbols are not ASCII.
        if not symbol.replace("_", "").isalnum():
            raise UnknownSymbol(symbol, self.name)

    def _file(self, path: str) -> Bars | None:
        """The bars of one zip, or None if the archive lacks it."""
        found = self._fetch(path)
        if found is None:
            return None
        if found not in self._bars:
            self._bars[found] = recorded.read_file(found)
            while len(self._bars) > _KEPT_FILES:
                self._bars.popitem(last=False)
        self._bars.move_to_end(found)
        return self._bars[found]

    def _fetch(self, path: str) -> Path | None:
        """A checked file on disk, or None if the archive lacks it."""
        local = self._mirror / _ROOT / path
        if local in self._bars:
            return local
        if path in self._missing_months:
            return None
        if not self._remote:
            if not local.is_file():
                return None
            check = local.with_name(f"{local.name}.CHECKSUM")
            _verify(local, local.read_bytes(), check.read_text() if check.is_file() else "")
            return local
        if local.is_file():
            return local
        content = self._download(path)
        if content is None:
            self._missing_months |= {path} if path.startswith("monthly/klines/") else set()
            return None
        _verify(local, content, (self._download(f"{path}.CHECKSUM") or b"").decode("utf-8", "replace"))
        put_atomic(fs.LocalFileSystem(), str(local), content)
        return local

    def _download(self, path: str) -> bytes | None:
        url = f"{self.location}/{_ROOT}/{quote(path)}"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - http or https, see above
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise SourceUnreadable(url, f"the server answered {error.code}") from error
        except OSError as error:
            raise SourceUnreadable(url, str(error)) from error


def _verify(path: Path, content: bytes, checksum: str) -> None:
    """Raise `SourceUnreadable` unless `checksum` (`sha256  name`) is this file's."""
    words = checksum.split()
    if len(words) != 2 or words[1].lstrip("*") != path.name:
        raise SourceUnreadable(str(path), "its CHECKSUM is missing or of another file")
    digest = hashlib.sha256(content).hexdigest()
    if digest != words[0].lower():
        raise SourceUnreadable(str(path), f"its sha256 is {digest}, its CHECKSUM says {words[0]}")


def _span(label: str) -> tuple[int, int]:
    """[start, end) of a day (YYYY-MM-DD) or month (YYYY-MM)."""
    if len(label) == 10:
        return day_start(label), day_start(label) + DAY_MS
    year, month = int(label[:4]), int(label[5:])
    following = f"{year + month // 12}-{month % 12 + 1:02d}-01"
    return day_start(f"{label}-01"), day_start(following)
