"""The demo from beginning to end: what happens in which order, and what must have happened."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from rich.markup import escape

from market.bars import MINUTE_MS
from models_registry.server import MlflowServer
from perpforge.demo.building import (
    BUNDLE,
    DATA,
    FEATURES,
    LABELS,
    MODELS,
    SECOND_HOLDOUT_HOURS,
    Building,
    GateVerdict,
    gate_differs,
)
from perpforge.demo.live import DemoStepMissing, LiveMarket
from perpforge.demo.plan import DemoPlan, keep_for_later
from perpforge.demo.report import bundle_report, read_trades
from perpforge.demo.summary import Summary, show
from perpforge.home import DAGSTER_PORT, MLFLOW_PORT, WORKER_PORT, holding, start_clean
from perpforge.processes import interruptible
from perpforge.terminal import Stages, output_to

OVERRIDE = "demo"
"""The reason in the ledger when the demo promotes a bundle that the gate refused."""
SLOW_SPEED = 60.0
"""Simulated seconds a second while the second bundle is trained: waves keep coming, the market is not used up."""
SWAP_TIMEOUT_S = 60.0
AFTER_SWAP_MS = 60 * MINUTE_MS
"""How long the second bundle trades before the demo ends."""
INTERRUPTED = 130


def run_demo(plan: DemoPlan, summary_file: Path | None) -> int:
    """Run the demo; returns the exit code: 0, or 1 when a step did not happen, 130 after Ctrl-C."""
    with holding(plan.home):
        start_clean(plan.home)
        os.environ.setdefault("MPLCONFIGDIR", str(plan.home / "matplotlib"))
        with output_to(plan.home / "logs" / "demo.log") as console:
            try:
                with interruptible(), Stages(console) as stages:
                    summary = _Demo(plan, stages).run()
            except KeyboardInterrupt:
                console.print("interrupted: everything that was started has been ended")
                return INTERRUPTED
            except Exception as error:  # noqa: BLE001 - the last stop: a line on the screen, the trace in the log, code 1
                traceback.print_exc()
                console.print(f"[red]the demo failed:[/red] {escape(str(error))}", highlight=False)
                console.print(f"the logs: {plan.home / 'logs'}")
                return 1
            show(summary, console)
            if summary_file is not None:
                summary.write(summary_file)
    return 0


class _Demo:
    """The stages, in order."""

    def __init__(self, plan: DemoPlan, stages: Stages) -> None:
        self.plan, self.stages = plan, stages

    def run(self) -> Summary:
        """Everything, with nothing left running."""
        with ExitStack() as running:
            mlflow = MlflowServer(self.plan.home / "mlflow")
            # It takes a while to start, and is not needed before the models are trained. Stopped twice: at once, so
            # that its start does not hold an interruption up, and once more when no start is under way.
            running.callback(mlflow.stop)
            starter = running.enter_context(ThreadPoolExecutor(1, "mlflow"))
            running.callback(mlflow.stop)
            started = starter.submit(mlflow.start)
            building = Building(self.plan, mlflow.url)
            first = self._first_bundle(building, started)
            live = LiveMarket(self.plan, mlflow.url)
            running.callback(live.stop)
            self._go_live(live)
            second, override = self._second_bundle(building, live)
            swap_ms, missed = self._swap(live, second.version)
            with self.stages.stage("stop", "stop the worker and the exchange"):
                now_ms = int(live.clock()["minute_ms"])
                live.stop()
                keep_for_later(self.plan, now_ms)
            return self._summarise(building, [(first, None), (second, override)], swap_ms, missed)

    def _first_bundle(self, building: Building, mlflow: Future[MlflowServer]) -> GateVerdict:
        days = self.plan.history_days
        steps: list[tuple[str, str, tuple[str, ...], list[str] | None]] = [
            ("ingest", f"ingest {len(days)} days of klines", DATA, days),
            ("features", "compute features", FEATURES, days),
            ("labels", "label candidates", LABELS, None),
            ("train", "train and quantise the models", MODELS, None),
        ]
        for name, description, selection, chosen in steps:
            with self.stages.stage(name, description) as stage:
                building.run(selection, stage, days=chosen)
        with self.stages.stage("promote", "register, evaluate, promote") as stage:
            mlflow.result()
            building.run(BUNDLE, stage)
        verdict = building.verdict()
        if not verdict.promoted:
            raise DemoStepMissing(f"the first bundle was not promoted: {'; '.join(verdict.reasons)}")
        return verdict

    def _go_live(self, live: LiveMarket) -> None:
        with self.stages.stage("worker", "start the exchange and the worker"):
            live.start_exchange()
            live.set_clock(speed=None, pause_at_ms=self.plan.learn_ms)
            live.start_worker()
        with self.stages.stage("live", f"trade {len(self.plan.live_days)} days live") as stage:
            live.run_until(self.plan.learn_ms, _live_progress(stage.update))

    def _second_bundle(self, building: Building, live: LiveMarket) -> tuple[GateVerdict, str | None]:
        """Learn from the live days while the worker trades on; returns the verdict and the override, if any."""
        live.set_clock(speed=SLOW_SPEED, pause_at_ms=None)
        days = self.plan.live_days
        with self.stages.stage("relearn", "ingest the live days and their labels") as stage:
            building.run(DATA, stage, days=days, source=f"rest:{live.exchange_url}")
            building.run(FEATURES, stage, days=days)
            building.run(LABELS, stage)
        if not building.count("SELECT count(*) FROM labels WHERE source = 'live'"):
            raise DemoStepMissing("no live label came back into the lake")
        with self.stages.stage("retrain", "train the second bundle") as stage:
            building.run(MODELS, stage, holdout_hours=SECOND_HOLDOUT_HOURS, go_on=True)
        with self.stages.stage("gate", "judge it against the champion") as stage:
            building.run(BUNDLE, stage, holdout_hours=SECOND_HOLDOUT_HOURS)
            verdict = building.verdict()
            override = None if verdict.promoted else OVERRIDE
            if override is not None:
                building.registry.promote(verdict.version, override, "demo", {"override": True})
        return verdict, override

    def _swap(self, live: LiveMarket, version: str) -> tuple[float, int]:
        """Wait for the swap and an hour of market after it; returns its pause in ms and the waves missed so far."""
        with self.stages.stage("swap", "hot-swap the running worker") as stage:
            stage.update(0.1, f"waiting for bundle {version}")
            status = live.await_bundle(version, SWAP_TIMEOUT_S)
            swapped = next(swap for swap in status["swaps"] if swap["version"] == version)
            until = int(status["wave_ms"]) + 1 + AFTER_SWAP_MS
            if self.plan.end_ms is not None:
                until = min(until, self.plan.end_ms)
            live.set_clock(speed=None, pause_at_ms=until)
            live.run_until(until, _live_progress(stage.update))
            missed = int(live.status()["waves_missed"])
            if missed:
                raise DemoStepMissing(f"the worker missed {missed} waves: the swap was to cost none")
            return float(swapped["pause_s"]) * 1e3, missed

    def _summarise(
        self, building: Building, bundles: list[tuple[GateVerdict, str | None]], swap_ms: float, missed: int
    ) -> Summary:
        manifests = [building.manifest(verdict.version) for verdict, _ in bundles]
        reports = tuple(
            bundle_report(manifest, verdict, override)
            for manifest, (verdict, override) in zip(manifests, bundles, strict=True)
        )
        if not reports[-1].live_labels:
            raise DemoStepMissing("the second bundle learnt from no live label")
        trades = read_trades(self.plan.home / "worker" / "journal")
        if not trades.signals or not trades.opened:
            raise DemoStepMissing(f"the worker gave {trades.signals} signals and opened {trades.opened} positions")
        return Summary(
            market=self.plan.market,
            edge=self.plan.edge,
            seed=self.plan.seed,
            symbols=len(self.plan.symbols),
            bars=building.count("SELECT count(*) FROM klines"),
            features=len(manifests[0].decision_spec.names),
            models=reports[0].models,
            bundles=reports,
            gate={name: f"{value} in place of {usual}" for name, (value, usual) in gate_differs().items()},
            signals=trades.signals,
            positions=trades.opened,
            outcomes=trades.outcomes,
            mean_r=trades.mean_r,
            live_labels=building.count("SELECT count(*) FROM labels WHERE source = 'live'"),
            swap_ms=swap_ms,
            waves=trades.waves,
            waves_missed=missed,
            stages=self.stages.seconds,
            pages=_pages(self.plan.home),
        )


def _live_progress(update: Callable[[float, str], None]) -> Callable[[float, dict[str, object]], None]:
    began, first = time.monotonic(), -1

    def report(share: float, status: dict[str, object]) -> None:
        nonlocal first
        minutes = int(str(status["minutes"]))
        first = minutes if first < 0 else first
        rate = (minutes - first) / max(time.monotonic() - began, 0.1)
        update(share, f"{status['waves']} waves, {status['signals_total']} signals, {rate:.0f} minutes/s")

    return report


def _pages(home: Path) -> dict[str, str]:
    """How each page is opened, once the demo has ended."""
    default = home == Path(".perpforge/demo").absolute()
    up = "make up" if default else f".venv/bin/perpforge up --home {os.path.relpath(home)}"
    return {
        "Pages": f"{up} starts all three on what this demo left, and goes on with its market until Ctrl-C",
        "Dagster": f"http://127.0.0.1:{DAGSTER_PORT}",
        "MLflow": f"http://127.0.0.1:{MLFLOW_PORT}",
        "Worker": f"http://127.0.0.1:{WORKER_PORT}",
    }
