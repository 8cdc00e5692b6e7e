"""What the venue really sent: every recorded message parses, and the depth chain among them is unbroken."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from market.binance.errors import StreamMessageInvalid
from market.binance.order_book import MOST_WAITING, BookState, OrderBook
from market.binance.public_events import BookTicker, DepthSnapshot, DepthUpdate, Trade, parse_public

LINES = 93_954


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> list[bytes]:
    lines = gzip.decompress((shared_data / "exchange/btcusdt_stream_20240808.gz").read_bytes()).splitlines()
    return [line.partition(b" ")[2] for line in lines]


def test_every_message_parses_and_the_book_never_loses_the_thread(recorded: list[bytes]) -> None:
    """The book made of the changes has, wherever the two can be compared, the best prices that the venue told."""
    book, kinds, compared = OrderBook(), Counter[str](), 0
    snapshot = msgspec.json.Decoder(DepthSnapshot, strict=False)
    previous = -1
    ticker: BookTicker | None = None
    for raw in recorded:
        if raw.startswith(b'{"lastUpdateId"'):
            kinds["snapshot"] += 1
            assert book.snapshot(snapshot.decode(raw))
            continue
        event = parse_public(raw)
        assert event is not None
        kinds[type(event).__name__] += 1
        assert event.symbol == "BTCUSDT"
        if isinstance(event, DepthUpdate):
            assert previous in (-1, event.previous_id)
            previous = event.last_id
            book.update(event)
        elif isinstance(event, BookTicker):
            ticker = event
        else:
            assert isinstance(event, Trade)
            assert event.price > 0
        if ticker is not None and book.state is BookState.CURRENT and ticker.update_id == book.last_id:
            best = book.best()
            assert best == ((ticker.bid, ticker.bid_quantity), (ticker.ask, ticker.ask_quantity))
            compared += 1
    assert len(recorded) == sum(kinds.values()) == LINES
    assert kinds == {"BookTicker": 66_089, "Trade": 21_313, "DepthUpdate": 6_551, "snapshot": 1}
    assert book.breaks == 0
    assert book.state is BookState.CURRENT
    assert compared > 1_000


def changes(first: int, last: int, previous: int, *bids: tuple[float, float]) -> DepthUpdate:
    return DepthUpdate(1, 1, "A", first, last, previous, bids, ((11.0, 1.0),))


def test_a_break_is_found_and_a_new_snapshot_heals_it() -> None:
    book = OrderBook()
    assert not book.update(changes(1, 5, 0, (9.0, 1.0)))
    assert not book.update(changes(6, 9, 5, (8.0, 2.0)))
    assert book.snapshot(DepthSnapshot(7, ((7.0, 3.0), (6.0, 0.0)), ((12.0, 1.0),)))
    assert book.bids == {7.0: 3.0, 8.0: 2.0}
    assert book.best() == ((8.0, 2.0), (11.0, 1.0))
    assert book.update(changes(10, 12, 9, (8.0, 0.0)))
    assert book.best() == ((7.0, 3.0), (11.0, 1.0))
    assert not book.update(changes(15, 16, 14))
    assert (book.breaks, book.state, book.best()) == (1, BookState.WANTS_SNAPSHOT, None)
    assert not book.snapshot(DepthSnapshot(10, (), ())), "too old: the change after it does not span it"
    assert not book.update(changes(17, 18, 16, (5.0, 5.0)))
    assert book.snapshot(DepthSnapshot(18, ((4.0, 1.0),), ((12.0, 1.0),)))
    assert book.best() == ((5.0, 5.0), (11.0, 1.0))


def test_what_waits_for_a_snapshot_is_bounded() -> None:
    book = OrderBook()
    for i in range(MOST_WAITING + 10):
        book.update(changes(i + 1, i + 1, i))
    assert len(book._waiting) == MOST_WAITING
    assert not book.snapshot(DepthSnapshot(3, (), ()))


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"7", b"\xff", b"{}", b'{"e":"trade"}', b'{"e":7}', b"[" * 100_000, b'{"stream":"x"}']
)
def test_garbage_is_a_typed_error(raw: bytes) -> None:
    with pytest.raises(StreamMessageInvalid):
        parse_public(raw)


def test_what_is_not_of_the_book_is_none() -> None:
    assert parse_public('{"e":"kline","E":1}') is None
    assert parse_public('{"result":null,"id":1}') is None
    assert parse_public('{"stream":"!markPrice@arr","data":[]}') is None
    assert parse_public('{"e":"24hrMiniTicker","E":1}') is None
    assert (
        parse_public('{"data":{"e":"bookTicker","u":1,"E":1,"T":1,"s":"A","b":"1","B":"2","a":"3","A":"4"}}')
        is not None
    )
