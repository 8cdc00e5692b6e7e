"""Committing a wave's events to the journal: one fsync for the wave, against one for each event."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.report import Row, seconds
from trading_worker.events import AnyEvent, WaveClosed
from trading_worker.journal import Journal, read

EVENTS = 40
"""A busy wave: a fifth of 200 symbols signal."""
WAVES = 300


def _events() -> list[AnyEvent]:
    symbols = tuple(f"COIN{i}USDT" for i in range(10))
    return [
        WaveClosed(time_ms=1_767_571_499_999 + i, decided=True, present=190, absent=symbols, bundle="7")
        for i in range(EVENTS)
    ]


def run() -> list[Row]:
    """Parity of what both ways leave in the journal, then the 99th percentile of a commit."""
    events = _events()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        grouped, single = Path(folder) / "grouped", Path(folder) / "single"
        with Journal(grouped, "bench") as journal, Journal(single, "bench") as other:

            def one_fsync() -> None:
                journal.extend(events)
                journal.commit()

            def fsync_each() -> None:
                for event in events:
                    other.append(event)
                    other.commit()

            one_fsync()
            fsync_each()
            grouped_s = seconds(one_fsync, WAVES)
            single_s = seconds(fsync_each, WAVES // 10)
        first = [entry.event for entry in read(grouped)][:EVENTS]
        assert first == [entry.event for entry in read(single)][:EVENTS] == events
    return [
        Row(
            f"journal commit of a wave, {EVENTS} events, p99",
            float(np.quantile(grouped_s, 0.99)) * 1e3,
            "ms",
            float(np.quantile(single_s, 0.99)) * 1e3,
            "one fsync for each event, p99",
            f"median {np.median(grouped_s) * 1e3:.2f} ms",
        )
    ]
