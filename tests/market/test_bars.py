"""The bar: what makes one valid, gaps, and resampling against a plain reading of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import (
    BAR,
    DAY_MS,
    FLOWS,
    INTERVAL_MS,
    MINUTE_MS,
    Bars,
    check_next,
    empty,
    fault,
    from_columns,
    gaps,
    interval_ms,
    resample,
    validate,
)
from market.errors import BarRejected, UnknownInterval
from market.sources.synthetic import DEFAULT_START_MS, SyntheticMarket

START = DEFAULT_START_MS
DAY = SyntheticMarket(seed=6, symbols=1).klines("BTCUSDT", START, START + DAY_MS)

kept_minutes = st.lists(st.booleans(), min_size=1, max_size=400).flatmap(
    lambda kept: st.tuples(st.just(np.array(kept)), st.integers(0, 1000))
)


def plainly_resampled(bars: Bars, interval: str) -> Bars:
    """Every bucket of which all minutes are there, folded the slow way."""
    step = INTERVAL_MS[interval]
    rows = []
    for start in sorted({int(time) // step * step for time in bars["open_time"]}):
        part = bars[(bars["open_time"] >= start) & (bars["open_time"] < start + step)]
        if part.size == step // MINUTE_MS:
            row = np.zeros((), dtype=BAR)
            row["open_time"], row["close_time"] = start, start + step - 1
            row["open"], row["close"] = part["open"][0], part["close"][-1]
            row["high"], row["low"] = part["high"].max(), part["low"].min()
            for name in FLOWS:
                row[name] = np.add.accumulate(part[name])[-1]
            rows.append(row)
    return np.array(rows, dtype=BAR)


@settings(max_examples=60, deadline=None)
@given(minutes=kept_minutes, interval=st.sampled_from(["3m", "5m", "15m", "1h"]))
def test_resampling_keeps_complete_buckets_only(minutes: tuple[np.ndarray, int], interval: str) -> None:
    kept, offset = minutes
    bars = DAY[offset : offset + kept.size][kept]
    assert resample(bars, interval).tobytes() == plainly_resampled(bars, interval).tobytes()


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 1440), interval=st.sampled_from(["5m", "15m"]))
def test_later_bars_change_no_resampled_bar(cut: int, interval: str) -> None:
    whole, part = resample(DAY, interval), resample(DAY[:cut], interval)
    assert part.size == cut * MINUTE_MS // INTERVAL_MS[interval]
    assert part.tobytes() == whole[: part.size].tobytes()


def test_resampling_in_two_steps_is_resampling_in_one() -> None:
    once, twice = resample(DAY, "1h"), resample(resample(DAY, "5m"), "1h", source="5m")
    for name in BAR.names or ():
        assert np.allclose(once[name], twice[name], rtol=1e-12)
    assert resample(DAY, "1d").size == 1
    assert resample(empty(), "5m").size == 0


def test_resampling_to_itself_copies() -> None:
    same = resample(DAY, "1m")
    same["open"][0] = 1
    assert DAY["open"][0] != 1


@pytest.mark.parametrize(("interval", "source"), [("7m", "1m"), ("5m", "15m"), ("5m", "3m")])
def test_intervals_that_do_not_fit_are_refused(interval: str, source: str) -> None:
    with pytest.raises(UnknownInterval):
        resample(DAY, interval, source)


def test_every_interval_divides_a_day() -> None:
    assert all(DAY_MS % length == 0 for length in INTERVAL_MS.values())
    with pytest.raises(UnknownInterval, match="use one of 1m"):
        interval_ms("2m")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"high": 1.0}, "high 1 < low"),
        ({"open": 1.0}, "outside"),
        ({"close": 1e9}, "outside"),
        ({"low": 0.0}, "not positive"),
        ({"open": -1.0}, "not positive"),
        ({"close": np.nan}, "not a finite"),
        ({"high": np.inf}, "not a finite"),
        ({"volume": -1.0}, "negative"),
        ({"taker_buy_base": -0.5}, "negative"),
        ({"close_time": START}, "closes before"),
    ],
)
def test_a_faulty_bar_is_rejected_with_its_reason(change: dict[str, float], reason: str) -> None:
    bars = DAY[:10].copy()
    for name, value in change.items():
        bars[name][4] = value
    if "close_time" in change:
        bars["close_time"][4] = bars["open_time"][4]
    message = fault(bars[4])
    assert message is not None
    assert reason in message
    for check in (lambda: check_next("BTCUSDT", bars[4], int(bars["open_time"][3])), lambda: validate("BTCUSDT", bars)):
        with pytest.raises(BarRejected, match=reason) as caught:
            check()
        assert (caught.value.symbol, caught.value.open_time) == ("BTCUSDT", int(bars["open_time"][4]))
        assert "2026-01-05T00:04:00Z" in str(caught.value)


@pytest.mark.parametrize(("index", "reason"), [(3, "repeats"), (2, "older")])
def test_a_bar_that_does_not_follow_is_rejected(index: int, reason: str) -> None:
    bars = DAY[[0, 1, 2, 3, index, 5]]
    with pytest.raises(BarRejected, match=reason):
        validate("BTCUSDT", bars)
    with pytest.raises(BarRejected, match=reason):
        check_next("BTCUSDT", bars[4], int(bars["open_time"][3]))


def test_unrecorded_flows_and_still_minutes_are_no_fault() -> None:
    bars = DAY[:3].copy()
    for name in ("trades", "taker_buy_base", "taker_buy_quote"):
        bars[name] = np.nan
    bars["volume"][1] = 0.0
    assert validate("BTCUSDT", bars) is bars
    check_next("BTCUSDT", bars[0], None)
    assert validate("BTCUSDT", empty()).size == 0


@settings(max_examples=60, deadline=None)
@given(minutes=kept_minutes)
def test_gaps_are_what_is_missing_between_the_edges(minutes: tuple[np.ndarray, int]) -> None:
    kept, offset = minutes
    bars = DAY[offset : offset + kept.size][kept]
    missing = [time for first, last in gaps(bars) for time in range(first, last, MINUTE_MS)]
    times = bars["open_time"]
    expected = set(range(int(times[0]), int(times[-1]), MINUTE_MS)) - set(times.tolist()) if times.size else set()
    assert len(missing) == len(set(missing))
    assert set(missing) == expected


def test_absent_columns_follow_the_rule() -> None:
    one = [2.0, 2.0]
    bars = from_columns(
        {
            "open_time": [0, 60_000],
            "open": one,
            "high": one,
            "low": one,
            "close": one,
            "volume": [3.0, 4.0],
            "quote_volume": [5.0, None],
        }
    )
    assert bars["quote_volume"].tolist() == [5.0, 8.0]
    assert np.isnan(bars["trades"]).all()
    assert bars["close_time"].tolist() == [59_999, 119_999]
