"""`perpforge bundle`: look at the registered bundles and move the champion."""

from __future__ import annotations

import getpass
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from models_registry.registry import Registry

bundle_app = typer.Typer(no_args_is_help=True, help="Look at the registered bundles and move the champion.")

TrackingUri = Annotated[str, typer.Option("--mlflow", envvar="MLFLOW_TRACKING_URI", help="the MLflow server")]
LedgerFile = Annotated[Path, typer.Option("--ledger", envvar="LEDGER_PATH", help="the ledger of champions")]
Version = Annotated[str, typer.Argument(help="a version number, champion or challenger")]
Reason = Annotated[str, typer.Option("--reason", prompt=True, help="why; it is kept in the ledger")]

DEFAULT_URI = "http://127.0.0.1:5000"
DEFAULT_LEDGER = Path(".perpforge/registry/ledger.jsonl")


def _registry(uri: str, ledger: Path) -> Registry:
    from models_registry.registry import Registry

    return Registry(uri, ledger)


def _resolve(registry: Registry, version: str) -> str:
    if version not in ("champion", "challenger"):
        return version
    found = registry.champion() if version == "champion" else registry.challenger()
    if found is None:
        raise typer.BadParameter(f"there is no {version}")
    return found


@bundle_app.command("list")
def list_bundles(uri: TrackingUri = DEFAULT_URI, ledger: LedgerFile = DEFAULT_LEDGER) -> None:
    """Every registered bundle, the newest first."""
    from rich.console import Console
    from rich.table import Table

    from market.errors import utc

    table = Table()
    for column in ("version", "registered", "aliases", "run"):
        table.add_column(column)
    for bundle in _registry(uri, ledger).list():
        table.add_row(bundle.version, utc(bundle.created_ms), ", ".join(bundle.aliases), bundle.run_id)
    Console().print(table)


@bundle_app.command()
def show(
    version: Version = "champion",
    as_json: Annotated[bool, typer.Option("--json", help="print the manifest as it is")] = False,
    uri: TrackingUri = DEFAULT_URI,
    ledger: LedgerFile = DEFAULT_LEDGER,
) -> None:
    """The manifest of a bundle."""
    from models_registry.manifest import MANIFEST_FILE, decode

    registry = _registry(uri, ledger)
    with tempfile.TemporaryDirectory() as folder:
        data = (registry.download(_resolve(registry, version), Path(folder) / "bundle") / MANIFEST_FILE).read_bytes()
    if as_json:
        typer.echo(data.decode())
        return
    manifest = decode(data)
    typer.echo(f"bundle {manifest.bundle_version}, DecisionSpec {manifest.decision_spec.id}, parent {manifest.parent}")
    for name, component in manifest.components.items():
        served = component.served or f"fallback: {component.fallback}"
        typer.echo(f"  {name} {component.version}: {served}")
        for metric, score in component.metrics.items():
            typer.echo(f"    {metric} {score.value} ({score.baseline_name} {score.baseline}, 95 % {score.interval})")


@bundle_app.command()
def verify(version: Version = "champion", uri: TrackingUri = DEFAULT_URI, ledger: LedgerFile = DEFAULT_LEDGER) -> None:
    """Download a bundle and check its hashes, DecisionSpec and golden outputs."""
    from models_registry.errors import BundleRejected
    from models_registry.registry import verify_bundle

    registry = _registry(uri, ledger)
    resolved = _resolve(registry, version)
    with tempfile.TemporaryDirectory() as folder:
        try:
            verify_bundle(registry.download(resolved, Path(folder) / "bundle"))
        except BundleRejected as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error
    typer.echo(f"bundle {resolved} is whole")


@bundle_app.command()
def promote(
    version: Version, reason: Reason, uri: TrackingUri = DEFAULT_URI, ledger: LedgerFile = DEFAULT_LEDGER
) -> None:
    """Make a bundle the champion by hand; the ledger shows it as an override."""
    registry = _registry(uri, ledger)
    entry = registry.promote(_resolve(registry, version), reason, getpass.getuser())
    typer.echo(f"champion is {entry.version}, before {entry.previous}")


@bundle_app.command()
def rollback(reason: Reason, uri: TrackingUri = DEFAULT_URI, ledger: LedgerFile = DEFAULT_LEDGER) -> None:
    """Give the champion back to the one before."""
    entry = _registry(uri, ledger).rollback(reason, getpass.getuser())
    typer.echo(f"champion is {entry.version}, before {entry.previous}")
