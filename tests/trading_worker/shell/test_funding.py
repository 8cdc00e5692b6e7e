"""Funding live: what waves are told is what history's waves are told."""

from __future__ import annotations

import numpy as np
import pytest

from market.bars import MINUTE_MS
from market.binance.errors import Unreachable
from market.funding import Fundings, between, empty, from_columns
from market.sources import open_source
from tests.trading_worker.shell.conftest import SOURCE, START_MS
from trading_worker.recorded_waves import Stretch, recorded_waves
from trading_worker.shell.funding import HOUR_MS, LONGEST_MS, RETRY_MS, FundingBook


class Venue:
    """Settled fundings, visible up to the time that was asked for and not before they are published."""

    def __init__(self, fundings: dict[str, Fundings]) -> None:
        self.fundings = fundings
        self.hidden_until: dict[int, int] = {}
        self.now_ms = 0
        self.down = False
        self.questions = 0

    async def fetch(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        self.questions += 1
        if self.down:
            raise Unreachable("http://venue", "refused")
        found = between(self.fundings[symbol], start_ms, end_ms)
        seen = [self.hidden_until.get(time, 0) <= self.now_ms for time in found["funding_time"].tolist()]
        return found[np.array(seen, dtype=bool)]


async def test_every_minute_of_two_days_is_told_what_history_is_told() -> None:
    source = open_source(SOURCE)
    symbols = source.symbols()
    end_ms = START_MS + 2 * 1440 * MINUTE_MS
    fundings = {symbol: source.funding(symbol, START_MS - 5 * 24 * HOUR_MS, end_ms) for symbol in symbols}
    bars = {symbol: source.klines(symbol, START_MS, end_ms) for symbol in symbols}
    venue = Venue(fundings)
    book = FundingBook(symbols, venue.fetch, START_MS - 1)
    await book.load(START_MS - 48 * HOUR_MS, START_MS)
    charged = 0
    for wave in recorded_waves(bars, fundings, symbols, Stretch(START_MS, end_ms)):
        told = await book.before(wave.time_ms)
        np.testing.assert_array_equal(told.rate, wave.funding_rate)
        np.testing.assert_array_equal(told.next_ms, wave.next_funding_ms)
        np.testing.assert_array_equal(told.charged, wave.funding_now)
        charged += int((~np.isnan(told.charged)).sum())
    assert charged == 6 * len(symbols)
    assert venue.questions == (1 + 48) * len(symbols), "once for the load, and once an hour"


async def test_a_rate_that_is_settled_late_is_told_with_its_time_when_it_is_known() -> None:
    venue = Venue({"A": from_columns([0, LONGEST_MS], [0.1, 0.2])})
    venue.hidden_until[LONGEST_MS] = LONGEST_MS + 3 * MINUTE_MS
    book = FundingBook(("A",), venue.fetch, LONGEST_MS - 1)
    await book.load(0, LONGEST_MS - 1)
    told = []
    for minute in range(6):
        venue.now_ms = LONGEST_MS + (minute + 1) * MINUTE_MS - 1
        told.append(await book.before(venue.now_ms))
    assert all(np.isnan(each.charged[0]) for each in told)
    assert [each.late for each in told] == [(), (), (), ((0, LONGEST_MS, 0.2),), (), ()]


async def test_what_was_not_yet_known_at_a_snapshot_is_charged_after_the_restart_and_what_was_is_not_again() -> None:
    venue = Venue({"A": from_columns([0, LONGEST_MS], [0.1, 0.2]), "B": from_columns([0, LONGEST_MS], [0.3, 0.4])})
    settled = venue.fundings["B"]
    venue.fundings["B"] = settled[:1]
    snapshot_ms = LONGEST_MS + 2 * MINUTE_MS - 1
    book = FundingBook(("A", "B"), venue.fetch, LONGEST_MS - 1)
    await book.load(0, LONGEST_MS)
    for minute in range(2):
        told = await book.before(LONGEST_MS + (minute + 1) * MINUTE_MS - 1)
        assert told.charged[0] == 0.2 if minute == 0 else np.isnan(told.charged[0])
    assert book.charged_until == (LONGEST_MS, LONGEST_MS - 1)
    venue.fundings["B"] = settled
    again = FundingBook(("A", "B"), venue.fetch, snapshot_ms, book.charged_until)
    await again.load(0, snapshot_ms + 1)
    told = await again.before(snapshot_ms + MINUTE_MS)
    assert np.isnan(told.charged).all()
    assert told.late == ((1, LONGEST_MS, 0.4),)
    told = await again.before(snapshot_ms + 2 * MINUTE_MS)
    assert np.isnan(told.charged).all()
    assert told.late == ()


async def test_questions_end_when_nothing_appears_and_a_silent_venue_is_named() -> None:
    venue = Venue({"A": from_columns([0], [0.1])})
    book = FundingBook(("A",), venue.fetch, LONGEST_MS - 1)
    await book.load(0, LONGEST_MS - 1)
    asked = []
    for minute in range(2 * RETRY_MS // MINUTE_MS):
        before = venue.questions
        venue.now_ms = LONGEST_MS + (minute + 1) * MINUTE_MS - 1
        await book.before(venue.now_ms)
        asked.append(venue.questions - before)
    assert asked == [1] * 6 + [0] * 4
    venue.down = True
    told = await book.before(LONGEST_MS + HOUR_MS + MINUTE_MS - 1)
    assert "cannot be fetched" in str(book.failure)
    assert told.rate[0] == 0.1
    with pytest.raises(Unreachable):
        await book.load(0, 1)


async def test_a_symbol_without_any_funding_is_unknown_and_a_store_may_give_some() -> None:
    book = FundingBook(("A", "B"), Venue({"A": empty(), "B": empty()}).fetch, 999)
    book.add({"B": from_columns([0], [0.3])})
    told = book.at(MINUTE_MS - 1)
    assert np.isnan(told.rate[0])
    assert (told.next_ms[0], told.rate[1], told.next_ms[1]) == (-1, 0.3, LONGEST_MS)
    assert np.isnan(told.charged).all()
