"""What the status page and the metrics say of the exchange: its streams, its delays, and what may be asked of it.

These numbers live in the client, which counts them anyway; they are read when somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from market.binance.bar_stream import BarStream
from market.binance.breaker import Breaker, Kind
from market.binance.delays import Delays
from market.binance.rate_limit import RateBudget
from market.binance.rest import MarketDataClient

KINDS = (Kind.MARKET_DATA,)
"""The kinds of request that the worker makes."""


@dataclass(frozen=True, slots=True)
class SymbolReport:
    """One symbol's stream: what the venue took to send its last bar (None before one), and how long it is silent."""

    symbol: str
    delay_s: float | None
    silence_s: float
    asking: bool
    """Whether REST is being asked for bars of it."""
    resubscribed: int
    """How often its stream was found silent, and subscribed to again or its connection replaced."""
    refused: str | None = None
    """Why the venue has refused to give its stream anew, until it speaks."""


@dataclass(frozen=True, slots=True)
class ExchangeReport:
    """How the exchange stands, as the client sees it. Weights are None where none is known or counted.

    `venue_delay` is from a bar's close to when the venue sent it closed, by the venue's clock, and `own_delay` from
    its receipt to its delivery, by ours.
    """

    connections: int = 0
    renewals: int = 0
    repeated: int = 0
    rest_failures: int = 0
    moved: int = 0
    """Streams whose connection was replaced because they stayed silent, or were refused."""
    refusals: int = 0
    """Control messages that the venue has refused."""
    refusal: str | None = None
    """Why it refused the last of them."""
    circuits: dict[str, str] = field(default_factory=dict)
    venue_weight: int | None = None
    """Weight used in the present minute, as the venue last told."""
    weight: int | None = None
    """Weight of the last 60 seconds of all processes that share the budget."""
    weight_limit: int | None = None
    waited_s: float = 0.0
    """How long requests have waited for room in the budget."""
    venue_delay: Delays = field(default_factory=Delays)
    own_delay: Delays = field(default_factory=Delays)
    symbols: tuple[SymbolReport, ...] = ()

    @property
    def resubscribed(self) -> int:
        """Streams that were subscribed to again because they were silent."""
        return sum(each.resubscribed for each in self.symbols)

    def plain(self) -> dict[str, Any]:
        """As plain JSON values, delays as `Samples.summary` tells them."""
        shown = (
            "connections",
            "renewals",
            "repeated",
            "rest_failures",
            "circuits",
            "resubscribed",
            "moved",
            "refusals",
        )
        weights = ("venue_weight", "weight", "weight_limit", "waited_s")
        return {
            **{name: getattr(self, name) for name in (*shown, *weights, "refusal")},
            "venue_delay": _summary(self.venue_delay),
            "own_delay": _summary(self.own_delay),
            "symbols": {
                each.symbol: {
                    "delay_s": each.delay_s,
                    "silence_s": each.silence_s,
                    "asking": each.asking,
                    "resubscribed": each.resubscribed,
                    "refused": each.refused,
                }
                for each in self.symbols
            },
        }


Read = Callable[[], ExchangeReport]


def reader(client: MarketDataClient, breaker: Breaker, budget: RateBudget | None, stream: BarStream) -> Read:
    """What reads a report when it is called."""

    def read() -> ExchangeReport:
        feed, transport = stream.feed, client.transport
        return ExchangeReport(
            connections=len(stream.connections),
            renewals=sum(each.renewals for each in stream.connections),
            repeated=feed.repeated,
            rest_failures=stream.rest_failures,
            moved=stream.moved.total(),
            refusals=stream.refusals,
            refusal=None if stream.refusal is None else str(stream.refusal),
            circuits={kind.value: breaker.state(kind, transport.seconds()).value for kind in KINDS},
            venue_weight=transport.used_weight,
            weight=None if budget is None else budget.weight.count(),
            weight_limit=None if budget is None else budget.weight.limit,
            waited_s=0.0 if budget is None else budget.waited_s,
            venue_delay=feed.venue_delay,
            own_delay=feed.own_delay,
            symbols=tuple(
                SymbolReport(
                    each.key[0],
                    None if each.delay_s != each.delay_s else each.delay_s,
                    each.silence_ms / 1e3,
                    each.asking,
                    stream.woken[each.key],
                    str(stream.refused[each.key]) if each.key in stream.refused else None,
                )
                for each in feed.standings()
            ),
        )

    return read


def _summary(delays: Delays) -> dict[str, float | int | None]:
    if not delays.count:
        return {"count": 0, "last_ms": None, "p50_ms": None, "p99_ms": None}
    found = {"last_ms": delays.last_s, "p50_ms": delays.quantile(0.5), "p99_ms": delays.quantile(0.99)}
    return {"count": delays.count, **{name: value * 1e3 for name, value in found.items()}}
