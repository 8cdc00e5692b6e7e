"""The command line, `perpforge`."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from perpforge.commands.bundle import bundle_app
from perpforge.commands.features import features_app

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="From Binance USDⓈ-M klines to promoted model bundles, and those bundles run live.",
)
app.add_typer(bundle_app, name="bundle")
app.add_typer(features_app, name="features")

Home = Annotated[Path, typer.Option("--home", help="the folder that everything is written under")]


def _become(module: str, arguments: list[str]) -> None:
    """Replace this process by `python -m module`, so that it holds nothing that the command line imported."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


@app.command()
def demo(
    edge: Annotated[str, typer.Option(help="planted: the synthetic market has an edge to find; none: it has none")] = (
        "planted"
    ),
    seed: Annotated[int, typer.Option(help="seed of the synthetic market and of training")] = 7,
    symbols: Annotated[int, typer.Option(min=2, max=200, help="symbols of the synthetic market")] = 12,
    days: Annotated[int, typer.Option(min=16, max=365, help="days of history before the live part")] = 30,
    klines: Annotated[
        Path | None, typer.Option(help="folder of recorded 1m klines (SYMBOL-….parquet) in place of the synthetic one")
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="write the summary as JSON to this file")] = None,
    home: Home = Path(".perpforge/demo"),
) -> None:
    """The whole loop, offline: ingest, train, promote, go live, learn from the outcomes, hot-swap."""
    from perpforge.demo.plan import DemoImpossible, plan_demo
    from perpforge.demo.run import run_demo
    from perpforge.home import HomeBusy, HomeForeign

    try:
        plan = plan_demo(home, edge=edge, seed=seed, symbols=symbols, days=days, klines=klines)
        code = run_demo(plan, summary)
    except (DemoImpossible, HomeBusy, HomeForeign) as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(code)


@app.command()
def up(
    home: Home = Path(".perpforge/demo"), port: Annotated[int, typer.Option(help="of the Dagster UI")] = 3000
) -> None:
    """Start MLflow and the Dagster UI on a home folder, until Ctrl-C."""
    from perpforge.commands.up import run_up

    raise typer.Exit(run_up(home, port))


@app.command()
def mlflow(
    home: Home = Path(".perpforge"), port: Annotated[int, typer.Option(help="0 takes a free one")] = 5000
) -> None:
    """Start the MLflow server alone, until Ctrl-C."""
    from perpforge.commands.up import run_mlflow

    raise typer.Exit(run_mlflow(home, port))


@app.command()
def worker() -> None:
    """Run the trading worker, configured by its environment, until SIGTERM or Ctrl-C."""
    _become("trading_worker", [])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def simulator(context: typer.Context) -> None:
    """Run the simulated exchange; its own --help lists its options."""
    _become("market.simulator", context.args)


@app.command()
def replay(
    klines: Annotated[str, typer.Option(help="folder of recorded 1m klines, or a source such as synthetic:seed=7")],
    bundle: Annotated[Path | None, typer.Option(help="folder of a bundle; none: plain versions of all models")] = None,
    start: Annotated[datetime | None, typer.Option(help="UTC; what comes before only warms the features")] = None,
    end: Annotated[datetime | None, typer.Option(help="UTC, exclusive")] = None,
    symbols: Annotated[str, typer.Option(help="comma-separated; none: all")] = "",
    journal: Annotated[Path | None, typer.Option(help="folder to write the events to, as a journal")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Run recorded bars through the live engine as fast as it goes; the same input gives the same digest."""
    from perpforge.commands.replay import run_replay

    chosen = tuple(name.strip() for name in symbols.split(",") if name.strip())
    run_replay(klines, bundle, _utc_ms(start), _utc_ms(end), chosen, journal, as_json)


@app.command()
def history(
    start: Annotated[datetime, typer.Option(help="UTC, the first day")],
    end: Annotated[datetime, typer.Option(help="UTC, exclusive")],
    symbols: Annotated[str, typer.Option(help="comma-separated; none: the most traded of each day")] = "",
    top: Annotated[int, typer.Option(min=1, max=1000, help="how many are followed on each day")] = 200,
    archive: Annotated[str, typer.Option(help="the exchange's archive, or a folder that mirrors it")] = (
        "https://data.binance.vision"
    ),
    rest: Annotated[str, typer.Option(help="has what the archive lacks; empty: nobody is asked")] = (
        "https://fapi.binance.com"
    ),
    lake: Annotated[str, typer.Option(help="where it goes: a path, file:// or s3://")] = "./.perpforge/lake",
    again: Annotated[bool, typer.Option("--again", help="read what is done anew, and replace it")] = False,
    listing: Annotated[
        str,
        typer.Option(help="where the archive's store is listed, so that symbols that are gone count; empty: nowhere"),
    ] = "auto",
) -> None:
    """Bring the exchange's archive into the lake: universe, klines, gaps and fundings. It can be interrupted."""
    from market.errors import MarketError
    from perpforge.commands.history import HistoryPlan, run_history

    chosen = tuple(name.strip() for name in symbols.split(",") if name.strip())
    since, until = (int(time.replace(tzinfo=UTC).timestamp() * 1000) for time in (start, end))
    try:
        code = run_history(HistoryPlan(lake, archive, rest, since, until, chosen, top, again, listing))
    except MarketError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(code)


def _utc_ms(time: datetime | None) -> int | None:
    return None if time is None else int(time.replace(tzinfo=UTC).timestamp() * 1000)


@app.command()
def settings() -> None:
    """Print the worker's configuration: every variable, its default, unit and reason."""
    from rich.console import Console
    from rich.table import Table

    from trading_worker.settings import table

    shown = Table(title="The worker's environment")
    for column in ("variable", "default", "unit", "why"):
        shown.add_column(column)
    for row in table():
        shown.add_row(*row)
    Console().print(shown)


@app.command("compile")
def compile_kernels() -> None:
    """Compile the numeric kernels into the cache, so that nothing compiles later."""
    from features import compile_all
    from trading_worker import kernels

    compile_all()
    kernels.compile_all()
