"""What the worker writes down: every decision and transition, as plain data.

An event is immutable and says at which market time it happened (`time_ms`, int64 milliseconds UTC). Fields named
`wall_*` hold this machine's clock and latencies; fields named `ticks_*` hold what price updates between bars said,
which a restart forgets. Both are kept in the journal and left out of the canonical encoding. The kinds in
`OPERATIONAL`, which tell about the process, and in `INPUT`, which tell what a source sent wrong, are left out of the
digest. So the digest of a run depends on its waves and bundles alone. No number is NaN: the lake holds events as JSON.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag=_snake):
    """Base of all events. `time_ms` is market time; `wall_ms` is when the worker wrote it, 0 in a replay."""

    time_ms: int
    wall_ms: int = 0


class EpochStarted(Event, frozen=True, kw_only=True):
    """A worker process began: from what it continued, and with what it decides."""

    worker: str
    epoch: int
    code_version: str
    bundle: str
    decision_spec: str
    strategy: str
    symbols: int
    snapshot_ms: int | None = None
    """Time of the snapshot that was restored, None when the start was cold."""
    torn_bytes: int = 0
    """Bytes of a torn last record that recovery put aside."""


class CaughtUp(Event, frozen=True, kw_only=True):
    """Every minute that had closed while no worker was there has been run: from now on waves are decided as they close.

    `time_ms` is the venue's time. The epoch's waves before this event are of the time when the process was down.
    """


class DecidedLate(Event, frozen=True, kw_only=True):
    """The decision wave that closed at `time_ms` was decided too late by the venue's own time: it was missed."""

    venue_ms: int
    """The venue's time after the decisions were durable."""


class WaveClosed(Event, frozen=True, kw_only=True):
    """The composition of a wave and how many candidates passed each filter; first of the wave's events.

    Written for every wave that decides (a 5m close) and for any minute with absentees or late bars.
    """

    decided: bool
    present: int
    absent: tuple[str, ...]
    bundle: str
    late: tuple[tuple[str, int], ...] = ()
    """(symbol, open_time) of bars absent from earlier waves that were fed before this one."""
    ready: int = 0
    """Symbols whose features were warm."""
    candidates: int = 0
    ranging: int = 0
    """Rule signals, which follow a trend, not taken since the market is predicted to range."""
    unlike: int = 0
    """Candidates dropped since their window is unlike the training data."""
    not_chosen: int = 0
    """Candidates that the strategy passed over."""
    below_quality: int = 0
    below_confidence: int = 0
    occupied: int = 0
    """Choices dropped since the symbol has its share of positions in that direction."""
    signals: int = 0
    """How many signals follow: a journal that has fewer was cut inside this wave."""
    wall_venue_delay_ms: float = 0.0
    """From the bar's close to the arrival of the last bar of the wave."""
    wall_own_delay_ms: float = 0.0
    """From that arrival to the decision."""


class BarRejected(Event, frozen=True, kw_only=True):
    """A bar that did not reach the features, and why. The symbol counts as absent from its wave."""

    symbol: str
    open_time: int
    reason: str


class BarValues(msgspec.Struct, frozen=True):
    """A bar as plain values, for the journal."""

    open_time: int
    close_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None
    trades: float | None
    taker_buy_base: float | None
    taker_buy_quote: float | None
    """The last four are None where the source records none."""

    @staticmethod
    def of(bar: np.void) -> BarValues:
        """The values of one `market.bars.BAR` scalar."""
        values: Any = bar.item()
        return BarValues(*[None if value != value else value for value in values])  # type: ignore[arg-type]


class BarRevised(Event, frozen=True, kw_only=True):
    """The source sent other values for a bar that was already used. The decision stands on `used`."""

    symbol: str
    open_time: int
    used: BarValues
    revised: BarValues


class BarsAbsent(Event, frozen=True, kw_only=True):
    """Bars of a symbol with open time in [`start_ms`, `end_ms`) that were in no wave and will not come, and why."""

    symbol: str
    start_ms: int
    end_ms: int
    cause: str
    """As in the lake's ledger of gaps: `venue_has_no_data`, `impossible_bar`."""


class Signal(Event, frozen=True, kw_only=True):
    """A proposed trade, with all that is needed to explain it. `time_ms` is the close of the bar it was decided on."""

    position_id: str
    symbol: str
    strategy: str
    direction: int
    """1 long, -1 short."""
    kind: int
    """What made it a candidate: 1 the rules, 2 a CUSUM event, 3 a pool of liquidity that is hunted."""
    reference: float
    """Close of the decision bar, from which stop and target are measured. The entry is the next 1m open."""
    atr: float
    """Average true range of the 5m bars in price, the unit of stop and target."""
    stop: float
    target: float
    expiry_ms: int
    confidence: float
    """Calibrated probability of the target before the stop."""
    quality: float
    """Quality score of the setup, 0 to 1."""
    reconstruction_error: float | None
    """How unlike the training data the window is; None without the autoencoder."""
    bundle: str
    decision_spec: str
    fallbacks: tuple[str, ...]
    """Components that were served by their fallback."""
    regime: int | None = None
    """The regime in force: 0 ranging, 1 trending, 2 volatile; None when it is not known."""
    regime_source: str = "adx_bollinger"
    """Where it is from: `predicted`, or `adx_bollinger` for what these say now."""
    regime_probability: float | None = None
    """Of a predicted one, an hour ahead."""
    pool_source: str = "none"
    """What the pools of liquidity are read from: `structure`, `range` or `none`."""
    pool_below: float | None = None
    """Price of the next one below; None where there is none."""
    pool_above: float | None = None
    pool_below_score: float | None = None
    """How good it looks, 0 to 1."""
    pool_above_score: float | None = None
    action: str | None = None
    """What the bundle's strategy would do: skip, long or short; None where its plain version stands in."""
    action_value: float | None = None
    """What it holds an entry in the signal's direction for, in R net of costs."""
    reach_below: float | None = None
    """The price that it falls below within the horizon with one half, by the liquidity predictor; None if unknown."""
    reach_above: float | None = None


class PositionOpened(Event, frozen=True, kw_only=True):
    """A virtual position entered at the open of this minute's bar."""

    position_id: str
    symbol: str
    direction: int
    decided_at: int
    opened_at: int
    entry: float
    """Price after spread and slippage."""
    stop: float
    target: float
    risk: float
    """`|entry - stop|` in price: one R."""
    expiry_ms: int


class PositionVoided(Event, frozen=True, kw_only=True):
    """A signal that was never taken: the open after it was already beyond its stop or its target."""

    position_id: str
    symbol: str
    direction: int
    decided_at: int
    kind: int
    open: float
    stop: float
    target: float
    bundle: str


class PositionClosed(Event, frozen=True, kw_only=True):
    """How a virtual position ended: a label. The outcome is by 1m bars; what the ticks said stands beside it."""

    position_id: str
    symbol: str
    decided_at: int
    opened_at: int
    known_at: int
    """Close of the bar that decided the outcome."""
    direction: int
    kind: int
    entry: float
    stop: float
    target: float
    exit_price: float
    outcome: int
    """`features.barriers.OUTCOME`: 1 target, 2 stop, 3 expiry."""
    r: float
    """Profit after fees and funding, in units of the initial risk."""
    best: float
    """Best excursion in R, before costs."""
    worst: float
    """Worst excursion in R, before costs."""
    funding: float
    """Funding paid (received when negative), in price units per unit held."""
    quality: float
    confidence: float
    strategy: str
    bundle: str
    decision_spec: str
    ticks_outcome: int | None = None
    """Which barrier price updates touched first: 1 target, 2 stop, 0 neither. None when they were not seen throughout:
    a restart came between, or there were none."""
    ticks_touched_at: int | None = None
    ticks_best: float | None = None
    ticks_worst: float | None = None
    ticks_disagree: bool | None = None


class PositionLost(Event, frozen=True, kw_only=True):
    """A virtual position whose path was not seen: bars of its symbol are missing. It is no label."""

    position_id: str
    symbol: str
    direction: int
    decided_at: int
    opened_at: int
    """0 when it was still waiting for its entry."""
    kind: int
    last_seen: int
    """Close of the last bar that was seen in time."""
    bundle: str


class BundleSwapped(Event, frozen=True, kw_only=True):
    """Another bundle decides from the next wave on."""

    old: str
    new: str
    decision_spec: str
    fallbacks: tuple[str, ...]
    warmed: bool
    """Whether a second feature state was warmed for it, as its DecisionSpec differs."""
    wall_load_ms: float = 0.0
    wall_swap_ms: float = 0.0


class BundleRefused(Event, frozen=True, kw_only=True):
    """A bundle that was offered and not taken: the old one stays."""

    bundle: str
    reason: str


class RecoveryDiverged(Event, frozen=True, kw_only=True):
    """A restart computed something else than the journal holds. The journal stands."""

    missing: tuple[str, ...]
    """What the journal holds and the re-run did not give: event and position id."""
    surplus: tuple[str, ...]
    """What the re-run gave and the journal does not hold."""


AnyEvent = (
    EpochStarted
    | CaughtUp
    | DecidedLate
    | WaveClosed
    | BarRejected
    | BarRevised
    | BarsAbsent
    | Signal
    | PositionOpened
    | PositionVoided
    | PositionClosed
    | PositionLost
    | BundleSwapped
    | BundleRefused
    | RecoveryDiverged
)

OPERATIONAL: tuple[type[Event], ...] = (EpochStarted, CaughtUp, DecidedLate, BundleRefused, RecoveryDiverged)
"""Kinds that tell about the process."""

INPUT: tuple[type[Event], ...] = (BarRejected, BarRevised, BarsAbsent)
"""Kinds that tell what the source sent wrong: a restart, which reads clean bars, does not see them again."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyEvent)


def encode(event: Event) -> bytes:
    """The event with all its fields, as the journal stores it (MessagePack)."""
    return _encoder.encode(event)


def decode(payload: bytes | memoryview) -> AnyEvent:
    """The event of `encode`; `msgspec.DecodeError` or `msgspec.ValidationError` when it is none."""
    event: AnyEvent = _decoder.decode(payload)
    return event


def kind(event: Event) -> str:
    """The name of the event's kind, as in the journal.

    >>> kind(BundleRefused(time_ms=0, bundle="7", reason="hash"))
    'bundle_refused'
    """
    tag: Any = event.__struct_config__.tag
    return str(tag)


def canonical(event: Event) -> bytes:
    """The event without `wall_*` and `ticks_*` fields, fields in declared order: equal events, equal bytes."""
    values: dict[str, Any] = {"event": kind(event)}
    for name in event.__struct_fields__:
        if not name.startswith(("wall_", "ticks_")):
            values[name] = getattr(event, name)
    return _encoder.encode(values)


class Digest:
    """sha256 over the canonical encodings of events, in order, without the kinds in `OPERATIONAL` and `INPUT`."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def update(self, events: Iterable[Event]) -> None:
        """Take further events."""
        for event in events:
            if not isinstance(event, (*OPERATIONAL, *INPUT)):
                payload = canonical(event)
                self._sha.update(len(payload).to_bytes(4, "little"))
                self._sha.update(payload)

    def hexdigest(self) -> str:
        """The digest so far, 64 hexadecimal characters."""
        return self._sha.hexdigest()


def digest(events: Iterable[Event]) -> str:
    """The digest of a whole run.

    >>> swap = BundleSwapped(time_ms=1, old="1", new="2", decision_spec="a", fallbacks=(), warmed=False)
    >>> digest([swap]) == digest([msgspec.structs.replace(swap, wall_swap_ms=3.5)])
    True
    """
    whole = Digest()
    whole.update(events)
    return whole.hexdigest()
