"""Stream messages and connections that go wrong on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

Route = Literal["market", "public", "private", "unrouted"]

KINDS: dict[str, str] = {
    "drop": "the message is never sent",
    "duplicate": "the message is sent twice",
    "reorder": "the message is sent after the next one of its stream",
    "silence": "the stream says nothing more on its connection until it is subscribed to again",
    "mute": "the stream says nothing more on its connection, subscribed to again or not",
    "half_open": "the connection stays, but nothing comes through it any more",
    "cut": "the connection is cut, without a closing handshake",
    "end": "the connection is closed as after its 24 hours",
}
"""What `StreamFault.kind` may be."""

OF_MESSAGES = ("drop", "duplicate", "reorder")
"""Kinds that wait for a message; the others happen at once, to what there is then."""


class StreamFault(Struct, forbid_unknown_fields=True):
    """The next `count` messages (or subscriptions, or connections) that fit go wrong.

    route: market, public or private. name: the beginning of the stream's name; of the event's type on private. Whole
    connections have no name, and `silence` and `mute` are of market and public streams.
    """

    kind: str
    route: Route = "market"
    name: str = ""
    count: int = 1

    def check(self) -> None:
        """`ValueError` for a kind that there is not, or not on this route."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown stream fault {self.kind!r}: use one of {', '.join(KINDS)}")
        if self.kind in ("silence", "mute") and self.route not in ("market", "public"):
            raise ValueError(f"{self.kind} is of market and public streams; on {self.route} use half_open")


class StreamFaults:
    """What is still to go wrong; `count` is told the name of each fault that happens."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._pending: list[StreamFault] = []
        self._held: dict[tuple[str, str], list[bytes]] = {}

    @property
    def pending(self) -> int:
        """How many messages will still go wrong."""
        return sum(fault.count for fault in self._pending)

    @property
    def busy(self) -> bool:
        """Whether messages have to be looked at at all."""
        return bool(self._pending or self._held)

    def add(self, fault: StreamFault) -> None:
        """Take a fault of messages in."""
        self._pending.append(fault)

    def clear(self) -> None:
        """Forget what is pending; what is held back is sent with the next message of its stream."""
        self._pending.clear()

    def through(self, route: Route, messages: Mapping[str, list[bytes]]) -> dict[str, list[bytes]]:
        """What is sent instead of `messages` (stream name → events)."""
        return {name: self._spoilt(route, name, events) for name, events in messages.items()}

    def _spoilt(self, route: Route, name: str, events: list[bytes]) -> list[bytes]:
        held = self._held.pop((route, name), [])
        sent: list[bytes] = []
        for event in events:
            fault = next((each for each in self._pending if each.route == route and name.startswith(each.name)), None)
            if fault is None:
                sent.append(event)
                continue
            self._use(fault)
            if fault.kind == "duplicate":
                sent += [event, event]
            elif fault.kind == "reorder":
                self._held.setdefault((route, name), []).append(event)
        return sent + held

    def _use(self, fault: StreamFault) -> None:
        self._count(f"stream_{fault.kind}")
        fault.count -= 1
        if fault.count <= 0:
            self._pending.remove(fault)
