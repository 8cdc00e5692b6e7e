"""The simulated exchange as fast as a client takes it: one-minute klines of 200 symbols, every message parsed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import numpy as np

from benchmarks.report import Row
from market.bars import DAY_MS, MINUTE_MS
from market.sources.synthetic import DEFAULT_START_MS, SyntheticMarket

SYMBOLS = 200
SECONDS = 10.0
START_MS = DEFAULT_START_MS + DAY_MS
SPEC = f"synthetic:seed=7,symbols={SYMBOLS}"
REAL_TIME = 1 / 60
WAVES_A_SECOND = 100
"""Wanted at least: minutes of all symbols."""
"""One-minute bars of every symbol a second at the venue."""


class _Kline(msgspec.Struct):
    t: int
    c: str
    x: bool


class _Data(msgspec.Struct):
    s: str
    k: _Kline


class _Message(msgspec.Struct):
    data: _Data


@dataclass
class Taken:
    """What the client has counted."""

    waves: int = 0
    messages: int = 0
    seconds: float = 0.0
    server_s: float = 0.0
    """Processor time of the server meanwhile."""
    client_s: float = 0.0
    """Processor time of this process meanwhile."""
    closed: dict[tuple[str, int], float] | None = None


def _processor_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _take(url: str, symbols: tuple[str, ...], pid: int) -> Taken:
    """Subscribe to all symbols; count for some seconds from the first whole minute on."""
    decode = msgspec.json.Decoder(_Message).decode
    names = [f"{symbol.lower()}@kline_1m" for symbol in symbols]
    taken, started, used, last = Taken(closed={}), 0.0, 0.0, 0
    assert taken.closed is not None
    async with aiohttp.ClientSession() as session, session.ws_connect(url + "/market/stream", max_msg_size=0) as socket:
        await socket.send_str(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}))
        await socket.receive()
        async for message in socket:
            kline = decode(message.data).data
            taken.messages += bool(started)
            if not kline.k.x:
                continue
            if kline.k.t != last:
                last = kline.k.t
                if not started:
                    started, used = time.perf_counter(), _processor_s(pid)
                    taken.client_s = time.process_time()
                    continue
                taken.waves += 1
                taken.seconds = time.perf_counter() - started
                if taken.seconds >= SECONDS:
                    taken.server_s = _processor_s(pid) - used
                    taken.client_s = time.process_time() - taken.client_s
                    return taken
            taken.closed[kline.s, kline.k.t] = float(kline.k.c)
    return taken


async def _measure() -> Taken:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "market.simulator", "--source", SPEC, "--start-ms", str(START_MS)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        ready = json.loads(await process.stdout.readline())
        return await _take(ready["ws_url"], SyntheticMarket(symbols=SYMBOLS).symbols(), process.pid)
    finally:
        process.terminate()
        await process.wait()


def _check(taken: Taken) -> None:
    """Every closed bar of the first minutes is the source's, and none is missing or doubled."""
    assert taken.closed is not None
    market = SyntheticMarket(seed=7, symbols=SYMBOLS)
    minutes = sorted({open_time for _, open_time in taken.closed})
    assert np.diff(minutes).tolist() == [MINUTE_MS] * (len(minutes) - 1)
    for symbol in market.symbols()[::20]:
        bars = market.klines(symbol, minutes[1], minutes[-1])
        assert [taken.closed[symbol, time_ms] for time_ms in minutes[1:-1]] == bars["close"].tolist()


def run() -> list[Row]:
    """Minutes a second, after the bars that came were held against their source."""
    taken = asyncio.run(_measure())
    _check(taken)
    waves = taken.waves / taken.seconds
    return [
        Row(
            f"simulator, 1m bars of {SYMBOLS} symbols to a client that takes them all",
            1e3 / waves,
            "ms a minute",
            1e3 / REAL_TIME,
            "the venue's own pace",
            f"{waves:.0f} minutes/s = {waves * 60:,.0f}× real time, {taken.messages / taken.seconds:,.0f} messages/s; "
            f"processor time {taken.server_s / taken.waves * 1e3:.1f} ms a minute, the client's "
            f"{taken.client_s / taken.waves * 1e3:.1f}",
            at_most=1e3 / WAVES_A_SECOND,
        )
    ]
