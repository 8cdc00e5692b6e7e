"""The gate's replay: the lake's bars through the live engine, and nothing that the window cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.barriers import TARGET
from market.bars import DAY_MS, MINUTE_MS
from market.klines_store import read_all, read_all_funding
from market.lake import Lake
from models_registry.errors import NotEnoughData
from orchestration import replaying
from orchestration.ingest import ingest_funding, universes
from orchestration.label_store import read_history
from orchestration.replaying import replayed
from tests.orchestration.markets import START, days, ingest, synthetic
from tests.trading_worker.markets import EAGER, StubPredictor
from trading_worker.errors import SwapRefused
from trading_worker.replay import replay

DAYS = days(4)
WINDOW = START + 3 * DAY_MS - 7 * 3_600_000 + 12_345
"""Not on a whole minute: the first label after the last that was seen need not be."""
HORIZON = 240 * MINUTE_MS


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    ingest(lake, synthetic(), DAYS)
    ingest_funding(lake, synthetic(), DAYS, universes(lake, DAYS))
    return lake


def test_it_is_the_replay_of_all_stored_bars(lake: Lake) -> None:
    end = START + 4 * DAY_MS
    first = -(-WINDOW // MINUTE_MS) * MINUTE_MS
    bars = read_all(lake, START, end)
    whole = replay(bars, read_all_funding(lake, START, end, list(bars)), StubPredictor(), EAGER, start_ms=first)
    kept = [event for event in whole.closed if event.decided_at < end - HORIZON]
    (found,) = replayed(lake, [StubPredictor()], WINDOW, EAGER)
    assert found.positions == len(kept) > 30
    assert found.total_r == pytest.approx(sum(event.r for event in kept))
    assert found.hit_rate == pytest.approx(np.mean([event.outcome == TARGET for event in kept]))
    assert (found.start_ms, found.decided_until_ms, found.symbols) == (first, end - HORIZON, 3)
    assert len(whole.closed) > len(kept), "what was decided too late to be sure of its end is left out"


def test_bars_are_read_once_for_all_bundles(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []

    def counting(lake: Lake, start_ms: int, end_ms: int):  # type: ignore[no-untyped-def]
        read.append((start_ms, end_ms))
        return read_all(lake, start_ms, end_ms)

    monkeypatch.setattr(replaying, "read_all", counting)
    one, other = replayed(lake, [StubPredictor("1"), StubPredictor("2")], WINDOW, EAGER)
    assert len(read) == 1
    assert one == other
    assert read[0][0] >= WINDOW, "what only warms is not kept"


def test_a_window_shorter_than_a_horizon_is_no_window(lake: Lake) -> None:
    end = START + 4 * DAY_MS
    with pytest.raises(NotEnoughData, match="a replay, in minutes"):
        replayed(lake, [StubPredictor()], end - HORIZON, EAGER)
    (found,) = replayed(lake, [StubPredictor()], end - HORIZON - MINUTE_MS, EAGER)
    assert found.decided_until_ms - found.start_ms == MINUTE_MS
    for start in (end, end + DAY_MS):
        with pytest.raises(NotEnoughData):
            replayed(lake, [StubPredictor()], start, EAGER)


def test_an_empty_lake_and_another_specification_are_refused(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughData):
        replayed(Lake(str(tmp_path)), [StubPredictor()], WINDOW, EAGER)
    with pytest.raises(SwapRefused):
        replayed(lake, [StubPredictor(), StubPredictor(spec_id="other")], WINDOW, EAGER)


def test_rows_are_those_that_the_labels_were_made_of(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle is asked with the rows of history, bit for bit."""
    asked: list[np.ndarray] = []

    class Asked(StubPredictor):
        def predict(self, decision, *rest, **more):  # type: ignore[no-untyped-def]
            asked.append(decision)
            return super().predict(decision, *rest, **more)

    replayed(lake, [Asked()], WINDOW, EAGER)
    known = {row.tobytes() for row in read_history(lake, 90).rows.decision}
    rows = [row.tobytes() for wave in asked for row in wave]
    assert len(rows) > 50
    assert known.issuperset(rows)
