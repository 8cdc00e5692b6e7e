"""Stream messages as typed events, and the addresses of streams."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import check_next
from market.binance.errors import StreamMessageInvalid
from market.binance.streams import (
    ControlAnswer,
    KlineEvent,
    MarkPriceEvent,
    kline_stream_urls,
    mark_price_stream,
    parse,
    parse_kline,
    stream_urls,
)
from market.errors import BarRejected, UnknownInterval

KLINE = {
    "e": "kline",
    "E": 1767657661999,
    "s": "BTCUSDT",
    "k": {
        "t": 1767657600000,
        "T": 1767657659999,
        "s": "BTCUSDT",
        "i": "1m",
        "f": 1,
        "L": 7,
        "o": "91636.0",
        "c": "91630.50",
        "h": "91640.1",
        "l": "91630.5",
        "v": "37.366",
        "n": 7,
        "x": True,
        "q": "3424675.551",
        "V": "18.512",
        "Q": "1696634.981",
        "B": "0",
    },
}
MARK = {
    "e": "markPriceUpdate",
    "E": 5,
    "s": "BTCUSDT",
    "p": "2.5",
    "ap": "2",
    "i": "2.25",
    "P": "2",
    "r": "0.0001",
    "T": 9,
}


def kline(**changes: object) -> bytes:
    return json.dumps(KLINE | {"k": KLINE["k"] | changes}).encode()  # type: ignore[operator]


def test_a_kline_is_the_same_with_and_without_envelope_as_text_and_as_bytes() -> None:
    plain, wrapped = json.dumps(KLINE), json.dumps({"stream": "btcusdt@kline_1m", "data": KLINE})
    compact = json.dumps({"stream": "btcusdt@kline_1m", "data": KLINE}, separators=(",", ":"))
    turned = json.dumps({"data": dict(reversed(KLINE.items())), "stream": "btcusdt@kline_1m"})
    events = [parse_kline(text) for text in (plain, plain.encode(), wrapped, compact, compact.encode(), turned)]
    assert all(event == events[0] for event in events)
    event = events[0]
    assert event is not None
    assert (event.symbol, event.interval, event.closed, event.price) == ("BTCUSDT", "1m", True, 91630.5)
    assert event.event_time == 1767657661999
    bar = event.bar
    assert bar.item() == (
        *(1767657600000, 1767657659999, 91636.0, 91640.1, 91630.5, 91630.5),
        *(37.366, 3424675.551, 7.0, 18.512, 1696634.981),
    )
    check_next("BTCUSDT", bar, None)


def test_unknown_fields_are_tolerated() -> None:
    newer = KLINE | {"st": 1, "ps": "BTCUSDT"}
    assert parse(json.dumps(newer)) == parse(json.dumps(KLINE))


def test_what_a_recording_lacks_is_nan() -> None:
    event = parse_kline(kline(n=None, V="NaN", Q="NaN"))
    assert event is not None
    assert [math.isnan(event.bar[name]) for name in ("trades", "taker_buy_base", "taker_buy_quote")] == [True] * 3
    estimated = parse_kline(kline(q="NaN"))
    assert estimated is not None
    assert estimated.bar["quote_volume"] == 91630.5 * 37.366


@pytest.mark.parametrize("wrong", [{"c": "NaN"}, {"h": "1"}, {"v": "-1"}, {"l": "0"}])
def test_an_impossible_bar_is_parsed_and_then_rejected_by_name(wrong: dict[str, str]) -> None:
    event = parse_kline(kline(**wrong))
    assert event is not None
    with pytest.raises(BarRejected, match="BTCUSDT at 2026-01-06T00:00:00Z"):
        check_next(event.symbol, event.bar, None)


def test_mark_prices() -> None:
    assert parse(json.dumps(MARK)) == MarkPriceEvent("BTCUSDT", 5, 2.5, 2.25, 0.0001, 9)
    unknown = parse(json.dumps(MARK | {"r": ""}))
    assert isinstance(unknown, MarkPriceEvent)
    assert math.isnan(unknown.funding_rate)
    with pytest.raises(StreamMessageInvalid):
        parse(json.dumps(MARK | {"r": "much"}))


def test_control_answers() -> None:
    assert parse('{"result":null,"id":"a-b"}') == ControlAnswer("a-b")
    assert parse('{"code":2,"msg":"Invalid request","id":3}') == ControlAnswer(3, None, 2, "Invalid request")


def test_events_of_other_kinds_are_none() -> None:
    assert parse('{"e":"aggTrade","E":1,"s":"BTCUSDT"}') is None
    assert parse('{"stream":"!markPrice@arr@1s","data":[]}') is None
    assert parse_kline(json.dumps(MARK)) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b"{}",
        b'{"stream":"x"}',
        b'{"e":7}',
        b'{"e":"kline"}',
        kline(t=1767657600001),
        kline(T=1767657600000),
        kline(t=-60000, T=-1),
        kline(i="7m"),
        kline(o="much"),
        kline(s="ETHUSDT"),
        kline(t=10**30),
        b'{"result":null,"id":[]}',
    ],
)
def test_garbage_is_a_typed_error(raw: bytes) -> None:
    with pytest.raises(StreamMessageInvalid):
        parse(raw)


@settings(max_examples=300)
@given(st.data())
def test_a_mutated_message_is_an_event_nothing_or_a_typed_error(data: st.DataObject) -> None:
    raw = bytearray(json.dumps({"stream": "btcusdt@kline_1m", "data": KLINE}, separators=(",", ":")).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if kind == "set":
            raw[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del raw[place : place + data.draw(st.integers(1, 20))]
        else:
            raw[place:place] = data.draw(st.binary(min_size=1, max_size=5))
        if not raw:
            return
    try:
        event = parse(bytes(raw))
    except StreamMessageInvalid:
        return
    assert event is None or isinstance(event, KlineEvent | MarkPriceEvent | ControlAnswer)
    if isinstance(event, KlineEvent):
        assert event.bar["close_time"] == event.bar["open_time"] + 59_999 or event.interval != "1m"


def test_addresses_are_on_the_market_route_and_shared_out() -> None:
    symbols = [f"S{i}USDT" for i in range(450)]
    urls = kline_stream_urls("wss://fstream.binance.com/", symbols, "5m")
    assert [url.count("@kline_5m") for url in urls] == [200, 200, 50]
    assert all(url.startswith("wss://fstream.binance.com/market/stream?streams=s") for url in urls)
    names = [mark_price_stream("BTCUSDT")] * 2
    assert stream_urls("ws://x", names) == ["ws://x/market/stream?streams=btcusdt@markPrice@1s"]
    assert kline_stream_urls("ws://x", []) == []
    with pytest.raises(UnknownInterval):
        kline_stream_urls("ws://x", ["BTCUSDT"], "7m")


def test_a_bar_is_one_record() -> None:
    event = parse_kline(kline())
    assert event is not None
    assert isinstance(event.bar, np.void)
