"""What the demo decides before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from market.bars import DAY_MS
from perpforge.demo.plan import LEAST_HISTORY_DAYS, LIVE_DAYS, SWAP_MS, DemoImpossible, plan_demo


def test_synthetic_history_is_followed_by_live_days_without_a_seam(tmp_path: Path) -> None:
    plan = plan_demo(tmp_path, edge="planted", seed=3, symbols=4, days=20, klines=None)
    assert plan.live_ms - plan.start_ms == 20 * DAY_MS
    assert plan.learn_ms - plan.live_ms == LIVE_DAYS * DAY_MS
    assert plan.history_days[0] == "2026-01-05"
    assert len(plan.history_days) == 20
    assert plan.live_days[0] > plan.history_days[-1]
    assert plan.end_ms is None
    assert len(plan.symbols) == 4


def test_a_recording_keeps_its_last_part_back(shared_data: Path, tmp_path: Path) -> None:
    plan = plan_demo(tmp_path, edge="planted", seed=3, symbols=4, days=20, klines=shared_data / "klines" / "um2025")
    assert plan.edge == "unknown"
    assert plan.end_ms is not None
    assert plan.end_ms - plan.learn_ms >= SWAP_MS
    assert plan.learn_ms % DAY_MS == 0
    assert plan.live_ms - plan.start_ms >= LEAST_HISTORY_DAYS * DAY_MS
    assert "BTCUSDT" in plan.symbols


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"edge": "hidden"}, "edge is planted or none"),
        ({"klines": Path("no-such-folder")}, "no-such-folder"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path, arguments: dict[str, object], said: str) -> None:
    given = {"edge": "planted", "seed": 1, "symbols": 4, "days": 20, "klines": None, **arguments}
    with pytest.raises(DemoImpossible, match=said):
        plan_demo(tmp_path, **given)  # type: ignore[arg-type]


def test_a_short_recording_is_refused(shared_data: Path, tmp_path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = np.arange(5 * 1440, dtype=np.int64) * 60_000
    columns = {"open_time": times} | {name: np.ones(times.size) for name in ("open", "high", "low", "close", "volume")}
    pq.write_table(pa.table(columns), tmp_path / "BTCUSDT-1m-short.parquet")
    with pytest.raises(DemoImpossible, match="the demo needs"):
        plan_demo(tmp_path / "home", edge="planted", seed=1, symbols=2, days=20, klines=tmp_path)
