"""Every parser on damaged input: a typed error, or something that can be. Never a crash, never a wrong bar."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from market.bars import MINUTE_MS, fault, validate
from market.binance.account import AccountClient
from market.binance.bar_feed import BarFeed
from market.binance.bar_sink import ClosedBar
from market.binance.decoding import not_finite
from market.binance.error_codes import error_of
from market.binance.errors import BinanceError
from market.binance.listings import standings
from market.binance.public_events import parse_public
from market.binance.rest import MarketDataClient
from market.binance.rules import all_rules
from market.binance.signing import Credentials
from market.binance.streams import parse
from market.binance.transport import Call, Transport
from market.binance.user_events import parse_user
from market.errors import BarRejected, MarketError
from market.sources.recorded import read_archived_funding, read_file
from tests.market.binance.spoken import algo, state
from tests.market.binance.test_bar_feed import START, message
from tests.market.binance.test_user_events import FILL, MONEY, TRIGGERED
from tests.market.exchange_helpers import MARKET
from tests.market.test_streams import KLINE, MARK

QUICK, DEEP = 200, 100_000
WORDS = (
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e999",
    b"null",
    b"true",
    b'""',
    b"{}",
    b"[]",
    b"0",
    b"9" * 40,
    b"\\ud800",
    b"\x00",
)


def mutated(raw: bytes, random: Random) -> bytes:
    """`raw` with a few bytes set, cut, doubled, exchanged or replaced by words that parsers stumble on."""
    data = bytearray(raw)
    for _ in range(random.randint(1, 4)):
        if not data:
            return b""
        place = random.randrange(len(data))
        kind = random.randrange(7)
        if kind == 0:
            data[place] = random.randrange(256)
        elif kind == 1:
            del data[place : place + random.randint(1, 30)]
        elif kind == 2:
            data[place:place] = data[place : place + random.randint(1, 30)]
        elif kind == 3:
            other = random.randrange(len(data))
            data[place], data[other] = data[other], data[place]
        elif kind == 4:
            data[place : place + random.randint(0, 12)] = random.choice(WORDS)
        elif kind == 5:
            del data[place:]
        else:
            # A value in JSON replaced by another kind of value.
            begin = data.find(b":", place)
            end = min((each for each in (data.find(b",", begin), data.find(b"}", begin)) if each > 0), default=-1)
            if 0 <= begin < end:
                data[begin + 1 : end] = random.choice(WORDS)
    return bytes(data)


class Desk:
    """Accepts no bar that cannot be."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}

    def closed(self, bar: ClosedBar) -> None:
        assert fault(bar.bar) is None
        assert bar.open_time % MINUTE_MS == 0
        assert bar.open_time > self.last.get(bar.symbol, -1)
        self.last[bar.symbol] = bar.open_time

    def moving(self, event: Any) -> None:
        return

    def rejected(self, error: MarketError) -> None:
        assert isinstance(error, MarketError)

    def revised(self, used: ClosedBar, other: Any) -> None:
        return

    def absent(self, *gap: Any) -> None:
        return


def feed(raw: bytes) -> None:
    """A fresh feed takes a bar, the damaged message, and the next bar."""
    line = BarFeed({("A", "1m"): START, ("BTCUSDT", "1m"): 0}, Desk(), venue_ms=START, seconds=lambda: 0.0)
    for each in (message("A", 0), raw, message("A", 1)):
        line.take(each, 0.0)


def finite(event: Any) -> None:
    assert not_finite(event) is None


def wrap(event: bytes) -> bytes:
    return b'{"stream":"x","data":' + event + b"}"


def stream_parsers() -> dict[str, tuple[list[bytes], Callable[[bytes], None]]]:
    """Samples of each kind of message, and what takes them."""
    events = [json.dumps(each, separators=(",", ":")).encode() for each in (KLINE, MARK)]
    user = [json.dumps(each, separators=(",", ":")).encode() for each in (FILL, MONEY, TRIGGERED)]
    wrapped = [wrap(each) for each in (*events, *user)]
    depth = b'{"e":"depthUpdate","E":1,"T":1,"s":"A","U":1,"u":2,"pu":0,"b":[["1.5","2"]],"a":[["2.5","0"]]}'
    book = b'{"e":"bookTicker","u":1,"s":"A","b":"1","B":"2","a":"3","A":"4","T":1,"E":1}'
    forced = (
        b'{"e":"forceOrder","E":2,"o":{"s":"A","S":"SELL","o":"LIMIT","f":"IOC","q":"1","p":"2","ap":"2","X":"FILLED"'
    )
    forced += b',"l":"1","z":"1","T":1}}'
    day = b'{"e":"24hrTicker","E":2,"s":"A","p":"-1","P":"-0.5","w":"2","c":"2","Q":"1","o":"3","h":"3","l":"2","v":"9"'
    day += b',"q":"18","O":0,"C":2,"F":0,"L":3,"n":4}'
    return {
        "market stream": ([*events, *wrapped[:2], b'{"result":null,"id":1}'], lambda raw: finite(parse(raw))),
        "user stream": ([*user, *wrapped[2:]], lambda raw: finite(parse_user(raw))),
        "public stream": (
            [depth, book, forced, day, b'{"stream":"x","data":' + depth + b"}"],
            lambda raw: finite(parse_public(raw)),
        ),
        "feed": ([message("A", 0), message("A", 1), message("A", 3), events[0]], feed),
        "refusals": ([b'{"code":-1121,"msg":"Invalid symbol."}'], lambda raw: finite(error_of(400, raw, None))),
    }


class Canned(Transport):
    """Answers every call with the same bytes, without a network."""

    body = b""

    async def _counted(self, call: Call) -> bytes:
        if call.path == "/fapi/v1/time":
            return b'{"serverTime":1767657600000}'
        return self.body


def rest_parsers(session: aiohttp.ClientSession, shared_data: Path) -> dict[str, tuple[list[bytes], Any]]:
    """Samples of each kind of answer, and what asks for them."""
    transport = Canned("http://x", session, credentials=Credentials("key", "secret"), attempts=1)
    client, account = MarketDataClient("http://x", session, attempts=1), AccountClient(transport)
    client.transport = transport
    first = START - 3 * MINUTE_MS
    rows = [
        [opened, "1", "2", "0.5", "1.5", "3", opened + MINUTE_MS - 1, "4", 5, "1", "2", "0"]
        for opened in range(first, START, MINUTE_MS)
    ]
    info = json.loads(gzip.decompress((shared_data / "exchange/exchange_info.json.gz").read_bytes()))
    info["symbols"] = [info["symbols"][0], info["symbols"][-1]]
    bracket = {"bracket": 1, "initialLeverage": 75, "notionalCap": 5000, "notionalFloor": 0}
    bracket["maintMarginRatio"] = 1
    position = {"symbol": "BTCUSDT", "positionSide": "SHORT", "positionAmt": "-0.010", "unRealizedProfit": "-1.5"}
    totals = dict.fromkeys(
        ("totalWalletBalance", "totalUnrealizedProfit", "totalMarginBalance", "availableBalance"), "1"
    )

    async def klines() -> None:
        bars = await client.klines("A", "1m", first, START)
        assert ((first <= bars["open_time"]) & (bars["open_time"] < START)).all()
        try:
            validate("A", bars)
        except BarRejected:
            return

    async def exchange_info() -> None:
        found = await client.exchange_info()
        rules, _ = all_rules(found)
        standings(found, START)
        for each in rules.values():
            assert each.price.step > 0
            assert each.quantity.step > 0

    async def brackets() -> None:
        found = await account.leverage_brackets()
        assert 1 <= found.clamp("AUSDT", 999, Decimal(100)).leverage <= 125

    async def funding() -> None:
        found = await client.funding_rates("A", 0, 100)
        assert np.isfinite(found["funding_rate"]).all()

    async def checked(answer: Any) -> None:
        finite(await answer())

    def dump(value: Any) -> list[bytes]:
        return [json.dumps(value, separators=(",", ":")).encode()]

    return {
        "klines": (dump(rows), klines),
        "exchangeInfo": (dump(info), exchange_info),
        "leverageBracket": (dump([{"symbol": "AUSDT", "brackets": [bracket]}]), brackets),
        "fundingRate": (dump([{"symbol": "A", "fundingTime": 7, "fundingRate": "0.0001", "markPrice": "1"}]), funding),
        "order": (dump(state()), lambda: checked(lambda: account.orders.order("A", "a"))),
        "algoOrder": (dump(algo()), lambda: checked(lambda: account.orders.algo_order("A", "a"))),
        "positionRisk": (dump([position]), lambda: checked(account.positions)),
        "account": (dump(totals | {"assets": [{"asset": "USDT"}]}), lambda: checked(account.account)),
        "openOrders": (dump([state()]), lambda: checked(account.open_orders)),
    }


def archived(shared: int = 40) -> list[bytes]:
    """A day's CSV, with a header and without."""
    bars = MARKET.klines("BTCUSDT", START // MINUTE_MS * MINUTE_MS, START + shared * MINUTE_MS)
    names = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades")
    lines = [",".join(str(bar[name]) for name in names) + ",1,2,0" for bar in bars]
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    header += "taker_buy_quote_volume,ignore"
    return ["\n".join(each).encode() for each in ([header, *lines], lines)]


def zipped(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("BTCUSDT-1m-2026-01-06.csv", content)
    return sink.getvalue()


def archive(raw: bytes) -> None:
    """Damaged bytes as the zip of a day: bars that follow each other, or a typed error."""
    bars = read_file(Path("BTCUSDT-1m-2026-01-06.zip"), content=raw)
    validate("BTCUSDT", bars)
    assert (bars["open_time"] % MINUTE_MS == 0).all()


def archived_funding(raw: bytes) -> None:
    """Damaged bytes as the zip of a month's fundings."""
    read_archived_funding(Path("BTCUSDT-fundingRate-2026-01.zip"), raw)


def tried(samples: list[bytes], take: Callable[[bytes], None], random: Random, counts: Counter[str]) -> None:
    """One damaged input. Anything that is not a `MarketError` is a crash, and fails the test with the input."""
    raw = mutated(random.choice(samples), random)
    try:
        take(raw)
    except MarketError as error:
        counts[type(error).__name__] += 1
    except Exception as error:
        error.add_note(f"input: {raw[:2000]!r}")
        raise
    else:
        counts["taken"] += 1


def both(*, deep: int, quick: int) -> Any:
    """How many inputs: few in the quick tests, all in the deep ones."""
    return pytest.mark.parametrize("count", [quick, pytest.param(deep, marks=pytest.mark.deep)])


@both(quick=QUICK, deep=DEEP // 5)
@pytest.mark.parametrize("name", stream_parsers())
def test_messages(name: str, count: int) -> None:
    samples, take = stream_parsers()[name]
    random, counts = Random(f"{name}{count}"), Counter[str]()
    for each in samples:
        take(each)
    for deep_nesting in (b"[" * 100_000, b'{"a":' * 100_000, b""):
        try:
            take(deep_nesting)
        except BinanceError:
            counts["nested"] += 1
    for _ in range(count):
        tried(samples, take, random, counts)
    assert counts["taken"] > 0


@both(quick=QUICK // 4, deep=DEEP // 12)
async def test_answers(shared_data: Path, count: int) -> None:
    async with aiohttp.ClientSession() as session:
        parsers = rest_parsers(session, shared_data)
        for name, (samples, ask) in parsers.items():
            random, counts = Random(f"{name}{count}"), Counter[str]()
            Canned.body = samples[0]
            await ask()
            for _ in range(count):
                Canned.body = mutated(random.choice(samples), random)
                try:
                    await ask()
                    counts["taken"] += 1
                except MarketError as error:
                    counts[type(error).__name__] += 1
                except Exception as error:
                    error.add_note(f"{name}: {Canned.body[:2000]!r}")
                    raise
            assert counts["AnswerInvalid"] > 0, name
            Canned.body = b"[" * 100_000
            with pytest.raises(BinanceError):
                await ask()
    await asyncio.sleep(0)


@both(quick=QUICK, deep=DEEP // 5)
@pytest.mark.parametrize("kind", ["bytes of the zip", "bytes of the csv"])
def test_archive_files(kind: str, count: int) -> None:
    random, counts = Random(f"{kind}{count}"), Counter[str]()
    csvs = archived()
    zips = [zipped(each) for each in csvs]
    for each in zips:
        archive(each)
    for _ in range(count):
        if kind == "bytes of the zip":
            tried(zips, archive, random, counts)
        else:
            tried(csvs, lambda raw: archive(zipped(raw)), random, counts)
    assert counts["taken"] > 0
    assert counts["SourceUnreadable"] > 0


@both(quick=QUICK, deep=DEEP // 10)
def test_archived_fundings(count: int) -> None:
    random, counts = Random(count), Counter[str]()
    csv = b"calc_time,funding_interval_hours,last_funding_rate\n1767657600002,8,0.0001\n1767686400000,8,-0.0002\n"
    archived_funding(zipped(csv))
    for _ in range(count):
        tried([csv], lambda raw: archived_funding(zipped(raw)), random, counts)
        tried([zipped(csv)], archived_funding, random, counts)
    assert counts["taken"] > 0
    assert counts["SourceUnreadable"] > 0


def test_a_number_that_is_none_is_no_number() -> None:
    spoilt = json.dumps(MONEY).replace("122624.12345678", "sNaN")
    with pytest.raises(MarketError, match="wallet is no number"):
        parse_user(spoilt)
    assert msgspec.json.decode(spoilt)
