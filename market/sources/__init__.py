"""Sources of bars behind one protocol: recorded files, a synthetic market, Binance."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from market.bars import Bars
from market.errors import UnknownSource
from market.funding import Fundings


@runtime_checkable
class BarSource(Protocol):
    """Where closed 1m bars and fundings of some symbols come from.

    The same question has the same answer, however often and in whatever pieces it is asked.
    """

    @property
    def name(self) -> str:
        """What a person calls this source."""
        ...

    def symbols(self) -> tuple[str, ...]:
        """The symbols it has, in a fixed order."""
        ...

    def coverage(self, symbol: str) -> tuple[int, int] | None:
        """[start, end) of the open times it can answer for; None when it has no bar of `symbol`."""
        ...

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """The closed 1m bars with open_time in [start_ms, end_ms); none outside the coverage."""
        ...

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """The fundings charged in [start_ms, end_ms)."""
        ...


def open_source(spec: str) -> BarSource:
    """The source that `spec` (`kind:argument`) describes; `UnknownSource` says what is wrong with it.

    - `synthetic:seed=7,symbols=12,edge=planted,start=2026-01-05`, each part optional; `symbols`
      is a count or names joined by `+`
    - `recorded:DIR`, a folder of recorded 1m files
    - `archive:DIR` or `archive:https://data.binance.vision`, the exchange's own archive or a mirror of it
    - `rest:URL`, the exchange's REST interface

    >>> open_source("synthetic:seed=7,symbols=BTCUSDT+ETHUSDT").symbols()
    ('BTCUSDT', 'ETHUSDT')
    """
    kind, _, argument = spec.partition(":")
    if kind == "synthetic":
        return _synthetic(spec, argument)
    if kind in ("recorded", "archive", "rest") and not argument:
        raise UnknownSource(spec, f"{kind} needs an argument: {kind}:WHERE")
    if kind == "recorded":
        from market.sources.recorded import RecordedMarket

        return RecordedMarket(Path(argument))
    if kind == "archive":
        from market.sources.binance_archive import BinanceArchive

        return BinanceArchive(argument)
    if kind == "rest":
        from market.sources.binance_rest import BinanceRestSource

        return BinanceRestSource(argument)
    raise UnknownSource(spec, "a source is one of synthetic:…, recorded:DIR, archive:DIR or URL, rest:URL")


def _synthetic(spec: str, argument: str) -> BarSource:
    from market.sources.synthetic import DEFAULT_START_MS, SyntheticMarket

    values = {"seed": "7", "symbols": "12", "edge": "planted", "start": ""}
    for part in filter(None, argument.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in values:
            raise UnknownSource(spec, f"{part!r} is not one of {', '.join(f'{name}=…' for name in values)}")
        values[key] = value
    edge, symbols = values["edge"], values["symbols"]
    if edge not in ("planted", "none"):
        raise UnknownSource(spec, f"edge is planted or none, not {edge!r}")
    try:
        start_ms = DEFAULT_START_MS
        if values["start"]:
            start_ms = int(datetime.strptime(values["start"], "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * 1000
        return SyntheticMarket(
            seed=int(values["seed"]),
            symbols=int(symbols) if symbols.isdecimal() else tuple(symbols.split("+")),
            edge="planted" if edge == "planted" else "none",
            start_ms=start_ms,
        )
    except ValueError as error:
        raise UnknownSource(spec, str(error)) from error
