"""A count over a sliding time that all processes of this machine share: in one small file, under a lock.

The venue counts by address, so the ingest and the worker spend from one purse. A file with `flock` was chosen over
SQLite: what it holds is worth a minute, so it needs no durability; the kernel takes the lock back from a process that
dies; and a reservation costs some 50 µs, a committed transaction a hundred times that. The file holds two copies, each
with a checksum, and the older one is overwritten: whoever dies while writing leaves the count before. (To write another
file and rename it costs milliseconds, since file systems flush it first.) It is opened for each operation, which makes
it safe for threads and after a fork. It must lie on a local disk.

Why the venue's count never passes the limit: it counts a request when it arrives there, somewhere between its
reservation and its answer. A reservation stands at the latest time at which the request can arrive (it is given up
then), and moves to the time of the answer when that comes. So at each new reservation everything that can lie in
one span with it is counted, wherever the venue's minute begins.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from market.errors import MarketError

SLOTS = 60
"""Into how many slots a span is cut; a count is kept for its slot longer than need be, at most."""
COPY_BYTES = 1 << 15
_HEAD = struct.Struct("<QII")
"""Before each copy of the book: which writing it was, its length, and a checksum of number and text."""
MOST_AHEAD_S = 120.0
"""A request is given up sooner than this."""
LOCK_TRIES = 50
LOCK_PAUSE_S = 0.001
"""The lock is held for some 50 µs; who waits for it stops its whole event loop, so it is given up soon."""
SHARE_WHEN_LOST = 0.95
"""Of a limit, how much counts as spent when the count cannot be read: only orders that reduce risk have room then."""


class _Book(msgspec.Struct):
    """What the file holds. A slot is named by the end of its time, in slots since the epoch."""

    slots: dict[int, int] = {}
    blocked_until_s: float = 0.0
    reason: str = ""
    blocks: int = 0


class WindowUnusable(MarketError):
    """Nobody knows what is counted, or there can never be room; its message goes on after the name of the count."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """An amount that was taken, and the slot where it stands until the answer comes."""

    amount: int
    slot: int


@dataclass(frozen=True, slots=True)
class Block:
    """Until when nothing may be sent, by the clock of the window, why, and the how manieth in a row it is."""

    until_s: float
    reason: str
    count: int


class SharedWindow:
    """At most `limit` in any `span_s` seconds, over all processes that use the same file.

    Parameters
    ----------
    path: the file; its folder is made.
    limit: the most that may be counted.
    span_s: the length of the sliding time, seconds.
    now_s: a clock that all processes share, seconds: wall time.

    Every operation raises `WindowUnusable` when the file cannot be locked soon, read or written. One that holds no
    count is replaced by one that leaves `1 - SHARE_WHEN_LOST` of the limit, since what was spent is not known.
    """

    def __init__(self, path: Path, limit: int, span_s: float, now_s: Callable[[], float]) -> None:
        self.path = path
        self.limit = limit
        self.span_s = span_s
        self._slot_s = span_s / SLOTS
        self._now_s = now_s

    def take(self, amount: int, most: int, within_s: float) -> Reservation | float:
        """Reserve `amount` for a request that is given up after `within_s`, if the count stays at or below `most`.

        Else the seconds after which it is worth asking again. `WindowUnusable` if the limit is less than `amount`.
        """
        if within_s > MOST_AHEAD_S:
            raise ValueError(f"a request may be under way for {MOST_AHEAD_S:g} s at most, not {within_s:g}")
        most = min(most, self.limit)
        if amount > most:
            raise WindowUnusable(f"has a limit of {most}, and one request counts as {amount}")
        with self._book() as (book, now):
            if self._count(book) + amount > most:
                return self._wait(book, amount, most, now)
            reservation = Reservation(amount, self._slot(now + within_s))
            _add(book, reservation.slot, amount)
            return reservation

    def settle(self, reservation: Reservation) -> None:
        """The answer has come: the venue has counted the request by now, later than was reserved if this side stood."""
        with self._book() as (book, now):
            slot = self._slot(now)
            if book.slots.get(reservation.slot, 0) >= reservation.amount:
                _add(book, reservation.slot, -reservation.amount)
                _add(book, slot, reservation.amount)
            elif slot > reservation.slot:
                _add(book, slot, reservation.amount)

    def release(self, reservation: Reservation) -> None:
        """Nothing was sent: give the amount back."""
        with self._book() as (book, _):
            if book.slots.get(reservation.slot, 0) >= reservation.amount:
                _add(book, reservation.slot, -reservation.amount)

    def observe(self, used: int) -> int:
        """The venue says that `used` is counted in its present span; returns what this count lacked.

        When others behind the same address have spent what is not counted here, it is added. A count that is higher
        than the venue's is left: the venue's span may just have begun.
        """
        with self._book() as (book, now):
            lacking = max(0, used - self._count(book))
            if lacking:
                _add(book, self._slot(now), lacking)
            return lacking

    def count(self) -> int:
        """What is counted now."""
        with self._book() as (book, _):
            return self._count(book)

    def block(self, seconds: float | None, reason: str, first_s: float, most_s: float) -> Block:
        """Nothing is to be sent for `seconds`; without a number `first_s`, doubled for each block in a row."""
        with self._book() as (book, now):
            if now >= book.blocked_until_s + most_s:
                book.blocks = 0
            wanted = min(most_s, first_s * 2.0**book.blocks) if seconds is None else seconds
            if now + wanted > book.blocked_until_s:
                book.blocked_until_s, book.reason = now + wanted, reason
            book.blocks = min(book.blocks + 1, 30)
            return Block(book.blocked_until_s, book.reason, book.blocks)

    def blocked(self) -> Block | None:
        """The block in force, or None."""
        with self._book() as (book, now):
            if now >= book.blocked_until_s:
                return None
            return Block(book.blocked_until_s, book.reason, book.blocks)

    # Inside

    def _slot(self, time_s: float) -> int:
        """The slot of a time, by its end: no amount is ever counted as older than it is."""
        return math.ceil(time_s / self._slot_s)

    def _count(self, book: _Book) -> int:
        return sum(book.slots.values())

    def _wait(self, book: _Book, amount: int, most: int, now: float) -> float:
        """Seconds until enough has passed out of the span, if nothing is settled before."""
        excess = self._count(book) + amount - most
        for slot in sorted(book.slots):
            excess -= book.slots[slot]
            if excess <= 0:
                return max(self._slot_s, slot * self._slot_s + self.span_s - now)
        return self._slot_s

    @contextmanager
    def _book(self) -> Iterator[tuple[_Book, float]]:
        """The book under the lock, without what has passed, and the time; it is written back if it was changed."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._lock(handle)
                # Inside the lock, so that times never go back from one holder to the next.
                now = self._now_s()
                number, raw = _stored(handle)
                book = self._read(raw, now)
                yield book, now
                changed = msgspec.json.encode(book)
                if changed != raw:
                    _store(handle, number + 1, changed)
            finally:
                os.close(handle)
        except OSError as error:
            raise WindowUnusable(f"cannot be kept in {self.path}: {error.strerror or type(error).__name__}") from error

    def _lock(self, handle: int) -> None:
        for left in reversed(range(LOCK_TRIES)):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not left:
                    raise WindowUnusable(f"cannot be kept in {self.path}: another process holds its lock") from None
            time.sleep(LOCK_PAUSE_S)

    def _read(self, raw: bytes | None, now: float) -> _Book:
        if raw == b"":
            return _Book()
        try:
            book = msgspec.json.decode(raw or b"", type=_Book)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _Book(slots={self._slot(now): int(self.limit * SHARE_WHEN_LOST)})
        present, oldest = self._slot(now), (now - self.span_s) / self._slot_s
        # Wall time that was set back would leave counts in the future for as long: they stand at the present instead.
        latest = self._slot(now + MOST_AHEAD_S)
        slots: dict[int, int] = {}
        for slot, amount in book.slots.items():
            if slot > oldest and amount > 0:
                place = slot if slot <= latest else present
                slots[place] = slots.get(place, 0) + amount
        book.slots = slots
        return book


def _stored(handle: int) -> tuple[int, bytes | None]:
    """The newest whole copy and its number; of a new file nothing, and None when there is no whole copy."""
    found: tuple[int, bytes | None] = 0, None
    empty = True
    for place in (0, COPY_BYTES):
        raw = os.pread(handle, COPY_BYTES, place)
        empty = empty and not raw
        if len(raw) < _HEAD.size:
            continue
        number, length, checksum = _HEAD.unpack_from(raw)
        content = raw[_HEAD.size : _HEAD.size + length]
        if number > found[0] and len(content) == length and _checksum(number, content) == checksum:
            found = number, content
    return (0, b"") if empty else found


def _checksum(number: int, content: bytes) -> int:
    return zlib.crc32(content, number & 0xFFFFFFFF)


def _store(handle: int, number: int, content: bytes) -> None:
    """Write a copy where the one before the newest lies."""
    raw = _HEAD.pack(number, len(content), _checksum(number, content)) + content
    if len(raw) > COPY_BYTES or os.pwrite(handle, raw, number % 2 * COPY_BYTES) != len(raw):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _add(book: _Book, slot: int, amount: int) -> None:
    left = book.slots.get(slot, 0) + amount
    if left > 0:
        book.slots[slot] = left
    else:
        book.slots.pop(slot, None)
