"""`perpforge bundle`: look at the registered bundles and move the champion."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from models_registry.ledger import Entry
    from models_registry.manifest import Component, FormatReport, Manifest, Metric
    from models_registry.registry import Registry

bundle_app = typer.Typer(no_args_is_help=True, help="Look at the registered bundles and move the champion.")

Home = Annotated[Path, typer.Option("--home", help="the folder of the demo whose bundles are meant")]
TrackingUri = Annotated[
    str, typer.Option("--mlflow", envvar="MLFLOW_TRACKING_URI", help="an MLflow server; none: one over the home folder")
]
LakeUri = Annotated[str, typer.Option("--lake", envvar="LAKE_URI", help="the lake; none: the home folder's")]
Version = Annotated[str, typer.Argument(help="a version number, champion or challenger")]
Reason = Annotated[str, typer.Option("--reason", prompt=True, help="why; it is kept in the ledger")]

DEFAULT_HOME = Path(".perpforge/demo")


@contextmanager
def _opened(home: Path, uri: str, lake: str = "") -> Iterator[Registry]:
    """The registry on the server at `uri`, or on one that is started over `home` for as long as it is needed.

    A move of the champion is entered with the newest live outcome in `lake`, the home folder's where none is named.
    """
    from market.errors import MarketError
    from market.lake import Lake
    from models_registry.errors import ModelsError
    from models_registry.registry import Registry
    from models_registry.server import MlflowServer, MlflowServerFailed

    def newest() -> int | None:
        from orchestration.label_store import live_until

        return live_until(Lake(lake or str(home / "lake")))

    ledger = _ledger(home)
    try:
        if uri:
            yield Registry(uri, ledger, live_until=newest)
            return
        if not (home / "mlflow").is_dir():
            raise typer.BadParameter(f"{home} holds no MLflow store: run a demo, or give --home or --mlflow")
        with MlflowServer(home / "mlflow") as server:
            yield Registry(server.url, ledger, live_until=newest)
    except (ModelsError, MarketError, MlflowServerFailed) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _ledger(home: Path) -> Path:
    return Path(os.environ.get("LEDGER_PATH") or home / "registry" / "ledger.jsonl")


def _resolve(registry: Registry, version: str) -> str:
    """The number of a registered bundle; `typer.BadParameter` when there is none, with those that there are."""
    if version in ("champion", "challenger"):
        found = registry.champion() if version == "champion" else registry.challenger()
        if found is None:
            raise typer.BadParameter(f"there is no {version}")
        return found
    if not version.isdecimal():
        raise typer.BadParameter(f"{version!r} is no version: give a number, champion or challenger")
    known = [bundle.version for bundle in registry.list()]
    if version not in known:
        raise typer.BadParameter(f"there is no bundle {version}; registered: {', '.join(reversed(known)) or 'none'}")
    return version


def _manifest(registry: Registry, version: str, folder: Path) -> Manifest:
    """The manifest of a bundle, whose files are downloaded into `folder`."""
    from models_registry.errors import BundleRejected
    from models_registry.runtime import read_manifest

    try:
        return read_manifest(registry.download(version, folder))
    except BundleRejected as error:
        # The folder is gone in a moment: what was looked at is the version.
        typer.echo(f"bundle {version} cannot be read: {error.reason}", err=True)
        raise typer.Exit(1) from error


@bundle_app.command("list")
def list_bundles(home: Home = DEFAULT_HOME, uri: TrackingUri = "") -> None:
    """Every registered bundle, the newest first."""
    from rich.console import Console
    from rich.table import Table

    from market.errors import utc

    table = Table()
    for column in ("version", "registered", "aliases", "run"):
        table.add_column(column)
    with _opened(home, uri) as registry:
        for bundle in registry.list():
            table.add_row(bundle.version, utc(bundle.created_ms), ", ".join(bundle.aliases), bundle.run_id)
    Console().print(table)


@bundle_app.command()
def show(
    version: Version = "champion",
    as_json: Annotated[bool, typer.Option("--json", help="print the manifest as it is")] = False,
    home: Home = DEFAULT_HOME,
    uri: TrackingUri = "",
) -> None:
    """The manifest of a bundle."""
    from models_registry.evaluation_table import trial_words
    from models_registry.manifest import MANIFEST_FILE
    from models_registry.trial_log import TrialLog

    with _opened(home, uri) as registry, tempfile.TemporaryDirectory() as folder:
        trials = TrialLog.beside(registry.ledger.path).count()
        manifest = _manifest(registry, _resolve(registry, version), Path(folder) / "bundle")
        text = (Path(folder) / "bundle" / MANIFEST_FILE).read_text()
    if as_json:
        typer.echo(text)
        return
    claims = sum(part.headline is not None for part in manifest.components.values())
    typer.echo(f"bundle {manifest.bundle_version}, DecisionSpec {manifest.decision_spec.id}, parent {manifest.parent}")
    for name, component in manifest.components.items():
        served = component.served or f"fallback: {component.fallback}"
        typer.echo(f"  {name} {component.version}: {served}{_history(component)}")
        for format_name, report in component.formats.items():
            typer.echo(f"    {format_name} {_format(report)}")
        for metric, score in component.metrics.items():
            typer.echo(f"    {_score(metric, score)}")
            if words := trial_words(score, trials, max(claims, 1), claimed=metric == component.headline):
                typer.echo(f"      {words}")


def _score(name: str, score: Metric) -> str:
    """A metric beside its baseline, and by how much it is better.

    >>> from models_registry.manifest import Metric
    >>> _score("loss", Metric(value=0.5, baseline=0.6, baseline_name="chance", improvement=0.1, interval=(0.05, 0.15)))
    'loss 0.5, chance 0.6; better by +0.1 (95 %: +0.05 to +0.15)'
    >>> _score("error", Metric(value=None))
    'error –'
    """
    words = f"{name} {'–' if score.value is None else f'{score.value:.4g}'}"
    if score.baseline is not None:
        words += f", {score.baseline_name} {score.baseline:.4g}"
    if score.improvement is not None:
        words += f"; better by {score.improvement:+.2g}"
        if score.interval is not None:
            words += f" (95 %: {score.interval[0]:+.2g} to {score.interval[1]:+.2g})"
    return words


def _format(report: FormatReport) -> str:
    if not report.passed:
        return f"failed: {report.failed}"
    numbers = {
        "bytes": report.bytes,
        "us a call": None if report.latency_us is None else round(report.latency_us),
        "us a call of its original": None if report.original_us is None else round(report.original_us),
        "times fp32": None if report.speedup is None else round(report.speedup, 2),
        "agreement": None if report.agreement is None else round(report.agreement, 4),
    }
    return "passed, " + ", ".join(f"{value} {name}" for name, value in numbers.items() if value is not None)


def _history(component: Component) -> str:
    """How often the model was trained, each time from the one before, and on how much."""
    from models_registry.continuing import analyses_of, updates_of

    updates, record = updates_of(component), component.provenance
    if not updates:
        return ""
    source = record.continued_from if record is not None else None
    origin = f"continued from bundle {source}" if source else "from scratch"
    return f" ({origin}; updates {updates}, analyses {analyses_of(component)})"


@bundle_app.command()
def diff(
    one: Annotated[str, typer.Argument(help="a version number, champion or challenger")],
    other: Annotated[str, typer.Argument(help="the version it is compared with")],
    home: Home = DEFAULT_HOME,
    uri: TrackingUri = "",
) -> None:
    """What differs between two bundles: columns, terms, data, models, scores and parameters, a line each."""
    from models_registry.difference import differences

    with _opened(home, uri) as registry, tempfile.TemporaryDirectory() as folder:
        versions = [_resolve(registry, version) for version in (one, other)]
        manifests = [
            _manifest(registry, version, Path(folder) / f"{place}-{version}") for place, version in enumerate(versions)
        ]
    found = differences(*manifests)
    for each in found:
        typer.echo(f"{each.where}: {each.one} → {each.other}")
    if not found:
        typer.echo(f"bundles {versions[0]} and {versions[1]} are the same")


@bundle_app.command()
def verify(version: Version = "champion", home: Home = DEFAULT_HOME, uri: TrackingUri = "") -> None:
    """Download a bundle and check its hashes, DecisionSpec and golden outputs."""
    from models_registry.errors import BundleRejected
    from models_registry.registry import verify_bundle

    with _opened(home, uri) as registry, tempfile.TemporaryDirectory() as folder:
        resolved = _resolve(registry, version)
        try:
            verify_bundle(registry.download(resolved, Path(folder) / "bundle"))
        except BundleRejected as error:
            typer.echo(f"bundle {resolved} is not whole: {error.reason}", err=True)
            raise typer.Exit(1) from error
    typer.echo(f"bundle {resolved} is whole")


@bundle_app.command()
def reproduce(
    version: Version = "champion",
    lake: LakeUri = "",
    home: Home = DEFAULT_HOME,
    uri: TrackingUri = "",
) -> None:
    """Train a bundle again from the data and settings that it records, and compare.

    Exit code 0: the same files, or outputs within their tolerance; 1: not so; 2: it could not be trained again.
    """
    from market.lake import Lake
    from models_registry.errors import ModelsError
    from orchestration.reproducing import reproduce as rebuild

    with _opened(home, uri) as registry:
        resolved = _resolve(registry, version)
        try:
            found = rebuild(Lake(lake or str(home / "lake")), registry, resolved, _told)
        except ModelsError as error:
            typer.echo(f"bundle {resolved} cannot be trained again: {error}", err=True)
            raise typer.Exit(2) from error
    for each in found:
        typer.echo(str(each))
    reproduced = all(each.reproduced for each in found)
    typer.echo(f"bundle {resolved} is {'' if reproduced else 'not '}reproduced")
    if not reproduced:
        raise typer.Exit(1)


def _told(stage: str, fraction: float) -> None:
    typer.echo(f"{stage}: {fraction:.0%}", err=True)


@bundle_app.command()
def promote(
    version: Version, reason: Reason, lake: LakeUri = "", home: Home = DEFAULT_HOME, uri: TrackingUri = ""
) -> None:
    """Make a bundle the champion by hand; the ledger shows it as an override."""
    with _opened(home, uri, lake) as registry:
        entry = registry.promote(_resolve(registry, version), reason, getpass.getuser())
    typer.echo(f"champion is {entry.version}, before {entry.previous}")


@bundle_app.command()
def rollback(reason: Reason, lake: LakeUri = "", home: Home = DEFAULT_HOME, uri: TrackingUri = "") -> None:
    """Give the champion back to the one before."""
    with _opened(home, uri, lake) as registry:
        entry = registry.rollback(reason, getpass.getuser())
    typer.echo(f"champion is {entry.version}, before {entry.previous}")


@bundle_app.command()
def history(
    at: Annotated[datetime | None, typer.Option(help="UTC: who was champion then; none: every move")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the entries as the ledger has them")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Who was champion when, why and by whom, from the ledger, whose chain is checked. It needs no server."""
    from market.errors import utc
    from models_registry.errors import LedgerBroken
    from models_registry.ledger import CHAMPION, Ledger

    ledger = Ledger(_ledger(home))
    if not ledger.path.exists():
        raise typer.BadParameter(f"{ledger.path} does not exist: run a demo, or give --home or set LEDGER_PATH")
    try:
        entries = ledger.entries()
    except LedgerBroken as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    if at is not None:
        time_ms = int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)
        entries = [entry for entry in entries if entry.alias == CHAMPION and entry.time_ms <= time_ms][-1:]
        if not as_json:
            typer.echo(_champion_at(entries[0] if entries else None, utc(time_ms)))
            return
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(entries), indent=2).decode())
        return
    _show_moves(entries)


def _champion_at(entry: Entry | None, time: str) -> str:
    from market.errors import utc

    if entry is None or entry.version is None:
        return f"at {time} nobody was champion"
    return (
        f"at {time} the champion was bundle {entry.version}, since {utc(entry.time_ms)} (before: {entry.previous})\n"
        f"  {entry.action} by {entry.by}: {entry.reason}"
    )


def _show_moves(entries: Sequence[Entry]) -> None:
    from rich.console import Console
    from rich.table import Table

    from market.errors import utc

    table = Table()
    for column in ("time", "alias", "to", "from", "how", "by"):
        table.add_column(column, no_wrap=True)
    table.add_column("why")
    for entry in entries:
        moved = (entry.version or "–", entry.previous or "–", entry.action, entry.by, entry.reason)
        table.add_row(utc(entry.time_ms // 1000 * 1000), entry.alias, *moved)
    Console().print(table)
    typer.echo(f"{len(entries)} entries; the chain of hashes holds")
