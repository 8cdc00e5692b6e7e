"""How the proofs' verdict on a user's klines is printed: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from features.checking import PROOFS, WARM_BARS
from features.spec import FeatureSpec
from market.errors import utc
from perpforge.feature_check import FAILED, INCOMPLETE, VERDICTS, Report, Series, nothing_measured

MOST_GAPS = 5
"""Gaps that are told of, per series."""

TICK, CROSS, SHORT, NONE = "✓", "✗", "–", "∅"
"""Proven; failed; the series is too short; NaN by rule throughout."""


def feature_rows(spec: FeatureSpec) -> list[dict[str, Any]]:
    """Every feature of a specification with what is declared of it, in column order."""
    return [
        {
            "name": feature.name,
            "family": family.name,
            "version": feature.version,
            "warmup": feature.warmup,
            "unit": feature.unit,
            "low": feature.low,
            "high": feature.high,
            "formula": feature.formula,
            "nan": feature.nan,
            "source": feature.source,
        }
        for family in spec.families
        for feature in family.features
    ]


def range_text(low: float, high: float) -> str:
    """A range in few characters.

    >>> range_text(-100.0, 100.0), range_text(0.0, 1.0), range_text(-1.0, float("inf"))
    ('±100', '0..1', '≥ -1')
    """
    if high == float("inf"):
        return "any" if low == -float("inf") else f"≥ {low:g}"
    return f"±{high:.4g}" if low == -high else f"{low:.4g}..{high:.4g}"


def show_features(spec: FeatureSpec, console: Console) -> None:
    """A table of all features."""
    table = Table(title=f"{len(spec.names)} features of {spec.id}, state {spec.state_size * 8:,} bytes a series")
    for column in ("feature", "family", "version", "warm-up", "unit", "range", "formula"):
        table.add_column(column, justify="right" if column in ("version", "warm-up") else "left")
    for row in feature_rows(spec):
        may = " or NaN" if row["nan"] else ""
        span = range_text(row["low"], row["high"]) + may
        table.add_row(
            row["name"],
            row["family"],
            str(row["version"]),
            f"{row['warmup']:,}",
            row["unit"] or "–",
            span,
            row["formula"],
        )
    console.print(table)


def _mark(report: Report, feature: str, proof: str) -> str:
    """The marks of one feature and proof, one a timeframe; over several symbols the worst of them."""
    marks = []
    for timeframe in dict.fromkeys(series.timeframe for series in report.series):
        checks = [series.checked for series in report.series if series.timeframe == timeframe]
        if any((c.failure.proof, c.failure.feature) == (proof, feature) for each in checks for c in each.caught):
            marks.append(f"[red]{CROSS}[/red]")
        elif any(feature in each.short for each in checks):
            marks.append(f"[yellow]{SHORT}[/yellow]")
        elif any(feature in each.unmeasured for each in checks):
            marks.append(f"[yellow]{NONE}[/yellow]")
        else:
            marks.append(f"[green]{TICK}[/green]")
    return " ".join(marks)


def show_report(report: Report, console: Console) -> None:
    """What was checked, one line a feature, then every failure and everything that was not checked."""
    console.print(_series_table(report))
    timeframes = list(dict.fromkeys(series.timeframe for series in report.series))
    table = Table(title=f"{report.spec.id}, each mark one of {', '.join(timeframes)}")
    for column in ("feature", "warm-up", *PROOFS):
        table.add_column(column, justify="right" if column == "warm-up" else "left")
    for feature in report.spec.features:
        marks = [_mark(report, feature.name, proof) for proof in PROOFS]
        table.add_row(feature.name, f"{feature.warmup:,}", *marks)
    console.print(table)
    console.print(f"{TICK} holds  {CROSS} fails  {SHORT} too few bars to tell  {NONE} NaN by rule throughout")
    if failures := _failures_table(report):
        console.print(failures)
    for note in notes(report):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    console.print(verdict(report), style="bold", markup=False, highlight=False, soft_wrap=True)


def _series_table(report: Report) -> Table:
    table = Table(title=f"{report.source} ({report.interval})")
    for column in ("symbol", "timeframe", "from", "to", "bars", "cuts", "origins", "new origins after gaps"):
        table.add_column(column)
    for series in report.series:
        checked = series.checked
        table.add_row(
            series.symbol,
            series.timeframe,
            "–" if series.first_ms is None else utc(series.first_ms),
            "–" if series.last_ms is None else utc(series.last_ms + 1),
            *(f"{count:,}" for count in (checked.bars, checked.cuts, checked.origins, len(checked.gaps))),
        )
    return table


def _failures_table(report: Report) -> Table | None:
    table = Table(title="What failed, at the first bar that shows it")
    for column in ("feature", "proof", "symbol", "timeframe", "bar that opened", "expected", "found"):
        table.add_column(column)
    for series in report.series:
        for each in series.checked.caught:
            failure = each.failure
            place = (series.symbol, series.timeframe, utc(each.open_time))
            table.add_row(failure.feature, failure.proof, *place, f"{failure.expected:.9g}", f"{failure.found:.9g}")
    return table if table.row_count else None


def limited(names: list[str], most: int = 6) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def notes(report: Report) -> list[str]:
    """What was not checked and what a reader should know, one line each; what holds for several series is said once."""
    said: dict[str, list[str]] = {}
    for series in report.series:
        for note in _notes_of(series, report.spec):
            said.setdefault(note, []).append(f"{series.symbol} {series.timeframe}")
    lines = [f"{limited(names, 4)}: {note}" for note, names in said.items()]
    if not report.control_caught:
        lines.append("a feature that reads one bar ahead was not caught: these proofs prove nothing")
    return lines


def _notes_of(series: Series, spec: FeatureSpec) -> Iterator[str]:
    """The notes on one series, the gravest first."""
    checked = series.checked
    if checked.short:
        yield (
            f"too few bars for {limited(list(checked.short))}: {max(checked.short.values()):,} without a long gap are "
            f"needed (warm-up and {WARM_BARS} more), there are {checked.stretch:,}"
        )
    if nothing := nothing_measured(checked):
        yield f"never anything to measure for {limited(nothing)}: take a longer recording"
    if without := [feature for feature in checked.unmeasured if feature not in nothing]:
        lacking = ", ".join(checked.lacking)
        yield f"the klines have no {lacking}, so these are NaN by rule: {limited(without)}"
    for missing, start, stop in checked.gaps[:MOST_GAPS]:
        yield (
            f"{missing:,} bars are missing from {utc(start)} to {utc(stop)}, {spec.max_gap} are bridged: a new origin, "
            "every feature is NaN there until it is warm again"
        )
    if len(checked.gaps) > MOST_GAPS:
        yield f"and {len(checked.gaps) - MOST_GAPS:,} more such gaps; --json lists all"


def verdict(report: Report) -> str:
    """The last line."""
    features, series = len(report.spec.names), len(report.series)
    failed = {each.failure.feature for s in report.series for each in s.checked.caught}
    if report.code == FAILED:
        return f"FAILED: {len(failed)} of {features} features do not hold: {limited(sorted(failed))}"
    control = "a feature that reads one bar ahead was caught"
    if report.code == INCOMPLETE:
        return f"INCOMPLETE: nothing failed, but not every feature could be checked on every series ({control})"
    return f"PROVEN: {features} features on {series} series ({control})"


def _series_json(series: Series) -> dict[str, Any]:
    checked = series.checked
    return {
        "symbol": series.symbol,
        "timeframe": series.timeframe,
        "first_ms": series.first_ms,
        "last_ms": series.last_ms,
        "bars": checked.bars,
        "cuts": checked.cuts,
        "origins": checked.origins,
        "longest_stretch": checked.stretch,
        "gaps": [{"missing": missing, "from_ms": start, "to_ms": stop} for missing, start, stop in checked.gaps],
        "too_short": [{"feature": name, "bars_needed": needed} for name, needed in checked.short.items()],
        "nan_by_rule": [{"feature": name, "reason": why} for name, why in checked.unmeasured.items()],
        "control_caught_by": list(checked.control),
        "failures": [
            {
                "feature": each.failure.feature,
                "proof": each.failure.proof,
                "bar": each.failure.bar,
                "open_time": each.open_time,
                "time": utc(each.open_time),
                "expected": each.failure.expected,
                "found": each.failure.found,
            }
            for each in checked.caught
        ],
    }


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain data; NaN becomes null when it is written."""
    return {
        "verdict": VERDICTS[report.code],
        "exit_code": report.code,
        "spec": report.spec.id,
        "source": str(report.source),
        "interval": report.interval,
        "seed": report.seed,
        "proofs": list(PROOFS),
        "features": len(report.spec.names),
        "control_caught": report.control_caught,
        "series": [_series_json(series) for series in report.series],
        "notes": notes(report),
    }
