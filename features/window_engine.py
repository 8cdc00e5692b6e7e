"""Features without a kept state: every row anew from the window of bars that it needs.

What `FeatureEngine` gives with one step, this gives with a whole window of steps. It is the plain way, kept to check
the incremental one against and to tell what that one saves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.default import SPEC
from features.engine import NotWarm, as_bars, compute
from features.errors import BarOutOfOrder, BarsUnusable
from features.origins import counts
from features.spec import FeatureSpec
from market.bars import BAR, Bars


def window_length(spec: FeatureSpec) -> int:
    """Bars that are kept of a series: the longest warm-up of any feature, so that every one has forgotten what came
    before, those with the longest memory (EMA 200) too; and as many again as may be impossible among them."""
    return spec.warmup + spec.max_gap


class WindowEngine:
    """The features of many series at once, live, each row computed from the last bars alone.

    It answers as `FeatureEngine` does. From the first bar on, and while a series has fewer bars than the window, the
    numbers are the same bits; after that they agree to the tolerance to which features forget (1e-4 of the larger of
    the value and the feature's scale). They depend on the bars in the window and on nothing else.

    `state` is the window, BAR [S, N], oldest first and ending with the last bar; a bar that opens at 0 is none.
    """

    def __init__(self, series: int | Sequence[str], spec: FeatureSpec = SPEC) -> None:
        if isinstance(series, int):
            series = [f"series {index}" for index in range(series)]
        self.names = tuple(series)
        self.spec = spec
        self.state = np.zeros((len(self.names), window_length(spec)), dtype=BAR)

    def update(self, rows: NDArray[np.int64], bars: Bars) -> NDArray[np.float32]:
        """One closed bar for each of k series: `rows` int64 [k] says which. Returns float32 [k, F].

        Raises `BarsUnusable` or `BarOutOfOrder`, naming the first offender, before anything has changed.
        """
        bars = as_bars(bars)
        rows = np.require(rows, dtype=np.int64)
        self._check(rows, bars)
        out = np.empty((rows.size, len(self.spec.names)), dtype=np.float32)
        for index, row in enumerate(rows.tolist()):
            out[index] = self._push(row, bars[index : index + 1])
        return out

    def extend(self, row: int, bars: Bars, last: int) -> NDArray[np.float32]:
        """A stretch of bars of series `row`; returns the rows of the `last` of them, float32 [min(k, last), F]."""
        bars = as_bars(bars)
        times = np.concatenate((self.state["open_time"][row, -1:], bars["open_time"]))
        late = np.flatnonzero(np.diff(times) <= 0)
        if late.size:
            at = int(late[0])
            raise BarOutOfOrder(self.names[row], at, int(times[at + 1]), int(times[at]))
        before, shown = bars[: max(0, bars.size - last)], bars[max(0, bars.size - last) :]
        window = self.state[row]
        if before.size:
            window[:] = np.concatenate((window, before))[-window.size :]
        out = np.empty((shown.size, len(self.spec.names)), dtype=np.float32)
        for index in range(shown.size):
            out[index] = self._push(row, shown[index : index + 1])
        return out

    def not_warm(self) -> tuple[NotWarm, ...]:
        """Each series without every column that a ready row waits for, and why: by the window, as `FeatureEngine`."""
        needed = self.spec.ready_warmup
        found = []
        for name, window in zip(self.names, self.state, strict=True):
            bars = window[np.searchsorted(window["open_time"], 1) :]
            since = counts(bars, self.spec.max_gap)
            kept = bars["open_time"][since > 0]
            if not kept.size:
                found.append(NotWarm(name, 0, needed, None, 0))
                continue
            seen = int(since[since > 0][-1])
            if seen < needed:
                interval = int(bars["close_time"][0] - bars["open_time"][0]) + 1
                missing = int(kept[-seen] - kept[-seen - 1]) // interval - 1 if kept.size > seen else 0
                found.append(NotWarm(name, seen, needed, int(kept[-seen]), missing))
        return tuple(found)

    def _push(self, row: int, bar: Bars) -> NDArray[np.float32]:
        """Take in one bar; its row."""
        window = self.state[row]
        window[:-1] = window[1:]
        window[-1:] = bar
        # It is filled from its end: before the first bar there are none.
        first = int(np.searchsorted(window["open_time"], 1))
        values: NDArray[np.float32] = compute(window[first:], self.spec)[-1]
        return values

    def _check(self, rows: NDArray[np.int64], bars: Bars) -> None:
        if rows.shape != bars.shape:
            raise BarsUnusable(f"{rows.size} rows for {bars.size} bars")
        seen: set[int] = set()
        for index, (row, open_time) in enumerate(zip(rows.tolist(), bars["open_time"].tolist(), strict=True)):
            if not 0 <= row < len(self.names):
                raise BarsUnusable(f"row {row} is none of the {len(self.names)} series", index)
            before = int(self.state["open_time"][row, -1])
            if open_time <= before:
                raise BarOutOfOrder(self.names[row], index, open_time, before)
            if row in seen:
                raise BarsUnusable(f"{self.names[row]} has two bars in one wave", index)
            seen.add(row)
