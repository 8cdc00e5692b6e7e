"""Fundings from the exchange's archive into the lake, topped up from another source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from market import funding as funding_module
from market.errors import MarketError, SourceUnreadable, UnknownSymbol
from market.funding import Fundings
from market.klines_store import read_all_funding, write_funding
from market.lake import Lake
from market.sources import BarSource
from market.sources.binance_archive import BinanceArchive, span


@dataclass
class FundingReport:
    """How many fundings were stored; `unreadable` names what could not be used, with the reason."""

    fundings: int = 0
    unreadable: list[str] = field(default_factory=list)


def ingest_funding(
    lake: Lake, archive: BinanceArchive, symbols: Sequence[str], months: Sequence[str], top_up: BarSource | None = None
) -> FundingReport:
    """Store the fundings of whole months (YYYY-MM), in place of what was stored of these symbols.

    What the lake holds of other symbols stays, and of a symbol that could not be read in full what it holds besides.
    """
    report = FundingReport()
    for month in months:
        start, end = span(month)
        stored = read_all_funding(lake, start, end)
        for symbol in symbols:
            failed = len(report.unreadable)
            found = _read(archive, symbol, month, top_up, report.unreadable)
            report.fundings += found.size
            if len(report.unreadable) > failed and symbol in stored:
                found = np.concatenate([stored[symbol], found])
            if found.size:
                stored[symbol] = _unique(found)
        write_funding(lake, month, stored)
    return report


def _read(
    archive: BinanceArchive, symbol: str, month: str, top_up: BarSource | None, unreadable: list[str]
) -> Fundings:
    """One symbol's fundings of a month: the archive's, and from its last on the other source's."""
    start, end = span(month)
    found = funding_module.empty()
    try:
        found = archive.funding(symbol, start, end)
    except SourceUnreadable as error:
        unreadable.append(f"fundings of {symbol} {month}: {error}")
    if top_up is None:
        return _unique(found)
    since = int(found["funding_time"].max()) + 1 if found.size else start
    try:
        return _unique(np.concatenate([found, top_up.funding(symbol, since, end)]))
    except UnknownSymbol:
        # It was delisted: the archive's are all there are.
        return _unique(found)
    except MarketError as error:
        unreadable.append(f"fundings of {symbol} {month}: {error}")
        return _unique(found)


def _unique(fundings: Fundings) -> Fundings:
    """In order of time, one each."""
    _, first = np.unique(fundings["funding_time"], return_index=True)
    return fundings[first]
