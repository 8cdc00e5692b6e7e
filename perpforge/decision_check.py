"""The proofs of whole decision rows on a user's own klines: the verdict, and how it is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from features.checking import NOTHING
from features.decision_checking import PROOFS, WARM_ROWS, CheckedRows, check_rows
from features.decision_controls import CONTROLS
from features.decision_spec import DecisionSpec
from features.decision_table import history_table, names_of
from market.errors import utc
from perpforge.feature_check import FAILED, INCOMPLETE, PROVEN, VERDICTS, Progress
from perpforge.feature_klines import KlinesUnusable, interval_of, read_market
from perpforge.feature_report import CROSS, NONE, SHORT, TICK, limited

table_of: Callable[..., Any] = history_table
"""The history that is proven."""


@dataclass(frozen=True)
class DecisionReport:
    """The decision rows of some symbols, and what the proofs said of them."""

    spec: DecisionSpec
    source: Path
    seed: int
    symbols: tuple[str, ...]
    first_ms: int
    last_ms: int
    checked: CheckedRows

    @property
    def code(self) -> int:
        """`FAILED`, `INCOMPLETE` or `PROVEN`. A way to cheat that goes uncaught is a failure of the proofs."""
        if self.checked.caught or self.checked.uncaught:
            return FAILED
        return INCOMPLETE if self.checked.short or self.nothing_measured else PROVEN

    @property
    def nothing_measured(self) -> list[str]:
        """Columns of which the klines, although they have all that it takes, gave no value."""
        return [name for name, why in self.checked.unmeasured.items() if why == NOTHING]


def run_decision_check(
    path: Path,
    spec: DecisionSpec,
    *,
    symbols: Sequence[str] = (),
    days: float | None = None,
    cuts: int,
    seed: int,
    progress: Progress,
) -> DecisionReport:
    """Every proof on the decision rows of the klines at `path`; `KlinesUnusable` if they cannot be used."""
    market = read_market(path, symbols, days)
    for symbol, bars in market.bars.items():
        if bars.size and interval_of(bars) != "1m":
            raise KlinesUnusable(
                path, f"decision rows are made of 1m klines, those of {symbol} are of {interval_of(bars)}"
            )

    def told(proof: str, done: int, of: int) -> None:
        progress(f"decision rows: {proof}", (PROOFS.index(proof) + done / max(of, 1)) / len(PROOFS))

    def of_spec(some: Any) -> Any:
        return table_of(some, spec)

    checked = check_rows(market, spec, cuts=cuts, seed=seed, table_of=of_spec, progress=told)
    edges = int(market.times[0]) + 1 - 60_000, int(market.times[-1]) + 1
    return DecisionReport(spec, path, seed, market.symbols, *edges, checked)


def group_of(column: str) -> str:
    """What a column of the table belongs to.

    >>> group_of("1h.rsi_14"), group_of("window.0.bar_close_move"), group_of("ready")
    ('1h', 'window', 'row')
    """
    first, dot, _ = column.partition(".")
    return first if dot else "row"


def show_decision_report(report: DecisionReport, console: Console) -> None:
    """One line a group of columns, then every failure and everything that was not checked."""
    checked = report.checked
    title = f"{report.spec.id} from {report.source}"
    facts = Table(title=title, show_header=False)
    facts.add_row("symbols", limited(list(report.symbols), 12))
    facts.add_row("from, to", f"{utc(report.first_ms)}, {utc(report.last_ms)}")
    facts.add_row("rows", f"{checked.rows:,} in {checked.waves:,} waves, {checked.cut_waves:,} with absentees")
    facts.add_row("cuts, origins", f"{checked.cuts:,}, {checked.origins:,}")
    console.print(facts)
    console.print(_groups_table(report))
    console.print(f"{TICK} columns hold  {CROSS} fail  {SHORT} too few rows to tell  {NONE} NaN by rule throughout")
    if checked.caught:
        console.print(_failures_table(report))
    for note in notes(report):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    console.print(verdict(report), style="bold", markup=False, highlight=False, soft_wrap=True)


def _groups_table(report: DecisionReport) -> Table:
    checked = report.checked
    table = Table()
    for name in ("columns", "number", *PROOFS):
        table.add_column(name, justify="right" if name == "number" else "left")
    groups: dict[str, list[str]] = {}
    for name in names_of(report.spec):
        groups.setdefault(group_of(name), []).append(name)
    failed = {(each.proof, each.feature) for each in checked.caught}
    for group, names in groups.items():
        marks = []
        for proof in PROOFS:
            wrong = sum((proof, name) in failed for name in names)
            short = sum(name in checked.short and (proof, name) not in failed for name in names)
            silent = sum(name in checked.unmeasured and (proof, name) not in failed for name in names)
            counts = {TICK: len(names) - wrong - short - silent, CROSS: wrong, SHORT: short, NONE: silent}
            colours = {TICK: "green", CROSS: "red", SHORT: "yellow", NONE: "yellow"}
            marks.append(" ".join(f"[{colours[mark]}]{mark}[/] {count}" for mark, count in counts.items() if count))
        table.add_row(f"{group}.…" if group != "row" else "atr, ready", str(len(names)), *marks)
    return table


def _failures_table(report: DecisionReport) -> Table:
    table = Table(title="What failed, at the first row that shows it")
    for column in ("column", "proof", "symbol", "decision at", "expected", "found"):
        table.add_column(column)
    for each in report.checked.caught:
        place = (each.feature, each.proof, each.symbol, utc(each.time_ms + 1))
        table.add_row(*place, f"{each.expected:.9g}", f"{each.found:.9g}")
    return table


def notes(report: DecisionReport) -> list[str]:
    """What was not checked and what a reader should know, one line each."""
    checked, lines = report.checked, []
    if checked.short:
        lines.append(
            f"too few rows for {limited(list(checked.short))}: {WARM_ROWS} rows after the warm-up are needed, and a "
            f"warm-up is counted in bars of the column's own timeframe: take a longer recording"
        )
    reasons: dict[str, list[str]] = {}
    for name, why in checked.unmeasured.items():
        reasons.setdefault(why, []).append(name)
    lines += [f"{why}, so these were NaN throughout: {limited(names)}" for why, names in reasons.items()]
    if len(report.symbols) == 1:
        lines.append("one symbol is no cross-section: its ranks are 0.5 throughout; give a folder of several")
    if checked.uncaught:
        lines.append(f"not caught: {'; '.join(checked.uncaught)}: these proofs prove nothing")
    return lines


def verdict(report: DecisionReport) -> str:
    """The last line."""
    names = names_of(report.spec)
    if report.code == FAILED:
        failed = sorted({each.feature for each in report.checked.caught})
        return f"FAILED: {len(failed)} of {len(names)} columns do not hold: {limited(failed)}"
    control = f"all of {len(CONTROLS)} ways to read ahead were caught"
    if report.code == INCOMPLETE:
        return f"INCOMPLETE: nothing failed, but not every column could be checked ({control})"
    return f"PROVEN: {len(names)} columns on {report.checked.rows:,} decision rows ({control})"


def decision_json(report: DecisionReport) -> dict[str, Any]:
    """The report as plain data; NaN becomes null when it is written."""
    checked = report.checked
    return {
        "verdict": VERDICTS[report.code],
        "exit_code": report.code,
        "spec": report.spec.id,
        "source": str(report.source),
        "seed": report.seed,
        "proofs": list(PROOFS),
        "columns": len(names_of(report.spec)),
        "symbols": list(report.symbols),
        "first_ms": report.first_ms,
        "last_ms": report.last_ms,
        "rows": checked.rows,
        "waves": checked.waves,
        "waves_with_absentees": checked.cut_waves,
        "cuts": checked.cuts,
        "origins": checked.origins,
        "too_short": list(checked.short),
        "nan_by_rule": [{"column": name, "reason": why} for name, why in checked.unmeasured.items()],
        "controls_uncaught": list(checked.uncaught),
        "failures": [
            {
                "column": each.feature,
                "proof": each.proof,
                "symbol": each.symbol,
                "close_time": each.time_ms,
                "time": utc(each.time_ms + 1),
                "expected": each.expected,
                "found": each.found,
            }
            for each in checked.caught
        ],
        "notes": notes(report),
    }
