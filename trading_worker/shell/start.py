"""From nothing to an engine that stands at the venue's present: bundle, state, and every minute in between.

The state comes from the worker's own newest mapped state or snapshot, else from stored bars (`warmup`). The minutes
since are fetched over REST and run like live ones, through the core's recovery: what the journal holds is not written
again, barriers that were crossed while the worker was down are settled, and only then does it say that it is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from features.decision import DecisionState
from market.bars import DAY_MS, MINUTE_MS, Bars
from market.binance import listings
from market.binance.rest import MarketDataClient
from market.errors import LakeError, utc
from market.lake import Lake
from models_registry.errors import BundleRejected
from trading_worker.engine import Engine
from trading_worker.errors import SnapshotRefused, WorkerError
from trading_worker.events import AnyEvent, BundleSwapped, PositionClosed, PositionLost, PositionVoided, Signal
from trading_worker.settings import EngineSettings
from trading_worker.shell.bundles import BundleCache, BundleWatcher, Loaded
from trading_worker.shell.conductor import Conductor
from trading_worker.shell.keeping import StateKeeper
from trading_worker.shell.venue import Fetch
from trading_worker.shell.warmup import AT_ONCE, warm
from trading_worker.shell.waves import WaveAssembler

CHUNK_MS = 12 * 60 * MINUTE_MS
"""Market time fetched in one go while catching up."""
BEHIND_S = 1.0
"""Wall seconds between two questions for its time to a venue whose time is behind the engine's."""


class NothingToFollow(WorkerError):
    """A venue without any USDT perpetual in trading: check BINANCE_BASE_URL."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url} has no USDT perpetual contract in trading")


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """An engine with a state.

    `loaded` is the bundle it decides with; `wave_ms` the close of the last minute that its state has seen, or would
    have if there had been a bar; `origin` where the state came from; `snapshot_ms` and `charged_until`, until when
    each symbol's fundings were charged, None when from no snapshot.
    """

    engine: Engine
    loaded: Loaded
    wave_ms: int
    origin: str
    snapshot_ms: int | None
    charged_until: tuple[int, ...] | None


async def universe(lake: Lake | None, client: MarketDataClient, size: int) -> tuple[str, ...]:
    """The symbols to follow: the lake's newest universe by rank, else the venue's by yesterday's traded value.

    Only contracts that stand as trading are taken: none that is still to come, and none whose end is set, see
    `market.binance.listings`. So a symbol that has left makes room for the next by rank, and one that is listed comes
    in at its own. Raises a `MarketError` when the venue cannot be asked, `NothingToFollow` when it has no such
    contract.
    """
    standings = listings.standings(await client.exchange_info(), await client.server_time())
    tradable = [symbol for symbol, each in standings.items() if each is listings.Standing.TRADING]
    try:
        ranked = await asyncio.to_thread(_ranked, lake) if lake is not None else []
    except LakeError:
        ranked = []
    known = [symbol for symbol in ranked if symbol in set(tradable)]
    if not known:
        known = tradable if len(tradable) <= size else await _by_value(client, tradable)
    if not known:
        raise NothingToFollow(client.base_url)
    return tuple(known[:size])


async def leaving(client: MarketDataClient, symbols: Sequence[str]) -> list[listings.Change]:
    """Those of `symbols`, which were all trading, that the venue lets go or has let go, in alphabetical order."""
    known = dict.fromkeys(symbols, listings.Standing.TRADING)
    changes = listings.changes(known, await client.exchange_info(), await client.server_time())
    return [change for change in changes if change.symbol in known]


async def _by_value(client: MarketDataClient, symbols: Sequence[str]) -> list[str]:
    """`symbols` by the traded value of their last closed day, the largest first."""
    gate = asyncio.Semaphore(AT_ONCE)
    now_ms = await client.server_time()

    async def value(symbol: str) -> float:
        async with gate:
            bars = await client.klines(symbol, "1d", now_ms - 2 * DAY_MS, now_ms)
            return float(bars["quote_volume"][-1]) if bars.size else 0.0

    values = await asyncio.gather(*map(value, symbols))
    return [symbol for _, symbol in sorted(zip(values, symbols, strict=True), key=lambda pair: -pair[0])]


def _ranked(lake: Lake) -> list[str]:
    dates = [partition["date"] for partition in lake.partitions("universe")]
    if not dates:
        return []
    rows = lake.read("universe", ("symbol",), "date = ?", (dates[-1],), order_by="rank")
    return [str(symbol) for symbol in rows.column("symbol").to_pylist()]


async def from_kept(
    keeper: StateKeeper,
    champion: Loaded,
    watcher: BundleWatcher,
    cache: BundleCache,
    settings: EngineSettings,
    refuse: Callable[[str], None],
) -> Standing | None:
    """The newest state of the worker's own that fits, with the bundle that made it if that is still here; else None.

    `refuse` is told of every state that was found and passed over, and why.
    """
    for kept in keeper.newest_first(refuse):
        about = kept.state.about
        if not about.time_ms:
            continue
        loaded = await _bundle_of(about.bundle, champion, watcher, cache)
        blank = DecisionState(about.symbols, loaded.spec, incremental=settings.incremental_cache)
        engine = Engine(about.symbols, loaded.predictor, settings, state=blank)
        try:
            engine.resume(kept.state)
        except SnapshotRefused as error:
            refuse(f"the {kept.place} of {utc(about.time_ms)}: {error.reason}")
            continue
        origin = f"its own {kept.place} of {utc(about.time_ms)}"
        return Standing(engine, loaded, about.time_ms, origin, about.time_ms, kept.charged_until)
    return None


async def _bundle_of(name: str, champion: Loaded, watcher: BundleWatcher, cache: BundleCache) -> Loaded:
    """The bundle of that name: what was decided with it is run again with it. The champion when it is gone."""
    version = None if name == champion.name else cache.version_of(name)
    if version is None:
        return champion
    try:
        return await watcher.load_cached(version)
    except BundleRejected:
        return champion


async def from_bars(
    symbols: Sequence[str],
    champion: Loaded,
    settings: EngineSettings,
    until_ms: int,
    lake: Lake | None,
    fetch: Fetch,
) -> Standing:
    """An engine whose features are warm up to `until_ms`, without positions."""
    warmed = await warm(champion.spec, symbols, until_ms, lake, fetch, incremental=settings.incremental_cache)
    engine = Engine(symbols, champion.predictor, settings, state=warmed.state)
    return Standing(engine, champion, engine.time_ms or until_ms - 1, warmed.origin, None, None)


def resume_ms(journal: Sequence[AnyEvent], now_ms: int) -> int:
    """Where an engine without a snapshot begins: before the oldest position that the journal has open, else now."""
    pending: dict[str, int] = {}
    for event in journal:
        if isinstance(event, Signal):
            pending[event.position_id] = event.time_ms
        elif isinstance(event, PositionClosed | PositionVoided | PositionLost):
            pending.pop(event.position_id, None)
    return min(pending.values()) // MINUTE_MS * MINUTE_MS if pending else now_ms // MINUTE_MS * MINUTE_MS


class CatchUp:
    """Runs the minutes between the engine and the venue's present through a conductor.

    Parameters
    ----------
    conductor: whose waves go through the recovery.
    waves: the assembler, which the feed goes on with.
    fetch: asks REST for bars.
    server_time: asks REST for the venue's time.
    swaps: bundles that the journal says were swapped in, by the time of the wave after which it was.
    """

    def __init__(
        self,
        conductor: Conductor,
        waves: WaveAssembler,
        fetch: Fetch,
        server_time: Callable[[], Awaitable[int]],
        swaps: dict[int, Loaded],
    ) -> None:
        self._conductor = conductor
        self._waves = waves
        self._fetch = fetch
        self._server_time = server_time
        self._swaps = swaps

    async def run(self, report: Callable[[int, int], None]) -> int:
        """Until no closed minute is missing; returns the venue's time then. `report` is told (done, present), ms.

        While the venue's time is not beyond the last minute that the engine has seen (the state is from another
        exchange, say a simulated one that began anew), nothing that it sends can be new: that is waited for.
        """
        self._swap(self._waves.wave_ms)
        while True:
            now_ms = await self._server_time()
            present_ms = now_ms // MINUTE_MS * MINUTE_MS
            if now_ms <= self._waves.wave_ms:
                report(self._waves.wave_ms, now_ms)
                await asyncio.sleep(BEHIND_S)
                continue
            if self._waves.next_ms >= present_ms:
                return now_ms
            while self._waves.next_ms < present_ms:
                end_ms = min(self._waves.next_ms + CHUNK_MS, present_ms)
                await self._stretch(end_ms, now_ms)
                report(self._waves.wave_ms, present_ms)

    async def _stretch(self, end_ms: int, now_ms: int) -> None:
        """Every minute that closes before `end_ms`."""
        symbols = self._conductor.engine.symbols
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(row: int, symbol: str) -> Bars:
            # A series that was absent from the last wave still lacks those minutes.
            async with gate:
                return await self._fetch(symbol, self._waves.next_open(row), end_ms)

        found = await asyncio.gather(*(one(row, symbol) for row, symbol in enumerate(symbols)))
        for row, bars in enumerate(found):
            for bar in bars:
                self._waves.take(row, bar)
        while self._waves.next_ms < end_ms:
            minute = self._waves.ready() or self._waves.cut()
            await self._conductor.minute(minute, now_ms)
            self._swap(minute.time_ms)
            await asyncio.sleep(0)

    def _swap(self, time_ms: int) -> None:
        loaded = self._swaps.pop(time_ms, None)
        if loaded is not None:
            self._conductor.repeat_swap(loaded)


async def swaps_since(
    journal: Sequence[AnyEvent], time_ms: int, watcher: BundleWatcher, cache: BundleCache
) -> dict[int, Loaded]:
    """The bundles that the journal has swapped in from `time_ms` on, as far as they are in the cache."""
    found = {}
    for event in journal:
        if isinstance(event, BundleSwapped) and event.time_ms >= time_ms:
            version = cache.version_of(event.new)
            if version is not None:
                with suppress(BundleRejected):
                    found[event.time_ms] = await watcher.load_cached(version)
    return found
