"""Messages of the streams that follow the last price rather than bars: trades, best prices, order books."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from market.simulator.book import Book, rows
from market.simulator.connections import Stream
from market.simulator.trading import Trading
from market.simulator.venue.events import plain

TRADES = ("aggTrade", "trade")


class Ticks:
    """Makes messages at the venue's present time; remembers each symbol's last book, for the changes."""

    def __init__(self, symbols: tuple[str, ...], trading: Trading) -> None:
        self._symbols, self._trading = symbols, trading
        self._books: dict[str, Book] = {}
        self._told: set[str] = set()

    def messages(self, wanted: Collection[tuple[str, Stream]]) -> dict[str, list[bytes]]:
        """The message of each wanted stream (by its name)."""
        found: dict[str, list[bytes]] = {}
        books = [stream for _, stream in wanted if stream.kind not in TRADES]
        every = any(stream.kind == "allBooks" for stream in books)
        self._told = set(self._symbols) if every else {self._symbols[stream.row] for stream in books}
        changes: dict[str, tuple[Book, Book]] = {}
        for name, stream in wanted:
            symbols = self._listed() if stream.row < 0 else (self._symbols[stream.row],)
            if stream.kind in TRADES:
                found[name] = [msgspec.json.encode(self._trade(symbols[0], stream.kind))]
                continue
            for symbol in symbols:
                if symbol not in changes:
                    before = self._books.get(symbol) or self._renew(symbol)
                    changes[symbol] = before, self._renew(symbol)
            events = [self._book_event(symbol, stream, *changes[symbol]) for symbol in symbols]
            found[name] = [msgspec.json.encode(event) for event in events]
        return {name: events for name, events in found.items() if events}

    def book(self, symbol: str) -> Book:
        """The book as the streams told it last; the present one of a symbol whose book no stream tells."""
        if symbol not in self._books or symbol not in self._told:
            self._renew(symbol)
        return self._books[symbol]

    def _listed(self) -> list[str]:
        """The symbols that have a price by now and are traded."""
        return [symbol for symbol in self._symbols if self._trading.is_listed(symbol)]

    def _renew(self, symbol: str) -> Book:
        now_ms = self._trading.venue.now_ms
        book = Book.around(self._trading.last(symbol).last, self._trading.rules[symbol], now_ms)
        self._books[symbol] = book
        return book

    def _trade(self, symbol: str, kind: str) -> dict[str, Any]:
        now_ms, last = self._trading.venue.now_ms, plain(self._trading.last(symbol).last)
        quantity = plain(self._trading.rules[symbol].lot.step)
        event = {"e": kind, "E": now_ms, "T": now_ms, "s": symbol, "p": last, "q": quantity, "m": now_ms % 2 == 0}
        if kind == "trade":
            return {**event, "t": now_ms, "X": "MARKET"}
        return {**event, "a": now_ms, "nq": quantity, "f": now_ms, "l": now_ms}

    def _book_event(self, symbol: str, stream: Stream, before: Book, book: Book) -> dict[str, Any]:
        now_ms = self._trading.venue.now_ms
        head = {"E": now_ms, "T": now_ms, "s": symbol}
        if stream.kind in ("bookTicker", "allBooks"):
            (bid, bids), (ask, asks) = next(iter(book.bids.items())), next(iter(book.asks.items()))
            best = {"b": plain(bid), "B": plain(bids), "a": plain(ask), "A": plain(asks)}
            return {"e": "bookTicker", "u": book.update_id, **head, **best}
        ids = {"U": before.update_id + 1, "u": book.update_id, "pu": before.update_id}
        if stream.kind == "snapshot":
            limit = int(stream.interval)
            return {"e": "depthUpdate", **head, **ids, "b": rows(book.bids, limit), "a": rows(book.asks, limit)}
        bids_changed, asks_changed = book.changes(before)
        sides = {"b": rows(bids_changed, len(bids_changed)), "a": rows(asks_changed, len(asks_changed))}
        return {"e": "depthUpdate", **head, **ids, **sides}
