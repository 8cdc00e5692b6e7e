"""What the worker counts and measures: one board, read by the status page and by `/metrics`.

The board is the only place where a number lives; the Prometheus families are built from it when they are
asked for, in a registry of our own, so that several workers may live in one process (tests do that).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from market.binance.breaker import State
from market.binance.delays import Delays
from trading_worker.shell.exchange import ExchangeReport, Read

KEPT_SAMPLES = 4_096
KEPT_ROWS = 20


class Samples:
    """The last `KEPT_SAMPLES` of a duration in seconds, with count and sum of all.

    >>> samples = Samples()
    >>> for value in (0.1, 0.2, 0.4): samples.add(value)
    >>> samples.quantile(0.5), samples.count
    (0.2, 3)
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self._kept: deque[float] = deque(maxlen=KEPT_SAMPLES)

    def add(self, seconds: float) -> None:
        """Take one."""
        self.count += 1
        self.sum += seconds
        self._kept.append(seconds)

    @property
    def last(self) -> float | None:
        """The newest, or None."""
        return self._kept[-1] if self._kept else None

    def quantile(self, q: float) -> float | None:
        """The nearest-rank quantile of those kept, or None."""
        ordered = sorted(self._kept)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None

    def summary(self) -> dict[str, float | int | None]:
        """Count, last, median and 99th percentile, in milliseconds."""
        scaled = {name: value * 1e3 if value is not None else None for name, value in self._points()}
        return {"count": self.count, **scaled}

    def _points(self) -> Iterator[tuple[str, float | None]]:
        yield "last_ms", self.last
        yield "p50_ms", self.quantile(0.5)
        yield "p99_ms", self.quantile(0.99)


@dataclass(frozen=True, slots=True)
class Swap:
    """One change of bundle: when (venue's ms), from which to which, seconds of preparation and of pause."""

    time_ms: int
    previous: str
    version: str
    prepare_s: float
    pause_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that was not taken, and why."""

    time_ms: int
    version: str
    reason: str


def _recent() -> deque[Any]:
    return deque(maxlen=KEPT_ROWS)


@dataclass(slots=True)
class Board:
    """Everything the worker reports about itself. Times are the venue's, in ms UTC; 0 means not yet.

    Waves, bars absent, revised and late, signals and outcomes are counted from the journal, through restarts, and reach
    back to `since_ms`; all else is counted since the process began. What makes a wave missed is said in `tally`.
    `waiting` holds, per part of the worker, why it is not ready; the worker is ready when it is empty.
    `models` says of each model in which format it runs, or why its plain version stands in; `modules` of each optional
    module whether it is off, in force or on its fallback. `absences` are bars that were not in their wave,
    `bars_absent` by cause those that will not come at all. `exchange` reads what the client counts.
    """

    worker: str
    waiting: dict[str, str] = field(default_factory=lambda: {"start": "starting"})
    notes: dict[str, str] = field(default_factory=dict)
    epoch: int = 0
    sequence: int = 0
    symbols: tuple[str, ...] = ()
    origin: str = ""
    bundle: str = ""
    bundle_name: str = ""
    bundle_from: str = ""
    decision_spec: str = ""
    models: dict[str, str] = field(default_factory=dict)
    fallbacks: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    venue_ms: int = 0
    wave_ms: int = 0
    since_ms: int = 0
    minutes: int = 0
    waves: int = 0
    waves_missed: int = 0
    waves_down: int = 0
    waves_cut: int = 0
    absences: int = 0
    late_bars: int = 0
    messages: int = 0
    prices: int = 0
    bars_fetched: int = 0
    bars_revised: int = 0
    signals_total: int = 0
    r_sum: float = 0.0
    segments_published: int = 0
    commits: Samples = field(default_factory=Samples)
    wave_time: Samples = field(default_factory=Samples)
    state_commits: Samples = field(default_factory=Samples)
    swap_pause: Samples = field(default_factory=Samples)
    rejected: Counter[str] = field(default_factory=Counter)
    reconnects: Counter[str] = field(default_factory=Counter)
    bars_absent: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    signals: deque[dict[str, Any]] = field(default_factory=_recent)
    rejections: deque[dict[str, Any]] = field(default_factory=_recent)
    positions: list[dict[str, Any]] = field(default_factory=list)
    open_positions: int = 0
    vectors: int = 0
    swaps: deque[Swap] = field(default_factory=_recent)
    refused: deque[Refusal] = field(default_factory=_recent)
    refusals_total: int = 0
    swaps_total: int = 0
    exchange: Read = ExchangeReport

    @property
    def ready(self) -> bool:
        """Whether the worker decides on live waves."""
        return not self.waiting

    @property
    def closed(self) -> int:
        """Virtual positions that have ended by a barrier or by expiry."""
        return sum(count for name, count in self.outcomes.items() if name != "void")

    @property
    def mean_r(self) -> float | None:
        """Mean R of the positions closed since `since_ms`, net of costs."""
        return self.r_sum / self.closed if self.closed else None


class BoardCollector(Collector):
    """The board as Prometheus families."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """One family after another, all prefixed `perpforge_`."""
        report = self._board.exchange()
        yield from _gauges(self._board, report)
        yield from _counters(self._board, report)
        yield from _labelled(self._board)
        yield from _circuits(report)
        yield from _symbols(report)
        yield from _summaries(self._board, report)


def registry_for(board: Board) -> CollectorRegistry:
    """A registry that holds nothing but this board."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(board))
    return registry


def _gauges(board: Board, report: ExchangeReport) -> Iterator[Metric]:
    values = {
        "ready": ("1 when the worker decides on live waves", float(board.ready)),
        "venue_time_seconds": ("the newest event time the venue has sent", board.venue_ms / 1e3),
        "wave_time_seconds": ("close of the last minute wave", board.wave_ms / 1e3),
        "counted_since_seconds": ("market time that counts from the journal reach back to", board.since_ms / 1e3),
        "symbols": ("symbols followed", float(len(board.symbols))),
        "open_positions": ("virtual positions that are open or pending", float(board.open_positions)),
        "position_vectors": ("open positions of which it is kept what the models saw", float(board.vectors)),
        "model_fallbacks": ("components of the bundle that run as their fallback", float(len(board.fallbacks))),
        "journal_epoch": ("epoch of the journal", float(board.epoch)),
        "journal_sequence": ("sequence of the last committed event", float(board.sequence)),
        "stream_connections": ("stream connections that are kept", float(report.connections)),
        "venue_weight": ("weight used in the venue's present minute, as it last told", report.venue_weight),
        "weight": ("weight of the last 60 seconds of all processes that share the budget", report.weight),
        "weight_limit": ("weight that the venue allows in a minute", report.weight_limit),
    }
    for name, (text, value) in values.items():
        if value is not None:
            yield GaugeMetricFamily(f"perpforge_{name}", text, value=float(value))
    info = GaugeMetricFamily(
        "perpforge_bundle", "the bundle that decides", labels=["version", "decision_spec", "source"]
    )
    info.add_metric([board.bundle, board.decision_spec, board.bundle_from], 1.0)
    yield info


def _counters(board: Board, report: ExchangeReport) -> Iterator[Metric]:
    values = {
        "minutes": ("minute waves handed to the engine", board.minutes),
        "waves": ("decision waves run, late ones and those of the time the worker was down included", board.waves),
        "waves_missed": (
            "decision waves on which nothing was decided in time while the worker ran",
            board.waves_missed,
        ),
        "waves_down": ("decision waves that closed while the worker was down or catching up", board.waves_down),
        "waves_cut": ("minute waves cut at the deadline", board.waves_cut),
        "absences": ("bars absent from their wave", board.absences),
        "late_bars": ("bars that came after their wave had left", board.late_bars),
        "messages": ("stream messages received", board.messages),
        "prices": ("price updates handed to the engine", board.prices),
        "bars_fetched": ("bars fetched over REST after the start", board.bars_fetched),
        "fetch_failures": ("questions for bars or the time that REST did not answer", report.rest_failures),
        "bars_repeated": ("bars that came again with the same numbers", report.repeated),
        "streams_resubscribed": ("silent streams that were subscribed to again", report.resubscribed),
        "streams_moved": ("silent or refused streams that were moved to another connection", report.moved),
        "subscriptions_refused": ("control messages that the venue refused", report.refusals),
        "connections_renewed": ("stream connections replaced without a gap", report.renewals),
        "budget_waited_seconds": ("how long requests have waited for room in the budget", report.waited_s),
        "bars_revised": ("bars that came again with other numbers", board.bars_revised),
        "signals": ("signals", board.signals_total),
        "segments_published": ("journal segments written to the lake", board.segments_published),
        "bundle_swaps": ("bundles swapped in", board.swaps_total),
        "bundle_refusals": ("bundles refused", board.refusals_total),
    }
    for name, (text, value) in values.items():
        yield CounterMetricFamily(f"perpforge_{name}", text, value=float(value))


def _labelled(board: Board) -> Iterator[Metric]:
    families = (
        ("bars_rejected", "bars and messages that were refused", "reason", board.rejected),
        ("bars_absent", "bars that will not come, in no wave", "cause", board.bars_absent),
        ("reconnects", "stream connections opened again", "cause", board.reconnects),
        ("positions_closed", "virtual positions that ended", "outcome", board.outcomes),
    )
    for name, text, label, counts in families:
        family = CounterMetricFamily(f"perpforge_{name}", text, labels=[label])
        for value, count in sorted(counts.items()):
            family.add_metric([value], float(count))
        yield family


def _circuits(report: ExchangeReport) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "perpforge_circuit", "1 for the state that each circuit of requests is in", labels=["kind", "state"]
    )
    for kind, now in report.circuits.items():
        for state in State:
            family.add_metric([kind, state.value], float(state.value == now))
    yield family


def _symbols(report: ExchangeReport) -> Iterator[Metric]:
    delay = GaugeMetricFamily(
        "perpforge_symbol_venue_delay_seconds", "what the venue took to send a symbol's last bar", labels=["symbol"]
    )
    silence = GaugeMetricFamily(
        "perpforge_symbol_silence_seconds", "venue time since a symbol's stream last said anything", labels=["symbol"]
    )
    for each in report.symbols:
        if each.delay_s is not None:
            delay.add_metric([each.symbol], each.delay_s)
        silence.add_metric([each.symbol], each.silence_s)
    yield from (delay, silence)


def _summaries(board: Board, report: ExchangeReport) -> Iterator[Metric]:
    families: tuple[tuple[str, str, Samples | Delays], ...] = (
        ("journal_commit", "append and fsync of one wave's events", board.commits),
        ("wave_processing", "from the bar that completes a wave to its committed decisions", board.wave_time),
        ("state_commit", "storing one wave's state in the mapped files", board.state_commits),
        ("venue_delay", "event time of a closed bar minus its close, by the venue's clock", report.venue_delay),
        ("own_delay", "from the receipt of a closed bar to its delivery, by ours", report.own_delay),
        ("bundle_swap_pause", "how long a swap held the waves", board.swap_pause),
    )
    for name, text, taken in families:
        full = f"perpforge_{name}_seconds"
        family = Metric(full, text, "summary")
        for q in (0.5, 0.99):
            value = taken.quantile(q) if taken.count else None
            if value is not None:
                family.add_sample(full, {"quantile": str(q)}, value)
        family.add_sample(f"{full}_count", {}, float(taken.count))
        family.add_sample(f"{full}_sum", {}, taken.sum if isinstance(taken, Samples) else taken.sum_s)
        yield family
