"""The worker's one HTML page, from its board. Self-contained: no script, no external resource, all text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from market.binance.delays import Delays
from market.errors import utc
from trading_worker.shell.exchange import ExchangeReport
from trading_worker.shell.metrics import Board, Samples

SHOWN_SYMBOLS = 10

_STYLE = """
:root{--ink:#1b2430;--soft:#5d6b7a;--line:#dfe5eb;--card:#fff;--page:#f4f6f8;--good:#0f7b4f;--bad:#b42318;--warn:#9a6700}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#93a1b0;--line:#2b3641;--card:#171e26;--page:#0f1419;
--good:#4cc38a;--bad:#ff6b5e;--warn:#e2b340}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:14px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 48px}h1{font-size:20px;margin:0}h2{font-size:14px;margin:0 0 8px}
header{display:flex;gap:14px;align-items:baseline;flex-wrap:wrap;margin-bottom:18px}.soft{color:var(--soft)}
.pill{border-radius:999px;padding:2px 10px;font-weight:600;border:1px solid currentColor}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.grid{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));margin-bottom:12px}
section,.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.tile b{display:block;font-size:20px;font-weight:650;font-variant-numeric:tabular-nums}
section{margin-bottom:12px;overflow-x:auto}table{border-collapse:collapse;width:100%}
th{text-align:left;color:var(--soft);font-weight:500}th,td{padding:4px 14px 4px 0;border-bottom:1px solid var(--line);
white-space:nowrap;font-variant-numeric:tabular-nums}tr:last-child td{border-bottom:0}
td.long{white-space:normal;overflow-wrap:anywhere}ul{margin:0;padding-left:18px}
"""


def render(board: Board) -> str:
    """The page."""
    report = board.exchange()
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(board.worker)} · perpforge</title><style>{_STYLE}</style></head><body><main>",
            _header(board),
            _waiting(board),
            _tiles(board),
            _bundle(board),
            _positions(board),
            _signals(board),
            _delays(board, report),
            _exchange(board, report),
            _data(board),
            _history(board),
            '<p class="soft">The same as JSON: <a href="status.json">status.json</a>'
            ' · Prometheus: <a href="metrics">metrics</a> · virtual positions only, no orders are placed.</p>',
            "</main></body></html>",
        ]
    )


def _header(board: Board) -> str:
    pill = '<span class="pill good">ready</span>' if board.ready else '<span class="pill warn">not ready</span>'
    started = f"state from {escape(board.origin)}" if board.origin else "state not loaded yet"
    return (
        f'<header><h1>{escape(board.worker)}</h1>{pill}<span class="soft">venue time {_time(board.venue_ms)} · '
        f"epoch {board.epoch} · {started}</span></header>"
    )


def _waiting(board: Board) -> str:
    items = [*board.waiting.items(), *board.notes.items()]
    if not items:
        return ""
    lines = "".join(f"<li>{escape(part)}: {escape(text)}</li>" for part, text in items)
    return f'<section class="warn"><ul>{lines}</ul></section>'


def _tiles(board: Board) -> str:
    mean_r = "-" if board.mean_r is None else f"{board.mean_r:+.3f}"
    missed = f'<span class="{"bad" if board.waves_missed else "good"}">{board.waves_missed}</span>'
    tiles = (
        ("symbols", _number(len(board.symbols))),
        ("decision waves", _number(board.waves)),
        ("waves missed", missed),
        ("signals", _number(board.signals_total)),
        ("open positions", _number(board.open_positions)),
        ("closed positions", _number(board.closed)),
        ("mean R, net", mean_r),
        ("bundle", escape(board.bundle or "none")),
    )
    since = f'<p class="soft">counted since {_time(board.since_ms)}</p>'
    return '<div class="grid">' + "".join(_tile(name, value) for name, value in tiles) + "</div>" + since


def _tile(name: str, value: str) -> str:
    return f'<div class="tile"><span class="soft">{escape(name)}</span><b>{value}</b></div>'


def _bundle(board: Board) -> str:
    rows = [
        ("version", f"{board.bundle} ({board.bundle_name})" if board.bundle else "none"),
        ("loaded from", board.bundle_from or "-"),
        ("decision spec", board.decision_spec or "-"),
        *((f"{name} runs as its fallback", reason) for name, reason in board.fallbacks.items()),
    ]
    models = [(name.replace("_", " "), runs) for name, runs in board.models.items()]
    modules = [(name.replace("_", " "), stands) for name, stands in board.modules.items()]
    return (
        _section("Bundle", _table(("", ""), rows))
        + _section("Models", _table(("", "runs as"), models))
        + _section("Optional modules", _table(("", ""), modules))
    )


def _positions(board: Board) -> str:
    shown = {
        "symbol": "symbol",
        "direction": "direction",
        "time_ms": "decided",
        "entry": "entry",
        "stop": "stop",
        "target": "target",
        "expiry_ms": "expires",
    }
    return _section("Open virtual positions", _table(list(shown.values()), _rows(board.positions, shown)))


def _signals(board: Board) -> str:
    shown = {
        "time_ms": "decided",
        "symbol": "symbol",
        "direction": "direction",
        "confidence": "confidence",
        "quality": "quality",
        "stop": "stop",
        "target": "target",
        "bundle": "bundle",
    }
    return _section("Last signals", _table(list(shown.values()), _rows(reversed(board.signals), shown)))


def _rows(found: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> list[list[object]]:
    """The values of these keys; those that end in `_ms` as times, absent ones as a dash."""
    rows = []
    for each in found:
        values = ((key, each.get(key)) for key in keys)
        rows.append(["-" if value is None else _time(value) if key.endswith("_ms") else value for key, value in values])
    return rows


def _delays(board: Board, report: ExchangeReport) -> str:
    measured: tuple[tuple[str, Samples | Delays], ...] = (
        ("venue: close of a bar to its last message", report.venue_delay),
        ("ours: receipt of a bar to its delivery", report.own_delay),
        ("ours: last bar of a wave to committed decisions", board.wave_time),
        ("ours: journal commit", board.commits),
        ("ours: state into the mapped files", board.state_commits),
        ("ours: swap of a bundle", board.swap_pause),
    )
    rows = [(name, taken.count, *map(_milliseconds, _points(taken))) for name, taken in measured]
    return _section("Delays", _table(("", "count", "last", "median", "99 %"), rows))


def _points(taken: Samples | Delays) -> tuple[float | None, float | None, float | None]:
    """Last, median and 99th percentile, seconds."""
    if not taken.count:
        return None, None, None
    return taken.last if isinstance(taken, Samples) else taken.last_s, taken.quantile(0.5), taken.quantile(0.99)


def _exchange(board: Board, report: ExchangeReport) -> str:
    budget = "not counted here" if report.weight is None else f"{report.weight:,} of {report.weight_limit:,}"
    rows: list[tuple[object, ...]] = [
        *((f"circuit: {kind.replace('_', ' ')}", state.replace("_", " ")) for kind, state in report.circuits.items()),
        ("weight of the last minute, all processes of this address", budget),
        ("weight of this minute, as the venue tells", "-" if report.venue_weight is None else report.venue_weight),
        ("waited for room in the budget", f"{report.waited_s:.1f} s"),
        ("questions that REST did not answer", report.rest_failures),
        ("stream connections", report.connections),
        ("connections renewed without a gap", report.renewals),
        ("silent streams subscribed to again", report.resubscribed),
        ("silent streams moved to another connection", report.moved),
        ("subscriptions that the venue refused", report.refusals),
        *((("the last of them", report.refusal),) if report.refusal else ()),
        *((f"reconnected: {name}", count) for name, count in sorted(board.reconnects.items())),
    ]
    worst = sorted(report.symbols, key=lambda each: (-each.silence_s, -(each.delay_s or 0.0), each.symbol))
    slow = [
        (
            each.symbol,
            f"{each.silence_s:.1f} s",
            _milliseconds(each.delay_s),
            each.resubscribed,
            "yes" if each.asking else "",
        )
        for each in worst[:SHOWN_SYMBOLS]
    ]
    head = ("symbols silent for longest", "silent", "venue's delay of its last bar", "resubscribed", "asked for")
    return _section("Exchange", _table(("", ""), rows) + (_table(head, slow) if slow else ""))


def _data(board: Board) -> str:
    counts: list[tuple[object, ...]] = [
        ("minute waves", board.minutes),
        ("decision waves while the worker was down", board.waves_down),
        ("cut at the deadline", board.waves_cut),
        ("bars absent from their wave", board.absences),
        *((f"bars that will not come: {cause}", count) for cause, count in sorted(board.bars_absent.items())),
        ("late bars", board.late_bars),
        ("bars fetched over REST since the start", board.bars_fetched),
        ("bars that came again with other numbers", board.bars_revised),
        ("stream messages", board.messages),
        ("journal segments published", board.segments_published),
        *((f"outcome: {name}", count) for name, count in sorted(board.outcomes.items())),
        *((f"rejected: {name}", count) for name, count in sorted(board.rejected.items())),
    ]
    rejected = [(_time(entry["time_ms"]), entry["symbol"], entry["reason"]) for entry in reversed(board.rejections)]
    last = _table(("last rejected", "symbol", "reason"), rejected) if rejected else ""
    return _section("Data", _table(("", ""), counts) + last)


def _history(board: Board) -> str:
    swaps = [
        (
            _time(swap.time_ms),
            swap.previous or "none",
            swap.version,
            f"{swap.prepare_s:.2f} s",
            _milliseconds(swap.pause_s),
        )
        for swap in reversed(board.swaps)
    ]
    refused = [(_time(refusal.time_ms), refusal.version, refusal.reason) for refusal in reversed(board.refused)]
    return _section("Swaps", _table(("time", "from", "to", "prepared in", "waves held for"), swaps)) + _section(
        "Refused bundles", _table(("time", "version", "reason"), refused)
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(head: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table of escaped cells, or the word none."""
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    if not body:
        return '<span class="soft">none</span>'
    names = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>" if any(head) else ""
    return f"<table>{names}{body}</table>"


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f'<td class="long">{escape(text)}</td>' if len(text) > 40 else f"<td>{escape(text)}</td>"


def _number(value: int) -> str:
    return f"{value:,}"


def _time(time_ms: int) -> str:
    return utc(time_ms // 1000 * 1000).replace("T", " ").removesuffix("Z") if time_ms else "-"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"
