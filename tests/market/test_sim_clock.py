"""The simulated clock, the path within a bar, and numbers as text."""

from __future__ import annotations

import asyncio
import signal
import sys

import aiohttp
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.bars import BAR, DAY_MS, MINUTE_MS, Bars, fault, from_columns
from market.simulator.clock import SimulatedClock, SimulationFailed
from market.simulator.exchange_info import power_of_ten, symbol_info
from market.simulator.prices import fold, so_far
from market.simulator.server import Simulator
from market.simulator.tape import FundingTimes
from market.simulator.text import decimals
from tests.market.exchange_helpers import (
    MARKET,
    START,
    MemorySource,
    closed_of,
    cut,
    get,
    post,
    status,
    taking,
)


class Wall:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def clock(**wishes: object) -> SimulatedClock:
    defaults: dict[str, object] = {"end_ms": None, "speed": None, "pause_at_ms": None, "wall": Wall()}
    return SimulatedClock(START, **(defaults | wishes))  # type: ignore[arg-type]


def test_it_begins_at_a_full_minute() -> None:
    with pytest.raises(SimulationFailed, match="first millisecond of a minute"):
        SimulatedClock(START + 1, None, None, None, Wall())


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_speed_is_a_positive_number(speed: float) -> None:
    with pytest.raises(SimulationFailed, match="speed"):
        clock(speed=speed)


def test_a_minute_is_played_only_if_it_ends_by_the_pause_and_the_end() -> None:
    assert not clock(pause_at_ms=START + MINUTE_MS - 1).may_play
    assert clock(pause_at_ms=START + MINUTE_MS).may_play
    assert clock(end_ms=START + MINUTE_MS - 1).ended
    ending = clock(end_ms=START + MINUTE_MS)
    assert ending.may_play
    ending.played()
    assert ending.ended
    assert not ending.may_play


async def test_between_two_events_a_paced_clock_follows_the_wall_and_never_passes_the_next() -> None:
    wall = Wall()
    slow = clock(speed=0.01, wall=wall)  # twenty simulated seconds last 2,000 of the wall's
    arriving = asyncio.create_task(slow.reach(START + 20_000))
    await asyncio.sleep(0)
    assert slow.now_ms == START
    wall.now += 1_000
    assert slow.now_ms == START + 10_000
    wall.now += 5_000
    assert slow.now_ms == START + 19_999
    slow.set_speed(None)
    await arriving
    assert slow.now_ms == START + 20_000


async def test_changing_the_speed_does_not_move_the_time() -> None:
    wall = Wall()
    paced = clock(speed=0.01, wall=wall)
    arriving = asyncio.create_task(paced.reach(START + 20_000))
    await asyncio.sleep(0)
    wall.now += 500
    paced.set_speed(0.001)
    assert paced.now_ms == START + 5_000
    wall.now += 1_000
    assert paced.now_ms == START + 6_000
    paced.set_speed(None)
    await arriving


async def test_waiting_for_a_failed_clock_raises() -> None:
    broken = clock()
    waiting = asyncio.create_task(broken.wait_for(lambda: False))
    await asyncio.sleep(0)
    broken.enter("failed")
    with pytest.raises(SimulationFailed, match="failed"):
        await waiting


@given(st.lists(st.floats(allow_infinity=False), min_size=1, max_size=20))
def test_decimals_read_back_to_the_last_bit_and_have_no_exponent(values: list[float]) -> None:
    text = decimals(np.array(values))
    assert len(text) == len(values)
    assert not any("e" in item for item in text)
    np.testing.assert_array_equal(np.array([float(item) for item in text]), values)


@st.composite
def bars(draw: st.DrawFn) -> np.ndarray:
    ticks = draw(st.lists(st.integers(1, 100_000), min_size=4, max_size=4))
    low, high = min(ticks) / 100, max(ticks) / 100
    flows = [draw(st.floats(0, 1e9)) for _ in range(5)]
    names = ("volume", "quote_volume", "trades", "taker_buy_base", "taker_buy_quote")
    prices = {"open": [ticks[0] / 100], "high": [high], "low": [low], "close": [ticks[1] / 100]}
    return from_columns(prices | {"open_time": [START]} | {n: [v] for n, v in zip(names, flows, strict=True)})


@given(bars(), st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=6))
def test_an_unfinished_bar_stays_inside_its_bar_and_only_widens(bar: np.ndarray, fractions: list[float]) -> None:
    earlier = None
    for fraction in sorted(fractions):
        now = so_far(bar, fraction, np.array([2]))
        assert fault(now[0]) is None
        assert now["open"] == bar["open"]
        assert bar["low"] <= now["low"]
        assert now["high"] <= bar["high"]
        assert round(float(now["close"][0]), 2) == float(now["close"][0])
        for name in ("volume", "quote_volume", "trades", "taker_buy_base", "taker_buy_quote"):
            assert now[name] <= bar[name]
            assert earlier is None or earlier[name] <= now[name]
        if earlier is not None:
            assert now["high"] >= earlier["high"]
            assert now["low"] <= earlier["low"]
        earlier = now


def test_the_path_touches_the_adverse_extreme_first() -> None:
    columns = {
        "open_time": [0, 0],
        "open": [10, 10],
        "high": [12, 12],
        "low": [9, 9],
        "close": [11, 9.5],
        "volume": [6, 6],
    }
    two = from_columns(columns)
    digits = np.array([2, 2])
    assert so_far(two, 1 / 3, digits)["close"].tolist() == [9.0, 12.0]
    assert so_far(two, 2 / 3, digits)["close"].tolist() == [12.0, 9.0]


def test_folding_keeps_missing_flows_missing() -> None:
    columns = {"open_time": [START, START + MINUTE_MS], "open": [1, 2], "high": [3, 4], "low": [1, 1], "close": [2, 3]}
    folded = fold(from_columns(columns | {"volume": [1, 2]}), START, 5 * MINUTE_MS)
    assert folded[["open", "high", "low", "close", "volume"]].item() == (1, 4, 1, 3, 3)
    assert np.isnan(folded["trades"][0])
    assert folded.dtype == BAR


def test_the_next_funding_is_a_full_minute_and_goes_on_after_the_recording() -> None:
    hour = 60 * MINUTE_MS
    times = FundingTimes([START + 3, START + 4 * hour + 2], [0.0001, 0.0002])
    assert np.isnan(times.at(START + 2)[0])
    assert times.at(START + 3) == (0.0001, START + 4 * hour)
    assert times.at(START + 4 * hour + 2) == (0.0002, START + 8 * hour)
    assert times.at(START + 13 * hour) == (0.0002, START + 16 * hour)
    assert FundingTimes([], []).at(START + 1)[1] == START + 8 * hour


@given(st.integers(-8, 8))
def test_powers_of_ten_are_plain(exponent: int) -> None:
    assert float(power_of_ten(exponent)) == float(f"1e{exponent}")


@given(st.floats(1e-6, 1e6), st.integers(0, 8))
def test_trading_rules_allow_trading(price: float, price_decimals: int) -> None:
    info = symbol_info("AUSDT", price, price_decimals, 0, "TRADING")
    filters = {each["filterType"]: each for each in info["filters"]}
    lot = filters["LOT_SIZE"]
    assert info["baseAsset"] == "A"
    assert float(lot["minQty"]) <= float(lot["maxQty"])
    assert float(filters["PRICE_FILTER"]["maxPrice"]) > price
    assert float(filters["PRICE_FILTER"]["tickSize"]) == pytest.approx(10.0**-price_decimals)


# --- the clock of a running exchange ---------------------------------------------------------------------------------


async def test_the_clock_holds_until_enough_consumers_are_subscribed() -> None:
    async with (
        Simulator(MARKET, START, end_ms=START + 5 * MINUTE_MS, consumers=2) as simulator,
        taking(simulator.ws_url + "/market/ws/btcusdt@kline_1m") as first,
    ):
        held = await status(simulator, "holding")
        assert (held["minutes_played"], held["consumers"], held["now_ms"]) == (0, 1, START)
        async with taking(simulator.ws_url + "/market/stream?streams=ethusdt@kline_1m") as second:
            await simulator.ended()
            assert len(first) == len(second) == 15


async def test_a_slow_consumer_is_waited_for_and_a_gone_one_is_not() -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator, aiohttp.ClientSession() as session:
        slow = await session.ws_connect(simulator.ws_url + "/market/ws/btcusdt@kline_1m")
        async with taking(simulator.ws_url + "/market/ws/btcusdt@kline_1m") as quick:
            stepping = asyncio.create_task(simulator.step(3))
            waited = await status(simulator, "waiting")
            for _ in range(20):
                waited = await get(simulator.url + "/simulator/clock")
            assert (waited["state"], waited["minutes_played"]) == ("waiting", 0)
            assert len(quick) == 3
            for _ in range(3):
                await slow.receive()
            # It has read the first minute, but answers the ping only when it asks for the next message.
            assert (await get(simulator.url + "/simulator/clock"))["minutes_played"] == 0
            await slow.receive()
            assert (await status(simulator, "waiting"))["minutes_played"] == 1
            await slow.close()
            await stepping
            assert len(closed_of(quick, "BTCUSDT")) == 3


async def test_the_clock_is_told_over_http() -> None:
    async with Simulator(MARKET, START, end_ms=START + 10 * MINUTE_MS, stepped=True) as simulator:
        url = simulator.url + "/simulator/clock"
        stepped = await post(url + "/step", {"minutes": 2})
        assert (stepped["minutes_played"], stepped["state"]) == (2, "paused")
        assert stepped["now_ms"] == START + 2 * MINUTE_MS + 1_999
        assert (await get(simulator.url + "/fapi/v1/time"))["serverTime"] == stepped["now_ms"]
        faster = await post(url, {"speed": 60000.0, "pause_at_ms": START + 5 * MINUTE_MS})
        assert faster["speed"] == 60000.0
        assert (await status(simulator, "paused"))["minutes_played"] == 5
        await post(url, {"speed": None, "pause_at_ms": None})
        ended = await status(simulator, "ended")
        assert (ended["minutes_played"], ended["end_ms"], ended["speed"]) == (10, START + 10 * MINUTE_MS, None)
        assert (await post(url + "/step", {"minutes": 1}))["state"] == "ended"
        for wrong in ({"speed": -1.0}, {"sped": 1.0}, {"pause_at_ms": "soon"}):
            assert "error" in await post(url, wrong)


async def test_the_source_end_ends_the_clock() -> None:
    async with Simulator(cut(START - DAY_MS, START + 4 * MINUTE_MS), START) as simulator:
        await simulator.ended()
        assert simulator.clock.minute == START + 4 * MINUTE_MS


async def test_a_source_that_fails_is_reported_and_not_hidden() -> None:
    class Broken(MemorySource):
        def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
            if end_ms > START:
                raise OSError("the disk is gone")
            return super().klines(symbol, start_ms, end_ms)

    whole = cut(START - DAY_MS, START + DAY_MS)
    broken = Broken({"BTCUSDT": whole.klines("BTCUSDT", START - DAY_MS, START + DAY_MS)})
    async with Simulator(broken, START, stepped=True) as simulator:
        with pytest.raises(SimulationFailed, match="failed") as caught:
            await simulator.step(1)
        assert isinstance(caught.value.__cause__, OSError)
        assert (await get(simulator.url + "/simulator/clock"))["failure"] == "OSError: the disk is gone"


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_says_where_it_is_and_ends_cleanly(number: signal.Signals) -> None:
    arguments = ["--source", "synthetic:symbols=1", "--start-ms", str(START), "--stepped"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "market.simulator", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    ready = msgspec.json.decode(await process.stdout.readline())
    assert (await get(ready["url"] + "/fapi/v1/time"))["serverTime"] == START
    async with taking(ready["ws_url"] + "/market/ws/btcusdt@kline_1m") as taken:
        await post(ready["url"] + "/simulator/clock/step", {"minutes": 1})
        assert len(taken) == 3
        process.send_signal(number)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
