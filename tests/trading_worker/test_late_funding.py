"""Fundings that become known after they were charged."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from market.bars import MINUTE_MS
from tests.trading_worker.markets import live_waves, market, warm_engine
from trading_worker.events import AnyEvent, PositionClosed
from trading_worker.hour_opens import HOUR_MS
from trading_worker.wave import MinuteBars, Wave

NOTHING = np.full(len(market().symbols()), np.nan)
WAVES = tuple(replace(wave, funding_now=NOTHING) for wave in live_waves(300))
FIRST_HOUR = next(i for i, wave in enumerate(WAVES) if (wave.time_ms + 1) % HOUR_MS == MINUTE_MS)
RATES = np.linspace(-0.02, 0.03, len(market().symbols()))
KNOWN_AFTER = 3
"""Minutes after it was charged that the rate is known."""


def of(kind: type[Any], events: list[AnyEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def known_late(at: int) -> tuple[tuple[int, int, float], ...]:
    """All symbols' fundings of the minute of wave `at`, as a later wave tells them."""
    return tuple((row, WAVES[at].time_ms - MINUTE_MS + 1, float(rate)) for row, rate in enumerate(RATES))


def run(changed: dict[int, Wave], restart: int | None = None) -> dict[str, PositionClosed]:
    """How each position ends with some waves `changed`, restored from a snapshot before wave `restart`."""
    engine, events = warm_engine(), []
    for i, wave in enumerate(WAVES):
        if i == restart:
            snapshot, engine = engine.snapshot(), warm_engine()
            engine.restore(snapshot)
        events += engine.on_wave(changed.get(i, wave))
    return {each.position_id: each for each in of(PositionClosed, events)}


@cache
def on_time(at: int) -> dict[str, PositionClosed]:
    return run({at: replace(WAVES[at], funding_now=RATES)})


def assert_as_on_time(found: dict[str, PositionClosed], at: int) -> None:
    """Each position paid what it would have paid; one that ended in between has ended without it."""
    expected, known = on_time(at), WAVES[at + KNOWN_AFTER].time_ms
    assert found.keys() == expected.keys()
    paid = 0
    for name, each in expected.items():
        if WAVES[at].time_ms <= each.time_ms < known:
            assert found[name].funding == 0.0
        else:
            assert (found[name].funding, found[name].r) == (each.funding, each.r), name
            paid += each.funding != 0.0
    if at == FIRST_HOUR + 60:
        assert paid > 1


@pytest.mark.parametrize("at", range(FIRST_HOUR, 300 - KNOWN_AFTER, 60))
@pytest.mark.parametrize("restart", [None, KNOWN_AFTER])
def test_it_costs_what_it_costs_on_time(at: int, restart: int | None) -> None:
    late = replace(WAVES[at + KNOWN_AFTER], late_funding=known_late(at))
    assert_as_on_time(run({at + KNOWN_AFTER: late}, None if restart is None else at + restart), at)


@pytest.mark.parametrize("bar_after", [1, KNOWN_AFTER])
def test_where_the_bar_is_late_too_the_rate_waits_for_it_or_comes_after_it(bar_after: int) -> None:
    at, row = FIRST_HOUR + 60, 1
    changed: dict[int, Wave] = {}
    missed: list[MinuteBars] = []
    for i in range(at, at + bar_after):
        own = WAVES[i].rows == row
        missed.append(MinuteBars(WAVES[i].time_ms, WAVES[i].rows[own], WAVES[i].bars[own]))
        changed[i] = replace(WAVES[i], rows=WAVES[i].rows[~own], bars=WAVES[i].bars[~own])
    changed[at + bar_after] = replace(WAVES[at + bar_after], late=tuple(missed))
    told = changed.get(at + KNOWN_AFTER, WAVES[at + KNOWN_AFTER])
    changed[at + KNOWN_AFTER] = replace(told, late_funding=known_late(at))
    without_rates = {i: wave for i, wave in changed.items() if i != at + KNOWN_AFTER}
    undisturbed = run(without_rates | {at + KNOWN_AFTER: replace(told, late_funding=())})
    found = run(changed)
    expected = on_time(at)
    for name, each in found.items():
        # What the late bars change besides is in both runs of this test.
        if undisturbed[name].time_ms == expected[name].time_ms:
            assert each.funding == expected[name].funding


def test_who_entered_since_does_not_pay() -> None:
    engine, mixed = warm_engine(), 0
    for at, wave in enumerate(WAVES[:-1]):
        engine.on_wave(wave)
        hour = (at - FIRST_HOUR) // 60 * 60 + FIRST_HOUR
        opened = engine.positions.table().position["opened_at"]
        held = (opened > 0) & (opened < WAVES[hour].time_ms - MINUTE_MS + 1)
        if at > FIRST_HOUR and held.any() and not held.all():
            other = warm_engine()
            other.restore(engine.snapshot())
            for row, time_ms, rate in known_late(hour):
                other.positions.charge(row, time_ms, rate)
            paid = other.positions.table().position["funding"] != 0.0
            np.testing.assert_array_equal(paid, held & (RATES[other.positions.table().position["symbol"]] != 0.0))
            mixed += 1
    assert mixed > 5


def test_what_no_price_is_known_of_is_not_charged() -> None:
    engine = warm_engine()
    for wave in WAVES[:120]:
        engine.on_wave(wave)
    before_ms = WAVES[0].time_ms - 400 * HOUR_MS
    told = tuple((row, before_ms // HOUR_MS * HOUR_MS, 0.01) for row in range(len(RATES)))
    engine.on_wave(replace(WAVES[120], late_funding=told))
    assert (engine.positions.table().position["funding"] == 0.0).all()
