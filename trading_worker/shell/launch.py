"""The launch of a worker: the steps of `start`, with everything that the worker has at hand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from random import Random
from typing import TypeVar

from market.bars import MINUTE_MS
from market.binance.connection import Backoff
from market.binance.errors import Action, BinanceError
from market.errors import utc
from market.lake import Lake
from trading_worker.events import AnyEvent, EpochStarted
from trading_worker.journal import Journal
from trading_worker.recovery import Recovery
from trading_worker.settings import WorkerSettings
from trading_worker.shell.bundles import BundleCache, BundleWatcher, Loaded
from trading_worker.shell.conductor import Cadence, Conductor
from trading_worker.shell.funding import LONGEST_MS, FundingBook
from trading_worker.shell.keeping import StateKeeper
from trading_worker.shell.metrics import Board
from trading_worker.shell.start import (
    CatchUp,
    Standing,
    from_bars,
    from_kept,
    leaving,
    resume_ms,
    swaps_since,
    universe,
)
from trading_worker.shell.tally import Tally
from trading_worker.shell.venue import Venue
from trading_worker.shell.waves import NEVER, WaveAssembler

log = logging.getLogger("trading_worker")

LATE_MS = 15_000
"""Venue time past the deadline of a wave in which REST is asked for its absent bars and it is decided: enough for the
attempts of a read. What is decided later than that was missed."""
FUNDING_BACK_MS = 6 * LONGEST_MS
"""How far back fundings are read: the last two tell the interval, and some may be missing."""

T = TypeVar("T")


def wall_ms() -> int:
    """This machine's clock, ms UTC: only for what the digest leaves out."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Launch:
    """What the steps need. `patient` tries longer than `quick`, which serves while waves wait."""

    settings: WorkerSettings
    board: Board
    watcher: BundleWatcher
    cache: BundleCache
    keeper: StateKeeper
    lake: Lake
    patient: Venue
    quick: Venue
    jitter: Random

    async def standing(self, champion: Loaded, history: Sequence[AnyEvent]) -> Standing:
        """First step: an engine with a state, from the newest that was kept or else from bars."""
        engine_settings = self.settings.engine()
        found = await from_kept(self.keeper, champion, self.watcher, self.cache, engine_settings, self._refused_state)
        if found is not None:
            await self.available(lambda: self._show_leaving(found.engine.symbols))
            return found

        async def warmed() -> Standing:
            symbols = await universe(self.lake, self.patient.client, self.settings.universe_size)
            until_ms = resume_ms(history, await self.patient.server_time())
            return await from_bars(symbols, champion, engine_settings, until_ms, self.lake, self.patient.klines)

        return await self.available(warmed)

    async def _show_leaving(self, symbols: Sequence[str]) -> None:
        """A state that was kept has the symbols of its own time: say which of them the venue lets go."""
        changes = await leaving(self.patient.client, symbols)
        if changes:
            shown = "; ".join(f"{change.symbol} is {change.after.value}: {change.reason}" for change in changes)
            self.board.notes["universe"] = shown
            log.warning("symbols that leave: %s", shown)

    def _refused_state(self, reason: str) -> None:
        log.warning("state passed over: %s", reason)
        before = self.board.notes.get("state")
        self.board.notes["state"] = f"{before}; {reason}" if before else f"passed over at the start: {reason}"

    async def conductor(self, standing: Standing, journal: Journal, history: Sequence[AnyEvent]) -> Conductor:
        """Second step: who drives that engine. The start is queued for the journal, but not yet committed."""
        board, engine = self.board, standing.engine
        board.origin, board.symbols, board.wave_ms = standing.origin, engine.symbols, standing.wave_ms
        tally = Tally(board, standing.loaded.spec.steps[0])
        for event in history:
            tally.add(event)
        tally.show()
        funding = FundingBook(engine.symbols, self.quick.fundings, standing.wave_ms, standing.charged_until)
        now_ms = await self.available(self.patient.server_time)
        await self.available(lambda: funding.load(standing.wave_ms - FUNDING_BACK_MS, now_ms))
        cadence = Cadence(self.settings.snapshot_minutes * MINUTE_MS, self.settings.wave_deadline_ms + LATE_MS)
        conductor = Conductor(
            engine,
            journal,
            funding,
            self.keeper,
            board,
            tally,
            cadence,
            rejections=self.quick.rejections,
            server_time=self.quick.server_time,
            wall_ms=wall_ms,
        )
        conductor.show_bundle(standing.loaded)
        conductor.follow(Recovery(engine, history).on_wave)
        conductor.note(
            EpochStarted(
                time_ms=standing.wave_ms,
                worker=self.settings.worker_name,
                epoch=journal.epoch,
                code_version=version("perpforge"),
                bundle=engine.bundle,
                decision_spec=engine.decision_spec,
                strategy=self.settings.strategy_mode,
                symbols=len(engine.symbols),
                snapshot_ms=standing.snapshot_ms,
                torn_bytes=sum(torn.size for torn in journal.torn),
            )
        )
        self.quick.rejections.write_to(conductor.rejected)
        return conductor

    async def catch_up(
        self, conductor: Conductor, standing: Standing, history: Sequence[AnyEvent]
    ) -> tuple[WaveAssembler, int]:
        """Third step: every minute up to the venue's present; the assembler to go on with, and that present."""
        engine, board = conductor.engine, self.board
        if standing.snapshot_ms is None:
            # From here on a restart begins where this start began, whatever the lake holds by then.
            conductor.snapshot()
        waves = WaveAssembler(
            standing.wave_ms,
            [int(time_ms) if time_ms >= 0 else NEVER for time_ms in engine.last_times],
            deadline_ms=self.settings.wave_deadline_ms,
        )
        swaps = await swaps_since(history, standing.wave_ms, self.watcher, self.cache)
        steps = CatchUp(conductor, waves, self.patient.klines, self.patient.server_time, swaps)

        def report(done_ms: int, present_ms: int) -> None:
            text = f"catching up: {utc(done_ms)} of {utc(present_ms)}"
            if present_ms <= done_ms:
                text = (
                    f"the venue's time {utc(present_ms)} is behind the engine's {utc(done_ms)}: not the same exchange?"
                )
            board.waiting["state"] = text

        board.venue_ms = venue_ms = await self.available(lambda: steps.run(report))
        conductor.live(venue_ms)
        return waves, venue_ms

    async def available(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` gives, however long the venue cannot be reached; errors that waiting does not heal are raised."""
        backoff = Backoff(self.jitter, first_s=1.0)
        while True:
            try:
                found = await ask()
            except BinanceError as error:
                if error.action not in (Action.RETRY, Action.BACK_OFF):
                    raise
                self.board.waiting["market"] = str(error)
                await asyncio.sleep(backoff.next())
            else:
                self.board.waiting.pop("market", None)
                return found
