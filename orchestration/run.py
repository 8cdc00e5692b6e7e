"""Materialise assets from a program, in this process, with the run kept for the Dagster UI."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.gate_settings import GateSettings
from orchestration.resources import LakeResource, MarketResource, RegistryResource, TrainingSettings
from orchestration.sensors import RANGE_END, RANGE_START

SETTINGS = """\
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 1
python_logs:
  managed_python_loggers: [models_registry]
"""
"""`dagster.yaml` of a home folder: what the project's own says, with Dagster's own places below the folder."""

IN_PROCESS = (
    SETTINGS
    + """\
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""
)
"""For runs inside this process: what they print is the caller's, not to be captured by four further processes."""


_IN_PROCESS_FILE = "in_process.yaml"


@dataclass(frozen=True)
class Progress:
    """One thing that happened in a run. `kind` is `start`, `success` or `failure` of an asset or check, or `log`."""

    step: str
    kind: str
    message: str = ""


@dataclass(frozen=True)
class Materialised:
    """A run that succeeded."""

    run_id: str
    seconds: float
    metadata: Mapping[str, Mapping[str, Any]] = field(repr=False)
    """What each asset said of itself, plain values by asset and name; of a range of days, the last day's."""
    checks: Mapping[str, bool]


class MaterialisationFailed(Exception):
    """A run in which an asset failed or a blocking check did not pass; what was done before it stays done."""

    def __init__(self, run_id: str, step: str, reason: str) -> None:
        super().__init__(f"{step} failed: {reason}")
        self.run_id = run_id
        self.step = step
        self.reason = reason


def resources(
    home: str | Path,
    *,
    source: str,
    tracking_uri: str = "",
    until: str = "",
    universe_size: int = 200,
    training: TrainingSettings | None = None,
    gate: GateSettings | None = None,
) -> dict[str, object]:
    """Resources that keep everything below one folder.

    `source` is the market as `market.sources.open_source` takes it, `until` (ISO 8601, UTC) when it is now there.
    Without a `tracking_uri` each run starts an MLflow server of its own over `home`/mlflow.
    """
    home = Path(home).absolute()
    return {
        "lake": LakeResource(uri=str(home / "lake")),
        "market": MarketResource(source=source, until=until, universe_size=universe_size),
        "registry": RegistryResource(
            tracking_uri=tracking_uri, home=str(home / "mlflow"), ledger=str(home / "registry" / "ledger.jsonl")
        ),
        "training": training or TrainingSettings(),
        "gate": gate or GateSettings(),
    }


def instance(home: str | Path) -> dg.DagsterInstance:
    """The Dagster instance of a home folder: `DAGSTER_HOME` is its folder `dagster`. The caller closes it."""
    folder = Path(home).absolute() / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("dagster.yaml", SETTINGS), (_IN_PROCESS_FILE, IN_PROCESS)):
        if not (folder / name).exists():
            (folder / name).write_text(content)
    return dg.DagsterInstance.from_config(str(folder), _IN_PROCESS_FILE)


def materialise(
    selection: Sequence[str],
    *,
    home: str | Path,
    resources: Mapping[str, object] | None = None,
    days: tuple[str, str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Materialised:
    """Materialise assets by name, with their checks, and wait; `MaterialisationFailed` says which one failed and why.

    Ctrl-C ends the asset that is at work and comes out as `KeyboardInterrupt`, as it does anywhere else.

    Parameters
    ----------
    selection : names of assets; they run in the order of their dependencies.
    home : the run is kept in its folder `dagster`.
    resources : in place of the environment's, such as `resources` makes them.
    days : first and last day (YYYY-MM-DD), needed when an asset of the selection is cut into days.
    progress : told what happens, from the thread that runs.
    config : Dagster's configuration of the run, such as `jobs.CONTINUE`.
    """
    from orchestration.definitions import definitions
    from orchestration.resources import from_environment

    run_id = str(uuid.uuid4())
    began = time.monotonic()
    tags = {RANGE_START: days[0], RANGE_END: days[1]} if days else {}
    with instance(home) as kept:
        if progress is not None:
            kept.add_event_listener(run_id, _listener(progress))
        graph = definitions(from_environment() if resources is None else resources)
        result = graph.resolve_implicit_global_asset_job_def().execute_in_process(
            run_config={**(config or {}), "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=kept,
            asset_selection=[dg.AssetKey(name) for name in selection],
            run_id=run_id,
            tags=tags,
            raise_on_error=False,
        )
    if not result.success:
        if _interrupted(result.all_events):
            raise KeyboardInterrupt
        raise _failure(run_id, result.all_events)
    checks = {found.check_name: found.passed for found in result.get_asset_check_evaluations()}
    return Materialised(run_id, time.monotonic() - began, _metadata(result), checks)


_KINDS = {
    dg.DagsterEventType.STEP_START: "start",
    dg.DagsterEventType.STEP_SUCCESS: "success",
    dg.DagsterEventType.STEP_FAILURE: "failure",
}


def _listener(progress: Callable[[Progress], None]) -> Callable[[dg.EventLogEntry], None]:
    def listen(entry: dg.EventLogEntry) -> None:
        if entry.step_key is None:
            return
        if entry.dagster_event_type is None:
            progress(Progress(entry.step_key, "log", entry.user_message))
        elif entry.dagster_event_type in _KINDS:
            progress(Progress(entry.step_key, _KINDS[entry.dagster_event_type]))

    return listen


def _interrupted(events: Sequence[dg.DagsterEvent]) -> bool:
    """Whether a run ended by a signal: Dagster catches it, in an asset or between two, and calls it a failure."""
    reasons = {"error_source": "INTERRUPT", "failure_reason": "UNEXPECTED_TERMINATION"}
    return any(
        getattr(getattr(event.event_specific_data, name, None), "value", None) == reason
        for event in events
        for name, reason in reasons.items()
    )


def _failure(run_id: str, events: Sequence[dg.DagsterEvent]) -> MaterialisationFailed:
    """The first failure of a run: the innermost error of its step, or what the check that stopped it says."""
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.blocking:
                return MaterialisationFailed(run_id, check.check_name, check.description or "the check did not pass")
        if event.event_type in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
            error = getattr(event.event_specific_data, "error", None)
            while error is not None and error.cause is not None:
                error = error.cause
            reason = error.message.strip() if error is not None else str(event.message)
            return MaterialisationFailed(run_id, event.step_key or "the run", reason)
    return MaterialisationFailed(run_id, "the run", "it ended without a reason")


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for event in result.get_asset_materialization_events():
        materialization = event.materialization
        found[materialization.asset_key.to_user_string()] = {
            name: value.value for name, value in materialization.metadata.items()
        }
    return found
