"""The venue's rules against what the exchange itself has told: brackets of 719 symbols, filters of 438."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from market.simulator.venue.brackets import BRACKETS, ladder
from market.simulator.venue.refusals import Refusal
from market.simulator.venue.rules import SymbolRules


def recorded(folder: Path, name: str) -> Any:
    return msgspec.json.decode(gzip.decompress((folder / "exchange" / name).read_bytes()))


def test_cum_is_what_the_exchange_says(shared_data: Path) -> None:
    """What is taken off in each bracket follows from the ratios and floors alone."""
    compared = 0
    for pair, tiers in recorded(shared_data, "leverage_brackets.json.gz").items():
        rows = [tier["info"] for tier in tiers]
        made = ladder(tuple((row["initialLeverage"], row["notionalCap"], str(row["maintMarginRatio"])) for row in rows))
        for bracket, row in zip(made, rows, strict=True):
            assert bracket.floor == row["notionalFloor"], pair
            assert abs(bracket.cum - Decimal(str(row["cum"]))) <= Decimal("0.01"), (pair, bracket, row)
            compared += 1
        own = BRACKETS.get(pair.partition(":")[0].replace("/", ""))
        if own is not None and pair.endswith(":USDT"):
            assert own == made
    assert compared > 5_000


def test_every_recorded_symbol_can_be_traded_by_its_filters(shared_data: Path) -> None:
    symbols = recorded(shared_data, "exchange_info.json.gz")["symbols"]
    trading = [info for info in symbols if info["status"] == "TRADING"]
    assert len(trading) > 300
    for info in trading:
        rules = SymbolRules.of(info)
        price = max(rules.least_price, rules.tick) + 3 * rules.tick
        rules.check_price(price)
        rules.check_quantity(rules.lot.least + 2 * rules.lot.step, market=False)
        rules.check_quantity(rules.market_lot.least + rules.market_lot.step, market=True)
        with pytest.raises(Refusal) as refused:
            rules.check_price(price + rules.tick / 2)
        assert refused.value.code in (-4014, -1111)
        assert rules.on_tick(price + rules.tick / 10) == price
