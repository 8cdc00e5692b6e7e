"""Rebuilding the `features` dataset: linear in days, nothing for nothing new, and one day for one new day."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Row
from features import compute
from features.compilation import compile_all
from market.bars import DAY_MS, resample
from market.klines_store import date_of, day_start, write_day
from market.lake import Lake
from market.sources import open_source
from orchestration.feature_days import compute_days

SYMBOLS = 40
DAYS = 6
"""N: the run is measured over N and over 2 N days."""
FIRST = "2026-01-05"
FILES = ("features", "feature_state", "feature_days")


def _dates(count: int) -> list[str]:
    return [date_of(day_start(FIRST) + day * DAY_MS) for day in range(count)]


def _ingested(folder: Path, days: int) -> int:
    """Store klines and nothing else; returns how many bars their features are of."""
    source = open_source(f"synthetic:seed=3,symbols={SYMBOLS},start={FIRST}")
    lake, bars = Lake(str(folder)), 0
    for date in _dates(days):
        start = day_start(date)
        minutes = {symbol: source.klines(symbol, start, start + DAY_MS) for symbol in source.symbols()}
        write_day(lake, date, minutes)
        bars += sum(resample(each, step).size for each in minutes.values() for step in ("5m", "15m", "1h"))
    return bars


def _run(lake: Lake, dates: Sequence[str]) -> tuple[float, int]:
    """Seconds, and the days that were computed rather than left as they were."""
    began = time.perf_counter()
    made = list(compute_days(lake, dates))
    return time.perf_counter() - began, sum(not each.unchanged for each in made)


def _contents(lake: Lake) -> dict[str, bytes]:
    return {path: lake.get_bytes(path) for name in FILES for path in lake.list(name)}


def run() -> list[Row]:
    """Parity of day by day with one run, then the time of N days, 2 N days, the same again and one more day."""
    compile_all()
    with tempfile.TemporaryDirectory(dir=".") as name:
        bars = _ingested(Path(name) / "klines", 2 * DAYS)

        def fresh(what: str) -> Lake:
            shutil.copytree(Path(name) / "klines", Path(name) / what)
            return Lake(str(Path(name) / what))

        short, whole, steps = fresh("short"), fresh("whole"), fresh("steps")
        short_s, _ = _run(short, _dates(DAYS))
        whole_s, computed = _run(whole, _dates(2 * DAYS))
        assert computed == 2 * DAYS
        again_s, computed = _run(whole, _dates(2 * DAYS))
        assert computed == 0, "a run with nothing new computed a day"
        _run(steps, _dates(2 * DAYS - 1))
        more_s, computed = _run(steps, _dates(2 * DAYS))
        assert computed == 1, "one new day did not cost one day"
        assert _contents(steps) == _contents(whole), "incremental files differ from those of a full run"
        assert len(_contents(whole)) == 2 * DAYS * 7
        kernel_s = _kernel_seconds()
    rows = [
        (f"features of {2 * DAYS} days × {SYMBOLS} symbols", whole_s, short_s, f"{DAYS} days: 0.5× is linear"),
        (f"the same {2 * DAYS} days again, nothing new", again_s, whole_s, "the run that computed them"),
        (f"one day more than {2 * DAYS - 1} stored ones", more_s, whole_s / (2 * DAYS), "a day of the full run"),
    ]
    note = f"{bars / whole_s / 1e3:,.0f} thousand bars a second written; the recurrences alone take {kernel_s:.2g} s"
    return [
        Row(what, taken * 1e3, "ms", baseline * 1e3, against, note if at == 0 else "")
        for at, (what, taken, baseline, against) in enumerate(rows)
    ]


def _kernel_seconds() -> float:
    """What the recurrences alone take of all the days."""
    source = open_source(f"synthetic:seed=3,symbols={SYMBOLS},start={FIRST}")
    taken, start = 0.0, day_start(FIRST)
    for symbol in source.symbols():
        minutes = source.klines(symbol, start, start + 2 * DAYS * DAY_MS)
        for step in ("5m", "15m", "1h"):
            bars = resample(minutes, step)
            began = time.perf_counter()
            compute(bars)
            taken += time.perf_counter() - began
    return taken
