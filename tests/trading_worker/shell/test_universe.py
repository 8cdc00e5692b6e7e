"""Which symbols a worker follows: those that are listed come in at their rank, those that leave make room."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from market.bars import DAY_MS, Bars, from_columns
from market.binance.listings import Change, Standing
from market.binance.rest import ExchangeInfo, MarketDataClient, SymbolInfo
from market.lake import Lake
from market.universe import Ranked, store_universe
from trading_worker.shell.start import NothingToFollow, leaving, universe

NOW_MS = 20_000 * DAY_MS
FILTERS = (
    {"filterType": "PRICE_FILTER", "minPrice": "0.1", "maxPrice": "1000", "tickSize": "0.1"},
    {"filterType": "LOT_SIZE", "minQty": "1", "maxQty": "1000", "stepSize": "1"},
)


def contract(symbol: str, status: str = "TRADING", **changes: Any) -> SymbolInfo:
    values = {"contract_type": "PERPETUAL", "quote_asset": "USDT", "filters": FILTERS, "onboard_date": DAY_MS}
    return SymbolInfo(symbol, status, **(values | changes))


class Venue:
    """A venue in the place of the client; yesterday each symbol traded as much as its last letter says."""

    base_url = "http://venue"

    def __init__(self, *contracts: SymbolInfo) -> None:
        self.contracts, self.now_ms = contracts, NOW_MS

    async def exchange_info(self) -> ExchangeInfo:
        return ExchangeInfo(self.contracts)

    async def server_time(self) -> int:
        return self.now_ms

    async def klines(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Bars:
        prices = {name: [1.0] for name in ("open", "high", "low", "close")}
        value = float(ord(symbol[-1]))
        return from_columns({"open_time": [start_ms // DAY_MS * DAY_MS], "volume": [value], **prices}, interval)

    @property
    def client(self) -> MarketDataClient:
        return cast("MarketDataClient", self)


def venue() -> Venue:
    return Venue(
        contract("A"),
        contract("ENDED", "CLOSE"),
        contract("ENDING", delivery_date=NOW_MS + DAY_MS),
        contract("SETTLES", "SETTLING"),
        contract("SOON", onboard_date=NOW_MS + 1),
        contract("WAITS", "PENDING_TRADING"),
        contract("BARE", filters=()),
        contract("BUSD", quote_asset="BUSD"),
        contract("LATER", delivery_date=NOW_MS + 40 * DAY_MS),
        contract("Z"),
    )


async def test_what_is_pending_or_leaving_is_not_followed_and_comes_in_at_its_rank(tmp_path: Path) -> None:
    lake, market = Lake(str(tmp_path)), venue()
    ranked = ("Z", "ENDING", "SOON", "UNHEARD", "ENDED", "LATER", "WAITS", "BARE", "SETTLES", "BUSD", "A")
    store_universe(lake, "2026-01-05", [Ranked(symbol, rank, 1.0) for rank, symbol in enumerate(ranked, start=1)])
    assert await universe(lake, market.client, 10) == ("Z", "LATER", "A")
    assert await universe(lake, market.client, 2) == ("Z", "LATER")
    market.now_ms += 38 * DAY_MS
    assert await universe(lake, market.client, 10) == ("Z", "SOON", "A"), "one was listed, another has an end"
    assert await universe(lake, market.client, 2) == ("Z", "SOON")


async def test_without_a_ranking_the_same_are_left_out() -> None:
    market = venue()
    assert await universe(None, market.client, 10) == ("A", "LATER", "Z")
    assert await universe(None, market.client, 2) == ("Z", "LATER"), "by what was traded"
    market.contracts = tuple(each for each in market.contracts if each.symbol not in ("A", "LATER", "Z"))
    with pytest.raises(NothingToFollow, match="http://venue"):
        await universe(None, market.client, 10)


async def test_a_state_that_was_kept_is_told_which_of_its_symbols_leave() -> None:
    found = await leaving(venue().client, ("Z", "SETTLES", "UNHEARD", "ENDING", "A", "ENDED"))
    assert found == [
        Change("ENDED", Standing.TRADING, Standing.GONE, "its status is CLOSE"),
        Change("ENDING", Standing.TRADING, Standing.LEAVING, "the venue has set its end"),
        Change("SETTLES", Standing.TRADING, Standing.LEAVING, "its status is SETTLING"),
        Change("UNHEARD", Standing.TRADING, Standing.LEAVING, "the venue does not list it"),
    ]
