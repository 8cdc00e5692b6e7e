"""The whole worker on the simulated exchange, over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import numpy as np
import pytest

from market.bars import Bars
from market.binance import bar_stream
from market.binance.breaker import BreakerSettings
from market.binance.errors import Unreachable
from market.binance.rest import MarketDataClient
from market.simulator.faults import KINDS, BarName, Corruption, FaultRequest, spoil
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
from tests.trading_worker.shell.runs import END_MS, MINUTES, decisions, exchange_and_worker, history, journaled
from trading_worker.events import (
    BarRejected,
    BarsAbsent,
    PositionClosed,
    WaveClosed,
    digest,
    kind,
)
from trading_worker.settings import load
from trading_worker.shell import conductor, start, worker
from trading_worker.shell.publish import Publisher
from trading_worker.shell.snapshot_store import SnapshotStore
from trading_worker.shell.worker import run_worker


async def test_live_decides_what_history_decides_to_the_bit(tmp_path: Path) -> None:
    async with exchange_and_worker(tmp_path) as (simulator, board):
        await simulator.step(MINUTES)
    live = journaled(tmp_path)
    assert Counter(map(kind, live))["position_closed"] >= 3
    assert digest(live) == digest(history(tmp_path))
    assert (board.waves, board.waves_missed, board.waves_cut, board.bars_fetched) == (MINUTES // 5, 0, 0, 0)
    closed = [event for event in live if isinstance(event, PositionClosed)]
    assert board.outcomes.total() == len(closed)
    assert not any(event.ticks_disagree for event in closed), "the stream told the same barrier as the bars"


async def test_stream_faults_are_repaired_counted_and_change_no_decision(tmp_path: Path) -> None:
    def name(symbol: str, minute: int) -> BarName:
        return BarName(symbol, START_MS + minute * MINUTE_MS)

    kinds = ("high_below_low", "nan", "negative_volume", "zero_price", "unknown_symbol", "garbage")
    faults = FaultRequest(
        drop_closed=[name("ETHUSDT", 4), name("SOLUSDT", 9), name("SOLUSDT", 10)],
        late_closed=[name("BTCUSDT", 14)],
        duplicate_closed=[name("BTCUSDT", 19), name("ETHUSDT", 21)],
        corrupt=[Corruption("ETHUSDT", START_MS + (24 + 5 * i) * MINUTE_MS, kind) for i, kind in enumerate(kinds)],
        revise_closed=[name("SOLUSDT", 60)],
    )
    async with exchange_and_worker(tmp_path) as (simulator, board):
        simulator.faults.add(faults)
        await simulator.step(80)
        simulator.hub.cut()
        await simulator.step(MINUTES - 80)
    assert decisions(journaled(tmp_path)) == decisions(history(tmp_path))
    assert (board.waves, board.waves_missed) == (MINUTES // 5, 0)
    assert board.exchange().repeated == 3, "two that were sent twice, and the late one, which REST was quicker with"
    assert board.rejected.total() == len(kinds)
    assert board.bars_revised == 1
    assert board.reconnects.total() == 1


@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
async def test_two_days_of_random_stream_faults_change_no_decision(tmp_path: Path, seed: int) -> None:
    rng, minutes = Random(seed), 2880
    symbols = open_source(SOURCE).symbols()

    def some(count: int) -> list[BarName]:
        return [BarName(rng.choice(symbols), START_MS + rng.randrange(minutes - 5) * MINUTE_MS) for _ in range(count)]

    async with exchange_and_worker(tmp_path) as (simulator, board):
        simulator.faults.add(
            FaultRequest(
                drop_closed=some(200),
                late_closed=some(50),
                duplicate_closed=some(50),
                revise_closed=some(50),
                corrupt=[Corruption(bar.symbol, bar.open_time, rng.choice(list(KINDS))) for bar in some(100)],
            )
        )
        for _ in range(20):
            await simulator.step(minutes // 20)
            simulator.hub.cut()
        await until(lambda: board.reconnects.total() >= 20)
    assert decisions(journaled(tmp_path)) == decisions(history(tmp_path, minutes))
    assert (board.waves, board.waves_missed) == (minutes // 5, 0)


async def test_a_bar_that_the_venue_lacks_is_named_absent_and_the_wave_is_not_missed(tmp_path: Path) -> None:
    async with exchange_and_worker(tmp_path) as (simulator, board):
        simulator.faults.add(FaultRequest(withhold=[BarName("ETHUSDT", START_MS + 9 * MINUTE_MS)]))
        await simulator.step(20)
    cut = [event for event in journaled(tmp_path) if isinstance(event, WaveClosed) and event.absent]
    assert [(event.time_ms, event.absent) for event in cut] == [(START_MS + 10 * MINUTE_MS - 1, ("ETHUSDT",))]
    assert (board.waves, board.waves_missed, board.waves_cut) == (4, 0, 1)
    [gone] = [event for event in journaled(tmp_path) if isinstance(event, BarsAbsent)]
    assert (gone.symbol, gone.start_ms, gone.end_ms) == (
        "ETHUSDT",
        START_MS + 9 * MINUTE_MS,
        START_MS + 10 * MINUTE_MS,
    )
    assert board.bars_absent == {gone.cause: 1} == {"venue_has_no_data": 1}


async def test_the_board_tells_how_the_exchange_stands(tmp_path: Path) -> None:
    async with exchange_and_worker(tmp_path) as (simulator, board):
        assert board.exchange().circuits == {"market_data": "closed"}
        simulator.faults.add(FaultRequest(drop_closed=[BarName("ETHUSDT", START_MS + MINUTE_MS)]))
        await simulator.step(4)
        report = board.exchange()
    assert (report.connections, report.weight, report.rest_failures) == (1, None, 0), "a simulator has no budget here"
    assert report.venue_weight
    assert report.venue_delay.count == 11
    assert (report.venue_delay.worst_s, report.own_delay.count) == (2.0, 11)
    assert [(each.symbol, each.delay_s, each.asking) for each in report.symbols] == [
        (symbol, 2.0, False) for symbol in open_source(SOURCE).symbols()
    ]


async def test_rest_that_fails_opens_the_circuit_and_the_bars_come_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six failures open it; what the streams bring goes on, and what they do not comes late."""
    monkeypatch.setattr(worker, "CIRCUITS", BreakerSettings(spacing_s=0.0, open_s=0.01, most_open_s=0.01))
    minutes = range(4, 8)
    async with exchange_and_worker(tmp_path) as (simulator, board):
        symbol = open_source(SOURCE).symbols()[1]
        simulator.faults.add(FaultRequest(drop_closed=[BarName(symbol, START_MS + m * MINUTE_MS) for m in minutes]))
        simulator.rest_faults.down = True
        await simulator.step(9)
        await until(lambda: board.exchange().rest_failures > 0)
        assert board.exchange().circuits["market_data"] != "closed"
        assert "cannot be fetched" in board.notes["rest"]
        simulator.rest_faults.down = False
        await until(lambda: board.exchange().circuits["market_data"] != "open")
        await simulator.step(20)
        assert board.exchange().circuits["market_data"] == "closed"
        assert "rest" not in board.notes
    closed = [event for event in journaled(tmp_path) if isinstance(event, WaveClosed)]
    absent = [event.time_ms for event in closed if symbol in event.absent]
    late = [open_time for event in closed for name, open_time in event.late if name == symbol]
    assert [time_ms - MINUTE_MS + 1 for time_ms in absent] == late, "each bar that its wave lacked was fed late"
    assert set(late) >= {START_MS + minute * MINUTE_MS for minute in minutes}


async def test_a_decision_wave_without_any_bar_is_missed(tmp_path: Path) -> None:
    async with exchange_and_worker(tmp_path) as (simulator, board):
        symbols = open_source(SOURCE).symbols()
        minute = START_MS + 9 * MINUTE_MS
        simulator.faults.add(FaultRequest(withhold=[BarName(symbol, minute) for symbol in symbols]))
        await simulator.step(20)
    [empty] = [event for event in journaled(tmp_path) if isinstance(event, WaveClosed) and not event.present]
    assert (empty.time_ms, empty.decided) == (minute + MINUTE_MS - 1, True)
    assert (board.waves, board.waves_missed, board.waves_down) == (4, 1, 0)


@pytest.mark.parametrize("answers", [True, False], ids=["refuses", "hangs"])
async def test_a_venue_that_does_not_tell_its_time_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    async def no_time(self: MarketDataClient) -> int:
        if answers:
            raise Unreachable("http://venue", "refused")
        return await asyncio.get_running_loop().create_future()

    async with exchange_and_worker(tmp_path) as (simulator, board):
        monkeypatch.setattr(conductor, "ASK_S", 0.01)
        monkeypatch.setattr(MarketDataClient, "server_time", no_time)
        await simulator.step(10)
    assert (board.waves, board.waves_missed) == (2, 0)


async def test_a_restart_goes_on_from_its_snapshot_with_its_counts(tmp_path: Path) -> None:
    cached_bundle(tmp_path / "state")
    async with simulated(stepped=True) as simulator:
        settings = load(worker_environment(tmp_path, simulator.url))
        async with working(settings) as board:
            await until(lambda: board.ready)
            await simulator.step(70)
        # Time passes while nobody listens: what closes meanwhile is settled before it is ready.
        simulator.consumers = 0
        await simulator.step(40)
        simulator.consumers = 1
        async with working(settings) as again:
            await until(lambda: again.ready)
            assert again.wave_ms == START_MS + 110 * MINUTE_MS - 1
            await simulator.step(MINUTES - 110)
    assert "its own mapped state of" in again.origin
    assert (again.epoch, again.waves, again.waves_missed, again.waves_down) == (2, MINUTES // 5, 0, 8)
    assert again.since_ms == board.since_ms == START_MS - 1
    source = open_source(SOURCE)
    stored = next(SnapshotStore(tmp_path / "state" / "snapshots").newest_first(pytest.fail))
    charged = [source.funding(symbol, START_MS, END_MS)["funding_time"] for symbol in source.symbols()]
    assert stored.charged_until == tuple(int(times[-1]) if times.size else START_MS - 1 for times in charged)
    assert again.signals_total > board.signals_total
    assert digest(journaled(tmp_path)) == digest(history(tmp_path))


async def test_bars_over_rest_that_are_not_possible_are_refused_at_the_start_and_in_catch_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {START_MS - 30 * MINUTE_MS: "nan", START_MS + 24 * MINUTE_MS: "high_below_low"}
    klines = MarketDataClient.klines

    async def spoilt(self: MarketDataClient, symbol: str, interval: str, start_ms: int, end_ms: int) -> Bars:
        bars = await klines(self, symbol, interval, start_ms, end_ms)
        for index in np.flatnonzero(np.isin(bars["open_time"], list(bad))) if symbol == "ETHUSDT" else ():
            bars[index : index + 1] = spoil(bars[index : index + 1], bad[int(bars[index]["open_time"])])
        return bars

    monkeypatch.setattr(MarketDataClient, "klines", spoilt)
    cached_bundle(tmp_path / "state")
    async with simulated(stepped=True) as simulator:
        settings = load(worker_environment(tmp_path, simulator.url))
        async with working(settings) as board:
            await until(lambda: board.ready)
            await simulator.step(20)
        simulator.consumers = 0
        await simulator.step(20)
        simulator.consumers = 1
        async with working(settings) as again:
            await until(lambda: again.ready)
            await simulator.step(20)
    assert board.rejected == {"a price or the volume is not a finite number": 1}
    assert again.rejected == {"high # < low #": 1}
    events = journaled(tmp_path)
    refused = [(event.symbol, event.open_time) for event in events if isinstance(event, BarRejected)]
    assert refused == [("ETHUSDT", open_time) for open_time in bad]
    cut = [(event.time_ms, event.absent) for event in events if isinstance(event, WaveClosed) and event.absent]
    assert cut == [(START_MS + 25 * MINUTE_MS - 1, ("ETHUSDT",))], "nothing else is lost"
    assert again.waves == 12


async def test_on_an_exchange_whose_time_is_behind_its_own_it_waits_until_that_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "BEHIND_S", 0.01)
    async with exchange_and_worker(tmp_path) as (simulator, _):
        await simulator.step(30)
    async with AsyncExitStack() as stack:
        anew = await stack.enter_async_context(simulated(stepped=True, consumers=0))
        again = await stack.enter_async_context(working(load(worker_environment(tmp_path, anew.url))))
        await until(lambda: "is behind the engine's 2026-01-10T00:29:59" in again.waiting.get("state", ""))
        await anew.step(29)
        assert not again.ready
        await anew.step(1)
        await until(lambda: again.ready)
        anew.consumers = 1
        await anew.step(10)
    assert again.rejected == {}
    assert (again.waves, again.waves_missed, again.waves_down) == (8, 0, 0)


@pytest.mark.parametrize("damage", ["removed", "corrupt"])
async def test_without_a_readable_state_the_journal_says_which_positions_were_open(tmp_path: Path, damage: str) -> None:
    cached_bundle(tmp_path / "state")
    async with simulated(stepped=True) as simulator:
        settings = load(worker_environment(tmp_path, simulator.url))
        async with working(settings) as board:
            await until(lambda: board.ready)
            await simulator.step(70)
        assert board.open_positions
        for path in (tmp_path / "state" / "state.map", *(tmp_path / "state" / "snapshots").iterdir()):
            path.unlink() if damage == "removed" else path.write_bytes(path.read_bytes()[:-1])
        async with working(settings) as again:
            await until(lambda: again.ready)
            assert again.positions == board.positions
            await simulator.step(MINUTES - 70)
    assert "cold backfill" in again.origin
    assert digest(journaled(tmp_path)) == digest(history(tmp_path))


async def test_streams_that_acknowledge_and_stay_silent_are_replaced_by_rest_and_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar_stream, "TICK_S", 0.01)

    def misrouted(root: str, names: list[str], per_connection: int) -> list[str]:
        return [f"{root}/public/stream?streams={'/'.join(names)}"]

    monkeypatch.setattr(bar_stream, "stream_urls", misrouted)
    async with exchange_and_worker(tmp_path, consumers=0) as (simulator, board):
        for minute in range(1, 13):
            await simulator.step(1)
            due_ms = START_MS + (minute - 1) * MINUTE_MS - 1
            await until(lambda due_ms=due_ms: board.wave_ms >= due_ms)
        await until(lambda: board.reconnects["silent streams"] >= 1)
    assert board.messages == 0
    # A stepped clock stands until the next minute is over, and only then tells that a wave is overdue.
    assert (board.waves, board.waves_missed) == (2, 2)


async def test_what_fails_inside_ends_the_worker_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_bundle(tmp_path / "state")

    async def broken(self: Publisher) -> None:
        raise RuntimeError("the publisher broke")

    monkeypatch.setattr(Publisher, "run", broken)
    async with simulated() as simulator:
        settings = load(worker_environment(tmp_path, simulator.url))
        with pytest.raises(ExceptionGroup) as caught:
            await run_worker(settings, stop=asyncio.Event())
    assert caught.group_contains(RuntimeError, match="the publisher broke")
