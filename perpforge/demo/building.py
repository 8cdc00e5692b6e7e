"""The building half of the demo: the Dagster assets, materialised in this process and kept for the Dagster UI."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpforge.demo.plan import DemoPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models_registry.manifest import Manifest
    from models_registry.registry import Registry
    from orchestration.run import Progress
    from perpforge.terminal import Stage

DATA = ("universe", "klines", "funding")
FEATURES = ("features",)
LABELS = ("labels", "live_labels", "training_set", "opportunities")
MODELS = (
    "starting_point",
    "structure_autoencoder",
    "feature_network",
    "liquidity_predictor",
    "win_classifier",
    "strategy_dqn",
)
BUNDLE = ("trading_bundle", "bundle_evaluation", "champion")

FIRST_HOLDOUT_HOURS = 6 * 24.0
"""The last days of history judge the first bundle."""
SECOND_HOLDOUT_HOURS = 24.0
"""The last live day judges both bundles; the live days before it are learnt from."""

SMALLER_GATE: dict[str, Any] = {"evidence": "not_worse", "fewest_positions": 60, "fewest_days": 0.75}
"""What the demo asks of its second bundle in place of the gate's defaults: it has one day to judge by, which shows
neither 300 positions in 5 days nor, as a rule, that one bundle is better than another."""
STRATEGY = "hybrid"
"""The strategy of the demo's worker, and so of the gate's replay: the default. By `self_learning` a network that has
found nothing, as on a market without an edge, would trade nothing and bring no labels to show the loop with."""


def gate_differs() -> dict[str, tuple[Any, Any]]:
    """The gate's settings that the demo changes, each with its default: shown, so that nobody takes them for those."""
    from orchestration.gate_settings import GateSettings

    return {name: (value, GateSettings.model_fields[name].default) for name, value in SMALLER_GATE.items()}


@dataclass(frozen=True)
class GateVerdict:
    """What the gate made of a bundle."""

    version: str
    promoted: bool
    rule: str
    reasons: tuple[str, ...]


class Building:
    """Materialises the graph stage by stage on the demo's folders."""

    def __init__(self, plan: DemoPlan, mlflow_url: str) -> None:
        self.plan = plan
        self._mlflow_url = mlflow_url
        self.said: dict[str, Mapping[str, Any]] = {}
        """What each asset said of itself when it was last materialised."""
        os.environ.update(plan.graph_environment)

    @property
    def lake(self) -> Path:
        """The lake's folder."""
        return self.plan.home / "lake"

    @property
    def registry(self) -> Registry:
        """The registry that the assets use."""
        from models_registry.registry import Registry

        return Registry(self._mlflow_url, self.plan.home / "registry" / "ledger.jsonl")

    def run(
        self,
        selection: tuple[str, ...],
        stage: Stage,
        *,
        days: list[str] | None = None,
        source: str | None = None,
        holdout_hours: float = FIRST_HOLDOUT_HOURS,
        go_on: bool = False,
    ) -> None:
        """Materialise `selection`, for `days` where it is cut into days, from `source` where it reads the market.

        With `go_on` the models continue from the champion's.
        """
        from orchestration.gate_settings import GateSettings
        from orchestration.jobs import CONTINUE
        from orchestration.resources import TrainingSettings
        from orchestration.run import materialise, resources

        made = materialise(
            selection,
            home=self.plan.home,
            resources=resources(
                self.plan.home,
                source=source or self.plan.source,
                tracking_uri=self._mlflow_url,
                training=TrainingSettings(seed=self.plan.seed, holdout_hours=holdout_hours, history_days=365),
                gate=GateSettings(**SMALLER_GATE, strategy_mode=STRATEGY),
            ),
            days=(days[0], days[-1]) if days else None,
            progress=_Follower(selection, stage),
            config=CONTINUE if go_on else None,
        )
        self.said |= made.metadata

    def verdict(self) -> GateVerdict:
        """What the gate said last."""
        said = self.said["champion"]
        reasons = tuple(line.removeprefix("- ") for line in str(said["reasons"]).splitlines())
        return GateVerdict(str(said["challenger"]), bool(said["promoted"]), str(said["rule"]), reasons)

    def manifest(self, version: str) -> Manifest:
        """The manifest of a registered bundle."""
        from models_registry.runtime import read_manifest

        with tempfile.TemporaryDirectory() as folder:
            return read_manifest(self.registry.download(version, Path(folder) / "bundle"))

    def count(self, sql: str) -> int:
        """One number of the lake."""
        from market.lake import Lake

        return int(Lake(str(self.lake)).query(sql).column(0)[0].as_py())


class _Follower:
    """Shows a run's events as the progress of a stage: the share of its assets that are done."""

    def __init__(self, selection: tuple[str, ...], stage: Stage) -> None:
        self._selection, self._stage, self._done = selection, stage, 0

    def __call__(self, progress: Progress) -> None:
        if progress.step in self._selection and progress.kind == "success":
            self._done += 1
        detail = f"{progress.step}: {progress.message}" if progress.kind == "log" else progress.step
        self._stage.update(self._done / len(self._selection), detail[:60])
