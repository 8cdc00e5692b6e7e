"""A worker on the simulated exchange, what it wrote down, and the same market as a backtest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from market.simulator.server import Simulator
from market.sources import open_source
from tests.trading_worker.shell.conftest import (
    MINUTE_MS,
    SOURCE,
    START_MS,
    cached_bundle,
    simulated,
    until,
    worker_environment,
    working,
)
from trading_worker import journal
from trading_worker.events import INPUT, OPERATIONAL, AnyEvent, WaveClosed, canonical
from trading_worker.replay import plain_predictor, replay
from trading_worker.settings import load
from trading_worker.shell.metrics import Board
from trading_worker.shell.snapshot_store import SnapshotStore

MINUTES = 180
END_MS = START_MS + MINUTES * MINUTE_MS


@asynccontextmanager
async def exchange_and_worker(folder: Path, consumers: int = 1) -> AsyncIterator[tuple[Simulator, Board]]:
    """A ready worker with a cached bundle on an exchange that moves when it is stepped."""
    cached_bundle(folder / "state")
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(simulated(consumers=consumers, stepped=True))
        board = await stack.enter_async_context(working(load(worker_environment(folder, simulator.url))))
        await until(lambda: board.ready)
        yield simulator, board


def journaled(folder: Path) -> list[AnyEvent]:
    """What a worker has written down."""
    return [entry.event for entry in journal.read(folder / "state" / "journal")]


def history(folder: Path, minutes: int = MINUTES) -> list[AnyEvent]:
    """The same market as a backtest."""
    source = open_source(SOURCE)
    end_ms = START_MS + minutes * MINUTE_MS
    since_ms = START_MS - 30 * 1440 * MINUTE_MS
    bars = {symbol: source.klines(symbol, since_ms, end_ms) for symbol in source.symbols()}
    funding = {symbol: source.funding(symbol, since_ms, end_ms) for symbol in source.symbols()}
    settings = load(worker_environment(folder, "http://none")).engine()
    predictor = plain_predictor()
    named = msgspec.structs.replace(predictor.manifest, bundle_version="plain-1")
    object.__setattr__(predictor, "manifest", named)
    return replay(bars, funding, predictor, settings, start_ms=START_MS).events


def decisions(events: list[AnyEvent]) -> list[bytes]:
    """What was decided and how it ended, without who was absent and what was refused."""
    return [canonical(event) for event in events if not isinstance(event, (WaveClosed, *INPUT, *OPERATIONAL))]


def feature_state(folder: Path) -> dict[str, bytes]:
    """The features' state, byte by byte, as the worker stored it last."""
    kept = next(SnapshotStore(folder / "state" / "snapshots").newest_first(pytest.fail))
    return {name: array.tobytes() for name, array in kept.state.arrays.items() if name.startswith("state.")}
