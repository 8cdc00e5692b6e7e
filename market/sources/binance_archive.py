"""The exchange's own archive (data.binance.vision), from a mirror on disk or over HTTP."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
from pyarrow import fs

from market import bars as bars_module
from market import funding as funding_module
from market.atomic_files import put_atomic
from market.bars import DAY_MS, Bars
from market.errors import SourceUnreadable, UnknownSymbol
from market.funding import Fundings
from market.klines_store import date_of, dates, day_start
from market.sources import recorded
from market.sources.archive_download import download, forget
from market.sources.archive_listing import ARCHIVE_LISTING, ListingRefused, names

BASE_URL = "https://data.binance.vision"
_ROOT = "data/futures/um"
_KEPT_FILES = 64


class BinanceArchive:
    """A `BarSource` over the archive's daily and monthly zips, each checked against its `.CHECKSUM`.

    A month's file is used where there is one, else the days' files; a day that the archive lacks has no bars.

    Parameters
    ----------
    location
        A folder that mirrors the archive (`data/futures/um/…` below it), or its address. At an address the
        coverage is not known (None).
    symbols
        The symbols to offer; a mirror offers all that it holds unless told otherwise.
    cache
        Where files from an address are kept, as a mirror; by default `~/.cache/perpforge/archive`, and beside it a
        folder for each other address. A kept file is compared with the archive's present checksum when it is read, and
        fetched anew when that has changed; while the archive cannot be asked, it is used as it is. The folder given as
        `location` is never compared.
    pause
        How to wait, in seconds, before a download that failed is tried again.
    listing
        Where the store of an address can be listed; "auto": the venue's own store for the venue's own archive and
        nowhere for any other address; empty for nowhere.
    """

    def __init__(
        self,
        location: str,
        symbols: tuple[str, ...] = (),
        cache: Path | None = None,
        pause: Callable[[float], None] = time.sleep,
        listing: str = "auto",
    ) -> None:
        self.location = location.rstrip("/")
        self._listing = listing
        if listing == "auto":
            self._listing = ARCHIVE_LISTING if self.location == BASE_URL else ""
        self._remote = self.location.startswith(("http://", "https://"))
        if self._remote:
            self._mirror = cache or _cache_of(self.location)
        else:
            self._mirror = Path(location)
            if not (self._mirror / _ROOT).is_dir():
                raise SourceUnreadable(location, f"it is no mirror of the archive, it has no {_ROOT}")
        for symbol in symbols:
            self._check(symbol)
        self._symbols = symbols or tuple(sorted(self._listed()))
        self._missing_months: set[str] = set()
        self._bars: OrderedDict[str, Bars] = OrderedDict()
        self._pause = pause
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
        spans = [span(name.removeprefix(f"{symbol}-1m-")) for name in names]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """The archived 1m bars with open_time in [start_ms, end_ms)."""
        self._known(symbol)
        pieces, months = [], set[str]()
        for date in dates(start_ms, end_ms):
            month = date[:7]
            if month in months:
                continue
            bars = self._kept(kline_path(symbol, month))
            if bars is not None:
                months.add(month)
            else:
                bars = self._kept(kline_path(symbol, date))
            if bars is not None:
                pieces.append(bars)
        bars = np.concatenate(pieces) if pieces else bars_module.empty()
        first, last = np.searchsorted(bars["open_time"], (start_ms, end_ms))
        return bars_module.validate(symbol, bars[first : max(first, last)])

    def read(self, symbol: str, label: str, interval: str = "1m") -> Bars | None:
        """The bars of one zip, of a day (YYYY-MM-DD) or month (YYYY-MM), or None if the archive lacks it.

        Any thread may read any file. Nothing is kept in memory. Raises `SourceUnreadable` or `BarRejected`.
        """
        self._known(symbol)
        path = kline_path(symbol, label, interval)
        content = self._content(path)
        if content is None:
            return None
        bars = recorded.read_file(self._mirror / _ROOT / path, content=content)
        first, last = span(label)
        if bars.size and not first <= int(bars["open_time"][0]) <= int(bars["open_time"][-1]) < last:
            raise SourceUnreadable(path, f"it holds bars outside {label}")
        return bars

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """The archived fundings in [start_ms, end_ms); the archive has them by whole months only."""
        self._known(symbol)
        pieces = []
        for month in sorted({date[:7] for date in dates(start_ms, end_ms)}):
            path = f"monthly/fundingRate/{symbol}/{symbol}-fundingRate-{month}.zip"
            content = self._content(path)
            if content is not None:
                pieces.append(recorded.read_archived_funding(self._mirror / _ROOT / path, content))
        joined = np.concatenate(pieces) if pieces else funding_module.empty()
        return funding_module.between(joined, start_ms, end_ms)

    def listed(self) -> tuple[str, ...]:
        """The USDT perpetual contracts that the archive has klines of, those that are gone today among them.

        Raises `ListingRefused` where the archive cannot be listed, with the reason.
        """
        found = self._listed() if not self._remote else self._folders()
        return tuple(sorted(name for name in found if name.endswith("USDT") and name.isalnum()))

    def labels(self, symbol: str, interval: str, since: str) -> set[str] | None:
        """The days and months from the day `since` on that the archive has a zip of; None where it cannot be listed.

        Raises `ListingRefused` where it could be listed but was not.
        """
        self._known(symbol)
        if not self._remote or not self._listing:
            return None
        found = set[str]()
        start, yesterday = f"{symbol}-{interval}-", date_of(day_start(since) - DAY_MS)
        last_month = date_of(day_start(f"{since[:7]}-01") - DAY_MS)[:7]
        for folder, before in (("monthly", last_month), ("daily", yesterday)):
            # A tilde comes after everything that a name goes on with.
            after = f"{start}{before}~"
            for name in names(self._listing, f"{_ROOT}/{folder}/klines/{symbol}/{interval}/", self._pause, after):
                if name.startswith(start) and name.endswith(".zip"):
                    found.add(name.removeprefix(start).removesuffix(".zip"))
        return found

    def _folders(self) -> set[str]:
        """The symbols by the store's own listing."""
        if not self._listing:
            raise ListingRefused(f"no listing of {self.location} is known")
        prefixes = (f"{_ROOT}/{folder}/klines/" for folder in ("daily", "monthly"))
        return {name.rstrip("/") for prefix in prefixes for name in self._names(prefix) if name[-1:] == "/"}

    def _names(self, prefix: str) -> Iterator[str]:
        return names(self._listing, prefix, self._pause)

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

    def _kept(self, path: str) -> Bars | None:
        """The bars of one zip, kept for the next question, or None if the archive lacks it."""
        with self._lock:
            if path in self._bars:
                self._bars.move_to_end(path)
                return self._bars[path]
        content = self._content(path)
        if content is None:
            return None
        bars = recorded.read_file(self._mirror / _ROOT / path, content=content)
        with self._lock:
            self._bars[path] = bars
            while len(self._bars) > _KEPT_FILES:
                self._bars.popitem(last=False)
        return bars

    def _content(self, path: str) -> bytes | None:
        """A file whose checksum was verified, or None if the archive lacks it.

        A kept file is used only while the archive's checksum is still its own: files are replaced there, even years
        later.
        """
        if path in self._missing_months:
            return None
        local = self._mirror / _ROOT / path
        check = local.with_name(f"{local.name}.CHECKSUM")
        content = local.read_bytes() if local.is_file() else None
        # A download without its checksum beside it was not kept by this program as it is, and is made again.
        told = check.read_text("utf-8", "replace") if check.is_file() else ""
        if not self._remote:
            if content is not None:
                _verify(local, content, told)
            return content
        if content is not None and told and _is_of(local, content, self._present(f"{path}.CHECKSUM") or told):
            return content
        return self._fetched(path, local, check)

    def _fetched(self, path: str, local: Path, check: Path) -> bytes | None:
        """A file from the address, verified and kept with its checksum, or None if the archive lacks it.

        What breaks off is gone on with, also by another run; a file whose pieces do not make what its checksum says is
        asked for once more, whole.
        """
        part = local.with_name(f".{local.name}.part")
        downloaded = download(self._url(path), part, self._pause)
        if downloaded is None:
            # A missing day may be there tomorrow; a month that was missing once is read by days.
            self._missing_months |= {path} if path.startswith("monthly/klines/") else set()
            forget(part)
            return None
        found = download(self._url(f"{path}.CHECKSUM"), None, self._pause)
        checksum = found.content if found is not None else b""
        content = downloaded.content
        try:
            _verify(local, content, checksum.decode("utf-8", "replace"))
        except SourceUnreadable:
            forget(part)
            again = download(self._url(path), part, self._pause) if downloaded.pieced else None
            if again is None:
                raise
            # The pieces were of different files: it is the whole one that counts.
            forget(part)
            content = again.content
            _verify(local, content, checksum.decode("utf-8", "replace"))
        # Broken off in between, the two do not fit, and the file is fetched again.
        put_atomic(fs.LocalFileSystem(), str(check), checksum)
        put_atomic(fs.LocalFileSystem(), str(local), content)
        forget(part)
        return content

    def _present(self, path: str) -> str | None:
        """The checksum that the archive has for a file; None when it has none or cannot be asked."""
        try:
            found = download(self._url(path), None, self._pause)
        except SourceUnreadable:
            return None
        return None if found is None else found.content.decode("utf-8", "replace")

    def _url(self, path: str) -> str:
        return f"{self.location}/{_ROOT}/{quote(path)}"


def _cache_of(location: str) -> Path:
    """Where the files of an address are kept: those of another address are other files, even under the same names."""
    name = "archive" if location == BASE_URL else f"archive-{re.sub('[^A-Za-z0-9.-]+', '_', location)}"
    return Path.home() / ".cache" / "perpforge" / name


def kline_path(symbol: str, label: str, interval: str = "1m") -> str:
    """Where the archive has a day or month of klines.

    >>> kline_path("BTCUSDT", "2026-02")
    'monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-02.zip'
    """
    folder = "monthly" if len(label) == 7 else "daily"
    return f"{folder}/klines/{symbol}/{interval}/{symbol}-{interval}-{label}.zip"


def _is_of(path: Path, content: bytes, checksum: str) -> bool:
    """Whether `checksum` is this file's."""
    try:
        _verify(path, content, checksum)
    except SourceUnreadable:
        return False
    return True


def _verify(path: Path, content: bytes, checksum: str) -> None:
    """Raise `SourceUnreadable` unless `checksum` (`sha256  name`) is this file's."""
    words = checksum.split()
    if len(words) != 2 or words[1].lstrip("*") != path.name:
        raise SourceUnreadable(str(path), "its CHECKSUM is missing or of another file")
    digest = hashlib.sha256(content).hexdigest()
    if digest != words[0].lower():
        raise SourceUnreadable(str(path), f"its sha256 is {digest}, its CHECKSUM says {words[0]}")


def span(label: str) -> tuple[int, int]:
    """[start, end) of a day (YYYY-MM-DD) or month (YYYY-MM).

    >>> span("2026-02")[1] - span("2026-02")[0] == 28 * DAY_MS
    True
    """
    if len(label) == 10:
        return day_start(label), day_start(label) + DAY_MS
    year, month = int(label[:4]), int(label[5:])
    following = f"{year + month // 12}-{month % 12 + 1:02d}-01"
    return day_start(f"{label}-01"), day_start(following)
