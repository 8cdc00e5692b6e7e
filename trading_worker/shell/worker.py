"""The worker: everything of the shell put together around one engine."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from functools import partial
from random import Random
from typing import Any

import aiohttp

from features.decision_spec import DECISION_SPEC, DecisionSpec
from market.binance.breaker import Breaker, BreakerSettings
from market.binance.rate_limit import Priority, budget_for
from market.binance.rest import MarketDataClient
from market.errors import MarketError, utc
from market.lake import Lake
from models_registry.mlflow_rest import MlflowRest
from trading_worker import journal as journals
from trading_worker.errors import NothingToAsk
from trading_worker.events import AnyEvent, BundleRefused
from trading_worker.journal import Journal
from trading_worker.settings import WorkerSettings
from trading_worker.shell.bundles import BundleCache, BundleWatcher, Loaded, load_bundle
from trading_worker.shell.conductor import Conductor
from trading_worker.shell.consultation import Consultation
from trading_worker.shell.exchange import reader
from trading_worker.shell.intake import Intake
from trading_worker.shell.keeping import StateKeeper
from trading_worker.shell.launch import Launch
from trading_worker.shell.mapped_keeper import MappedKeeper
from trading_worker.shell.metrics import Board
from trading_worker.shell.publish import Publisher
from trading_worker.shell.rejections import Rejections
from trading_worker.shell.snapshot_store import SnapshotStore
from trading_worker.shell.status import StatusServer
from trading_worker.shell.venue import Venue
from trading_worker.shell.warmup import warm

log = logging.getLogger("trading_worker")

LIVE_ATTEMPTS = 2
"""How often a read is sent while waves wait for it; at the start it may take longer."""
CIRCUITS = BreakerSettings(most_open_s=30.0)
"""Open for less long than usual: streams go on meanwhile, and a gap is to be filled soon after REST is back."""
PUBLISH_S = 2.0
"""Wall seconds between two looks for segments to publish."""


async def run_worker(
    settings: WorkerSettings,
    *,
    stop: asyncio.Event,
    board: Board | None = None,
    specs: Mapping[str, DecisionSpec] | None = None,
    jitter: Random | None = None,
) -> None:
    """Run until `stop` is set, then end in order: commit, snapshot, publish the last segment.

    Returns only after `stop`. Whatever fails inside is raised, as an `ExceptionGroup` when it came from a task of
    the running worker; nothing is swallowed. `board` shows what goes on; `specs` are the decision specifications
    that can be computed, by id; `jitter` draws the pauses between reconnections.
    """
    board = board or Board(worker=settings.worker_name)
    worker = Worker(settings, board, specs or {DECISION_SPEC.id: DECISION_SPEC}, jitter or Random())  # noqa: S311
    running = asyncio.create_task(worker.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await _ended(running)
        await worker.finish()
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.wait({running})
        await worker.close()


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel `task` and wait for its end; what it failed with, before or meanwhile, is raised."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


class Worker:
    """One run of the worker, from an empty process to its end. Use `run_worker`."""

    def __init__(
        self, settings: WorkerSettings, board: Board, specs: Mapping[str, DecisionSpec], jitter: Random
    ) -> None:
        self._settings = settings
        self._board = board
        self._specs = specs
        self._jitter = jitter
        self._stack = AsyncExitStack()
        self._lake = Lake(settings.lake_uri)
        self._keeper = self._kept_in(settings, board)
        self._cache = BundleCache(settings.state_dir / "bundles")
        self._version = ""
        self._conductor: Conductor | None = None
        self._consultation: Consultation | None = None
        self._publisher: Publisher | None = None
        self._lock = asyncio.Lock()
        self._messages = 0
        self._early_refusals: list[tuple[str, str]] = []

    def _kept_in(self, settings: WorkerSettings, board: Board) -> StateKeeper:
        """Where the state is kept, as the settings say."""
        snapshots = SnapshotStore(settings.state_dir / "snapshots")
        if not settings.enable_memory_mapped_storage:
            return snapshots
        mapped = MappedKeeper(settings.state_dir, snapshots, board)
        self._stack.callback(mapped.close)
        return mapped

    async def run(self) -> None:
        """Start, then work until cancelled."""
        board, settings = self._board, self._settings
        server = StatusServer(board, settings.port, settings.host, self._about)
        await server.start()
        self._stack.push_async_callback(server.stop)
        log.info("status page at %s", server.url)
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        self._connect(session)
        # The lock on the journal comes first: a second worker on this folder must end before it does anything.
        journal = self._stack.enter_context(
            Journal(
                settings.state_dir / "journal",
                settings.worker_name,
                settings.segment_bytes,
                identity=secrets.token_hex(4),
            )
        )
        board.epoch = journal.epoch
        board.waiting["bundle"] = "none loaded yet"
        board.waiting.pop("start", None)
        self._watcher = BundleWatcher(
            MlflowRest(settings.mlflow_tracking_uri, session),
            self._cache,
            self._specs,
            interval_s=settings.bundle_poll_s,
            refuse=self._refuse,
            say=self._say_registry,
            load=partial(load_bundle, quantised=settings.enable_quantization),
        )
        champion = await self._watcher.first()
        board.waiting.pop("bundle", None)
        log.info("bundle %s (%s) from the %s", champion.version, champion.name, champion.source)
        intake = await self._launch(journal, champion, session)
        self._consultation = Consultation(self._running().engine, batched=settings.enable_batch_prediction)
        self._stack.push_async_callback(self._consultation.aclose)
        self._publisher = Publisher(
            self._lake,
            journal,
            self._close_idle_segment,
            interval_s=PUBLISH_S,
            wall_s=time.time,
            done=self._published,
        )
        log.info("caught up to %s, state from %s", utc(board.wave_ms), board.origin)
        async with asyncio.TaskGroup() as group:
            group.create_task(intake.stream.run())
            group.create_task(self._watcher.run(self._accept))
            group.create_task(self._publisher.run())

    def _connect(self, session: aiohttp.ClientSession) -> None:
        """The clients of the venue: one budget and one set of circuits for both."""
        rejections, url = Rejections(self._board), self._settings.binance_base_url
        self._budget = budget_for(url)
        self._breaker = Breaker(CIRCUITS)
        patient = MarketDataClient(url, session, budget=self._budget, breaker=self._breaker, priority=Priority.BACKFILL)
        quick = MarketDataClient(url, session, attempts=LIVE_ATTEMPTS, budget=self._budget, breaker=self._breaker)
        self._patient, self._quick = Venue(patient, rejections), Venue(quick, rejections)

    async def _launch(self, journal: Journal, champion: Loaded, session: aiohttp.ClientSession) -> Intake:
        """Bring an engine to the present, with the champion; returns the intake that goes on from there."""
        board = self._board
        board.waiting["state"] = "loading"
        launch = Launch(
            settings=self._settings,
            board=board,
            watcher=self._watcher,
            cache=self._cache,
            keeper=self._keeper,
            lake=self._lake,
            patient=self._patient,
            quick=self._quick,
            jitter=self._jitter,
        )
        history: list[AnyEvent] = [entry.event for entry in journals.read(journal.folder)]
        standing = await launch.standing(champion, history)
        self._conductor = conductor = await launch.conductor(standing, journal, history)
        for version, reason in self._early_refusals:
            self._note_refusal(conductor, version, reason)
        conductor.commit()
        waves, venue_ms = await launch.catch_up(conductor, standing, history)
        if conductor.engine.bundle != champion.name:
            await self._swap(champion)
        self._use(champion)
        conductor.snapshot()
        board.waiting.pop("state", None)
        intake = Intake(
            conductor.engine.symbols,
            waves,
            conductor,
            board,
            ws_root=self._settings.binance_ws_url,
            session=session,
            fetch=self._quick.client.klines,
            server_time=self._quick.server_time,
            jitter=self._jitter,
            seconds=time.perf_counter,
            venue_ms=venue_ms,
        )
        board.exchange = reader(self._quick.client, self._breaker, self._budget, intake.stream)
        self._lock = intake.lock
        return intake

    async def finish(self) -> None:
        """End in order, after `run` was cancelled: nothing that is known is lost, and labels reach the lake."""
        if self._conductor is None:
            return
        self._conductor.commit()
        self._conductor.snapshot()
        if self._publisher is not None:
            self._conductor.close_segment()
            await self._publisher.flush()

    async def close(self) -> None:
        """Let go of files, sockets and the page."""
        await self._stack.aclose()

    # Bundles

    async def _accept(self, loaded: Loaded) -> bool:
        """Swap to a bundle between two waves; False when its features cannot be warmed just now."""
        try:
            await self._swap(loaded)
        except MarketError as error:
            self._board.notes["bundle"] = f"{loaded.version} waits, its features cannot be warmed: {error}"
            return False
        self._board.notes.pop("bundle", None)
        self._use(loaded)
        log.info("bundle %s (%s) decides from now on", loaded.version, loaded.name)
        return True

    async def _swap(self, loaded: Loaded) -> None:
        conductor = self._running()
        if loaded.spec.id == conductor.engine.decision_spec:
            async with self._lock, self._asked_anew():
                conductor.swap(loaded, None)
            return
        async with self._lock:
            conductor.keep_waves(True)
            until_ms = conductor.engine.time_ms + 1
        try:
            fetch = self._patient.klines
            warmed = await warm(
                loaded.spec,
                conductor.engine.symbols,
                until_ms,
                self._lake,
                fetch,
                incremental=self._settings.enable_incremental_cache,
            )
            async with self._lock, self._asked_anew():
                conductor.bring_up(warmed.state)
                conductor.swap(loaded, warmed.state)
        finally:
            conductor.keep_waves(False)

    def _asked_anew(self) -> AbstractAsyncContextManager[None]:
        """For the time of a swap: who waits for an answer of the bundle before is asked of the one in force after."""
        return nullcontext() if self._consultation is None else self._consultation.swapped()

    async def _about(self, symbol: str) -> dict[str, Any]:
        """What the bundle says of `symbol`; `NothingToAsk` before there is an engine."""
        if self._consultation is None:
            raise NothingToAsk(symbol, "the worker is starting")
        return await self._consultation.about(symbol)

    def _use(self, loaded: Loaded) -> None:
        """Note which bundle is in force. The one before stays in the cache too: the newest snapshots name it."""
        self._cache.mark_good(loaded.version, frozenset({loaded.version, self._version}))
        self._version = loaded.version
        if loaded.source == "cache" and "registry" in self._board.notes:
            self._board.notes["cache"] = f"bundle {loaded.version} is the last good one, from the cache"
        else:
            self._board.notes.pop("cache", None)

    async def _refuse(self, version: str, reason: str) -> None:
        log.warning("bundle %s refused: %s", version, reason)
        if self._conductor is None:
            self._board.waiting["bundle"] = f"{version} was refused: {reason}"
            self._early_refusals.append((version, reason))
            return
        async with self._lock:
            self._note_refusal(self._conductor, version, reason)
            self._conductor.commit()

    @staticmethod
    def _note_refusal(conductor: Conductor, version: str, reason: str) -> None:
        conductor.note(BundleRefused(time_ms=conductor.engine.time_ms, bundle=version, reason=reason))

    def _say_registry(self, reason: str | None) -> None:
        if reason is None:
            self._board.notes.pop("registry", None)
            self._board.notes.pop("cache", None)
            return
        self._board.notes["registry"] = reason
        if "bundle" in self._board.waiting:
            self._board.waiting["bundle"] = f"none in the cache, and {reason}"

    # The lake

    async def _close_idle_segment(self) -> None:
        """When nothing has come since the last look (a market that stands still), do not wait for the next wave."""
        messages, self._messages = self._messages, self._board.messages
        if messages == self._messages:
            async with self._lock:
                self._running().close_segment()

    def _published(self, count: int, failure: str | None) -> None:
        self._board.segments_published += count
        if failure is None:
            self._board.notes.pop("lake", None)
        else:
            self._board.notes["lake"] = failure

    def _running(self) -> Conductor:
        if self._conductor is None:
            raise RuntimeError("the worker has not started")
        return self._conductor
