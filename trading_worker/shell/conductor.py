"""Drives the engine: hands it each wave, makes what it says durable, and only then shows it.

Everything here happens between two messages of the feed, on the event loop: a wave of a few hundred symbols takes
single milliseconds, inference included, so a thread would cost more in order and copying than it would save.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.decision import DecisionState
from market.bars import MINUTE_MS, Bars, empty
from market.errors import BarRejected, MarketError
from trading_worker import events as kinds
from trading_worker import optional_modules
from trading_worker.engine import Engine
from trading_worker.events import AnyEvent, BarValues, BundleSwapped, CaughtUp, DecidedLate, Event, WaveClosed
from trading_worker.journal import Journal
from trading_worker.shell.bundles import Loaded
from trading_worker.shell.funding import FundingBook
from trading_worker.shell.keeping import StateKeeper
from trading_worker.shell.metrics import Board, Swap
from trading_worker.shell.rejections import Rejections
from trading_worker.shell.tally import Tally
from trading_worker.shell.waves import Minute
from trading_worker.wave import MinuteBars, Wave

MOST_GAPS = 3
"""Series that a note on gaps names."""
ASK_S = 1.0
"""Wall seconds that the venue has to tell its time after a decision; then the newest of a stream has to do."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often what is done, and how late a decision may be.

    `snapshot_ms` of market time lie between snapshots, and `snapshot_s` of wall time at least: a simulated market
    that runs a thousand times as fast should not write snapshots all the time. After `segment_ms` of market time a
    journal segment is closed however little it holds, so that labels come back soon. A wave that is decided more than
    `in_time_ms` after its close, by the venue's time, was missed.
    """

    snapshot_ms: int
    in_time_ms: int
    snapshot_s: float = 0.5
    segment_ms: int = 15 * MINUTE_MS


class Conductor:
    """The driver of the intake, and the only one who touches engine and journal.

    Parameters
    ----------
    rejections: counts the bars that the engine refuses.
    server_time: asks REST for the venue's time, ms.
    wall_ms: this machine's clock, for the fields of events that the digest leaves out.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        funding: FundingBook,
        keeper: StateKeeper,
        board: Board,
        tally: Tally,
        cadence: Cadence,
        *,
        rejections: Rejections,
        server_time: Callable[[], Awaitable[int]],
        wall_ms: Callable[[], int],
    ) -> None:
        self.engine = engine
        self.journal = journal
        self._step: Callable[[Wave], list[AnyEvent]] = engine.on_wave
        self._funding = funding
        self._keeper = keeper
        self._board = board
        self._tally = tally
        self._cadence = cadence
        self._rejections = rejections
        self._server_time = server_time
        self._live = False
        self._wall_ms = wall_ms
        self._queued: list[AnyEvent] = []
        self._snapshot_ms = self._segment_ms = engine.time_ms
        self._snapshot_s = perf_counter()
        self._kept: list[MinuteBars] | None = None

    # The driver of the intake

    async def minute(self, minute: Minute, venue_ms: int) -> None:
        """Take the next wave: decide, journal with one fsync, show."""
        began = perf_counter()
        wave = await self._wave(minute)
        self._keep(wave)
        events = self._step(wave)
        delays = {
            "wall_venue_delay_ms": float(venue_ms - wave.time_ms),
            "wall_own_delay_ms": (perf_counter() - began) * 1e3,
        }
        for event in events:
            self.note(msgspec.structs.replace(event, **delays) if isinstance(event, WaveClosed) else event)
            if isinstance(event, kinds.BarRejected):
                self._rejections.count(BarRejected(event.symbol, event.open_time, event.reason), event.time_ms)
        self.commit()
        self._rejections.next_minute()
        self._board.minutes += 1
        self._board.wave_ms = wave.time_ms
        self._board.wave_time.add(perf_counter() - began)
        if any(isinstance(event, WaveClosed) and event.decided for event in events):
            self._show_gaps()
        if self._live and any(isinstance(event, WaveClosed) and event.decided and event.present for event in events):
            await self._check_time(wave.time_ms, venue_ms)
        if wave.time_ms - self._segment_ms >= self._cadence.segment_ms:
            self.close_segment()
        elapsed_s = perf_counter() - self._snapshot_s
        if wave.time_ms - self._snapshot_ms >= self._cadence.snapshot_ms and elapsed_s >= self._cadence.snapshot_s:
            self.snapshot()
        else:
            self._keeper.save(self.engine, self._funding.charged_until, lasting=False)

    async def _check_time(self, wave_ms: int, heard_ms: int) -> None:
        """Write down that a wave was decided late, if it was.

        Messages that have waited for us are as old as they are, so it takes the venue to tell its time: after the
        decisions, which must not wait for it.
        """
        venue_ms = heard_ms
        # Without an answer the streams' time has to do. It may be too early: a late wave may then pass for one in time.
        with suppress(MarketError, TimeoutError):
            async with asyncio.timeout(ASK_S):
                venue_ms = max(venue_ms, await self._server_time())
        if venue_ms - wave_ms > self._cadence.in_time_ms:
            self.note(DecidedLate(time_ms=wave_ms, venue_ms=venue_ms))
            self.commit()

    def prices(self, time_ms: int, rows: NDArray[np.int64], prices: NDArray[np.float64]) -> None:
        """Show price updates to the engine."""
        for event in self.engine.on_prices(time_ms, rows, prices):
            self.note(event)

    def rejected(self, error: BarRejected, time_ms: int) -> None:
        """Write down a refused bar; durable with the next wave."""
        self.note(
            kinds.BarRejected(time_ms=time_ms, symbol=error.symbol, open_time=error.open_time, reason=error.reason)
        )

    def revised(self, row: int, used: np.void, revised: np.void, time_ms: int) -> None:
        """Write down a bar that came again with other numbers; the decision stands on the first."""
        self.note(
            kinds.BarRevised(
                time_ms=time_ms,
                symbol=self.engine.symbols[row],
                open_time=int(used["open_time"]),
                used=BarValues.of(used),
                revised=BarValues.of(revised),
            )
        )

    def absent(self, row: int, start_ms: int, end_ms: int, cause: str, time_ms: int) -> None:
        """Write down that bars will not come; durable with the next wave."""
        symbol = self.engine.symbols[row]
        self.note(kinds.BarsAbsent(time_ms=time_ms, symbol=symbol, start_ms=start_ms, end_ms=end_ms, cause=cause))

    # What the worker asks for

    def follow(self, step: Callable[[Wave], list[AnyEvent]]) -> None:
        """Let waves go through `step` instead of the engine itself: a recovery does, while it catches up."""
        self._step = step

    def live(self, venue_ms: int) -> None:
        """Every minute that closed before `venue_ms` has been run: from here on a wave can be missed."""
        self._live = True
        self.note(CaughtUp(time_ms=venue_ms))
        self.commit()

    def note(self, event: Event) -> None:
        """Queue an event for the next commit."""
        stamped: AnyEvent = msgspec.structs.replace(event, wall_ms=self._wall_ms())  # type: ignore[assignment]
        self.journal.append(stamped)
        self._queued.append(stamped)

    def commit(self) -> None:
        """Make what is queued durable, then show it. `JournalWriteFailed` ends the worker."""
        if not self._queued:
            return
        began = perf_counter()
        self.journal.commit()
        self._board.commits.add(perf_counter() - began)
        self._board.sequence = self.journal.sequence
        for event in self._queued:
            self._tally.add(event)
        self._queued.clear()
        self._tally.show()

    def close_segment(self) -> None:
        """Close the journal's segment, if anything is in it, so that it can be published."""
        self.commit()
        self.journal.rotate()
        self._segment_ms = self.engine.time_ms

    def snapshot(self) -> None:
        """Store the engine's state, between two waves, so that it survives a loss of power."""
        self._keeper.save(self.engine, self._funding.charged_until, lasting=True)
        self._snapshot_ms = self.engine.time_ms
        self._snapshot_s = perf_counter()

    def keep_waves(self, keep: bool) -> None:
        """Begin or cease to keep each wave's bars, for a second feature state that is being warmed."""
        self._kept = [] if keep else None

    def bring_up(self, state: DecisionState) -> None:
        """Feed the kept waves to a state that was warmed up to where keeping began, and keep no more."""
        kept, self._kept = self._kept or [], None
        found: dict[str, list[Bars]] = {}
        for part in kept:
            for index, row in enumerate(part.rows.tolist()):
                found.setdefault(self.engine.symbols[row], []).append(part.bars[index : index + 1])
        state.catch_up({symbol: np.concatenate(bars) for symbol, bars in found.items()})
        if state.time_ms < self.engine.time_ms:
            # The last wave had no bar at all; the state has to know that its minute has passed.
            count = len(state.symbols)
            rates, times = np.full(count, np.nan), np.full(count, -1, dtype=np.int64)
            state.on_minute(self.engine.time_ms, np.empty(0, dtype=np.int64), empty(), rates, times)

    def swap(self, loaded: Loaded, state: DecisionState | None) -> None:
        """Decide with another bundle from the next wave on; `SwapRefused` leaves everything as it is."""
        began = perf_counter()
        old = self.engine.predictor
        previous = self._board.bundle
        changed = self.engine.swap(loaded.predictor, state)
        pause_s = perf_counter() - began
        for event in changed:
            if isinstance(event, BundleSwapped):
                event = msgspec.structs.replace(event, wall_load_ms=loaded.prepare_s * 1e3, wall_swap_ms=pause_s * 1e3)
            self.note(event)
        self.commit()
        self.snapshot()
        pause_s = perf_counter() - began
        self._board.swap_pause.add(pause_s)
        self._board.swaps_total += 1
        self._board.swaps.append(Swap(self.engine.time_ms, previous, loaded.version, loaded.prepare_s, pause_s))
        self.show_bundle(loaded)
        close = getattr(old, "close", None)
        if close is not None and old is not loaded.predictor:
            close()

    def repeat_swap(self, loaded: Loaded) -> None:
        """Do once more a swap that the journal holds already. One that needs another feature state is left out."""
        if loaded.spec.id == self.engine.decision_spec and loaded.name != self.engine.bundle:
            self.engine.swap(loaded.predictor)

    def show_bundle(self, loaded: Loaded) -> None:
        """Put the bundle in force on the board."""
        board = self._board
        board.bundle, board.bundle_name, board.bundle_from = loaded.version, loaded.name, loaded.source
        board.decision_spec = loaded.spec.id
        board.models = dict(loaded.predictor.formats)
        board.fallbacks = optional_modules.fallbacks(loaded.predictor, self.engine.settings)
        board.modules = dict(optional_modules.in_use(loaded.predictor, self.engine.settings))

    def _show_gaps(self) -> None:
        """Say which series are not warm again since a gap that nothing bridges, for as long as they are not."""
        cold = [str(each) for each in self.engine.state.not_warm() if each.missing]
        if cold:
            more = f"; and {len(cold) - MOST_GAPS} more" if len(cold) > MOST_GAPS else ""
            self._board.notes["gaps"] = "; ".join(cold[:MOST_GAPS]) + more
        else:
            self._board.notes.pop("gaps", None)

    async def _wave(self, minute: Minute) -> Wave:
        funding = await self._funding.before(minute.time_ms)
        if self._funding.failure is None:
            self._board.notes.pop("funding", None)
        else:
            self._board.notes["funding"] = self._funding.failure
        return Wave(
            time_ms=minute.time_ms,
            rows=minute.rows,
            bars=minute.bars,
            funding_rate=funding.rate,
            next_funding_ms=funding.next_ms,
            funding_now=funding.charged,
            absent=tuple(self.engine.symbols[row] for row in minute.absent.tolist()),
            late=minute.late,
            late_funding=funding.late,
        )

    def _keep(self, wave: Wave) -> None:
        if self._kept is not None:
            self._kept += [*wave.late, MinuteBars(wave.time_ms, wave.rows, wave.bars)]
