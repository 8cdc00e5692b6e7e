"""`perpforge features`: list the features, and prove them on one's own klines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

features_app = typer.Typer(no_args_is_help=True, help="List the features, and prove them on your own klines.")

AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def _print_json(data: Any) -> None:
    import msgspec

    # msgspec writes NaN and infinities as null, so that any reader takes it.
    print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())


@features_app.command("list")
def list_features(
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option(help="print the page docs/features.md")] = False,
) -> None:
    """Every feature: name, family, version, warm-up in bars, unit, range and formula."""
    from rich.console import Console

    from features import DECISION_SPEC, SPEC
    from perpforge.feature_page import page
    from perpforge.feature_report import feature_rows, show_features

    if markdown:
        print(page(DECISION_SPEC), end="")
    elif as_json:
        _print_json({"spec": SPEC.id, "state_bytes": SPEC.state_size * 8, "features": feature_rows(SPEC)})
    else:
        console = Console()
        show_features(SPEC, console if console.is_terminal else Console(width=200))


@features_app.command()
def check(
    klines: Annotated[
        Path, typer.Option(help="1m klines: SYMBOL-1m-….parquet, .csv or .zip, a folder of such files, or a lake")
    ],
    timeframe: Annotated[list[str] | None, typer.Option(help="repeatable; none: 5m, 15m and 1h")] = None,
    decision: Annotated[
        bool, typer.Option("--decision", help="whole decision rows of all symbols together, instead of single series")
    ] = False,
    symbol: Annotated[list[str] | None, typer.Option(help="repeatable; none: all that the klines have")] = None,
    days: Annotated[float | None, typer.Option(min=0.01, help="only so many days, the last ones; none: all")] = None,
    cuts: Annotated[int, typer.Option(min=1, help="cut points of prefix and of poison, per series")] = 200,
    seed: Annotated[int, typer.Option(help="where the cuts lie")] = 1,
    as_json: AsJson = False,
) -> None:
    """Prove on your own klines that no feature looks ahead, that live equals history, that origins are forgotten.

    Ends with 0 when all is proven, 1 when a feature fails, 2 when the klines cannot be used, and 3 when nothing
    failed but some feature could not be checked, as where the klines are too few for its warm-up.
    """
    from rich.console import Console
    from rich.progress import Progress

    from market.errors import UnknownInterval
    from perpforge.feature_check import UNUSABLE
    from perpforge.feature_klines import KlinesUnusable

    if decision and timeframe:
        raise typer.BadParameter("decision rows have timeframes of their own", param_hint="--timeframe")
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("reading", total=1.0)
            report, as_data, show = _prove(
                klines,
                timeframe or (),
                decision,
                symbols=symbol or (),
                days=days,
                cuts=cuts,
                seed=seed,
                progress=lambda what, done: progress.update(task, description=what, completed=done),
            )
    except (KlinesUnusable, UnknownInterval) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNUSABLE) from error
    if as_json:
        _print_json(as_data(report))
    else:
        console = Console()
        show(report, console if console.is_terminal else Console(width=140))
    raise typer.Exit(report.code)


def _prove(klines: Path, timeframes: Sequence[str], decision: bool, **how: Any) -> tuple[Any, Any, Any]:
    """The report of the proofs, and what makes JSON and tables of it."""
    from features import DECISION_SPEC, SPEC

    if decision:
        from perpforge.decision_check import decision_json, run_decision_check, show_decision_report

        return run_decision_check(klines, DECISION_SPEC, **how), decision_json, show_decision_report
    from perpforge.feature_check import run_check
    from perpforge.feature_report import report_json, show_report

    return run_check(klines, SPEC, timeframes, DECISION_SPEC.timeframes, **how), report_json, show_report
