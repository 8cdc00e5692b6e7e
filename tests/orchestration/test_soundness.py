"""What is said of stored klines before anything is built on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from market.bars import DAY_MS, MINUTE_MS
from market.klines_store import Gap, read_all, write_day, write_gaps
from market.lake import Lake
from orchestration.ingest import MarketView
from orchestration.soundness import SHOWN, Unsound, examine, require, words
from tests.orchestration.markets import FIRST, START, Holes, days, ingest, synthetic


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path))
    ingest(lake, synthetic(), days(2))
    return lake


def remove(lake: Lake, symbol: str, first: int, last: int) -> None:
    """Remove minutes of the first day, as a faulty writer might."""
    bars = read_all(lake, START, START + DAY_MS)
    bars[symbol] = np.delete(bars[symbol], slice(first, last))
    write_day(lake, FIRST, bars)


def test_sound_klines(lake: Lake) -> None:
    found = examine(lake, synthetic(), days(2))
    assert (found.days, found.bars, found.known_gaps, found.faults) == (2, 2 * 3 * 1440, 0, ())


def test_a_planted_gap_is_found_and_named(lake: Lake) -> None:
    remove(lake, "ETHUSDT", 600, 607)
    (fault,) = examine(lake, synthetic(), days(2)).faults
    assert fault == "ETHUSDT: 7 minutes from 2026-01-05T10:00:00Z have no bar, and the gaps do not say why"
    with pytest.raises(Unsound, match="ETHUSDT"):
        require(lake, synthetic(), days(2))


def test_a_symbol_of_the_universe_without_any_bar_is_found(lake: Lake) -> None:
    remove(lake, "ETHUSDT", 0, 1440)
    (fault,) = examine(lake, synthetic(), days(2)).faults
    assert fault.startswith("ETHUSDT: 1440 minutes")


def test_a_gap_that_is_accounted_for_is_none(lake: Lake) -> None:
    remove(lake, "ETHUSDT", 600, 607)
    start = START + 600 * MINUTE_MS
    write_gaps(lake, FIRST, [Gap("ETHUSDT", start, start + 5 * MINUTE_MS, "venue_has_no_data")])
    (fault,) = examine(lake, synthetic(), days(2)).faults
    assert fault.startswith("ETHUSDT: 2 minutes from 2026-01-05T10:05:00Z")
    write_gaps(lake, FIRST, [Gap("ETHUSDT", start, start + 7 * MINUTE_MS, "venue_has_no_data")])
    found = examine(lake, synthetic(), days(2))
    assert (found.known_gaps, found.faults) == (7, ())


def test_a_source_that_gives_nothing_is_not_sound(tmp_path: Path) -> None:
    """Ingestion accounts for every minute that it did not get: what is accounted for must not be the whole."""
    lake, source = Lake(str(tmp_path)), Holes(START, START + 2 * DAY_MS, heals=False)
    ingest(lake, MarketView(source), days(2))
    found = examine(lake, MarketView(source), days(2))
    assert (found.bars, found.known_gaps) == (2 * 1440, 2 * 1440)
    first, second = found.faults
    assert first.startswith("BTCUSDT: 1440 of the 1440 minutes that the source covers on 2026-01-05 have no bar (all,")
    assert "2026-01-06" in second


@pytest.mark.parametrize(("minutes", "faults"), [(72, 0), (73, 1)])
def test_a_twentieth_of_a_day_may_be_missing(tmp_path: Path, minutes: int, faults: int) -> None:
    lake, source = Lake(str(tmp_path)), Holes(START, START + minutes * MINUTE_MS, heals=False)
    ingest(lake, MarketView(source), days(2))
    found = examine(lake, MarketView(source), days(2))
    assert (found.known_gaps, len(found.faults)) == (minutes, faults)
    assert all("73 of the 1440 minutes" in fault and "(5.1 %, at most 5 % may)" in fault for fault in found.faults)
    assert examine(lake, MarketView(source), days(2), most_missing=0.1).faults == ()


@pytest.mark.parametrize(("minutes", "faults"), [(5, 0), (6, 1)])
def test_the_newest_bars_of_a_day_that_has_just_begun_may_be_late(tmp_path: Path, minutes: int, faults: int) -> None:
    lake = Lake(str(tmp_path))
    view = MarketView(Holes(START, START + minutes * MINUTE_MS, heals=False), START + minutes * MINUTE_MS)
    ingest(lake, view, days(1))
    assert len(examine(lake, view, days(1)).faults) == faults


def test_the_edges_of_the_coverage_are_no_gaps(tmp_path: Path) -> None:
    lake, market = Lake(str(tmp_path)), synthetic(until_ms=START + 600 * MINUTE_MS)
    ingest(lake, market, days(1))
    assert examine(lake, market, days(1)).faults == ()
    assert len(examine(lake, synthetic(), days(1)).faults) == 3  # later there is more to have


def test_a_day_that_is_not_stored_is_named(lake: Lake) -> None:
    assert examine(lake, synthetic(), days(3)).faults == ("2026-01-07: no klines are stored",)


def test_many_faults_are_cut() -> None:
    assert words([f"fault {number}" for number in range(SHOWN + 5)]).endswith("… and 5 more")
