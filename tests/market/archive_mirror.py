"""A mirror of the archive for tests: klines and fundings as its zips, with checksums."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from market.bars import PRICES, Bars
from market.sources.binance_archive import kline_path
from market.sources.recorded import ARCHIVE_COLUMNS


def store(root: Path, path: str, text: str) -> Path:
    """One zip with one CSV of that text, and its checksum."""
    target = root / "data" / "futures" / "um" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{target.stem}.csv", text)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_name(f"{target.name}.CHECKSUM").write_text(f"{digest}  {target.name}\n")
    return target


def text(bars: Bars, header: bool) -> str:
    """Bars as the archive writes them."""
    lines = [",".join(ARCHIVE_COLUMNS)] if header else []
    for bar in bars:
        row = [bar[name] for name in ("open_time", *PRICES, "volume", "close_time", "quote_volume")]
        row += [int(bar["trades"]), bar["taker_buy_base"], bar["taker_buy_quote"], 0]
        lines.append(",".join(str(value) for value in row))
    return "\n".join(lines) + "\n"


def store_klines(root: Path, symbol: str, label: str, bars: Bars, interval: str = "1m", *, header: bool = True) -> Path:
    """The zip of a day or month, `label`."""
    return store(root, kline_path(symbol, label, interval), text(bars, header))
