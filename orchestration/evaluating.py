"""The walk-forward evaluation of the models, kept in the lake fold by fold."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from market.lake import Lake
from models_registry.manifest import encode
from models_registry.opportunities import Opportunities
from models_registry.structure_autoencoder import Progress
from models_registry.training_config import TrainingConfig
from models_registry.training_set import TrainingSet
from models_registry.walk_forward import Evaluating, FoldResult, ModelEvaluation, WalkForward, evaluation_key, walk
from orchestration.artifacts import get_folder, put_folder


def path_of(key: str) -> str:
    """Where an evaluation lies in the lake; its folds lie in the folder of that name.

    >>> path_of("0123")
    'evaluations/models-0123.json'
    """
    return f"evaluations/models-{key}.json"


def evaluate_models(
    lake: Lake,
    rows: TrainingSet,
    opportunities: Opportunities | None,
    config: TrainingConfig,
    plan: WalkForward,
    trials: int,
    progress: Progress,
) -> ModelEvaluation:
    """Judge the models on every fold that is not in the lake already, and keep the whole."""
    key = evaluation_key(rows, opportunities, config, plan)
    folder = path_of(key).removesuffix(".json")

    def known(name: str) -> FoldResult | None:
        path = f"{folder}/{name}.json"
        return msgspec.json.decode(lake.get_bytes(path), type=FoldResult) if lake.exists(path) else None

    def keep(name: str, result: FoldResult) -> None:
        lake.put_bytes(f"{folder}/{name}.json", encode(result))

    links = _Links(lake, f"{folder}/links")
    with tempfile.TemporaryDirectory(prefix="evaluation-") as work:
        running = Evaluating(
            rows,
            opportunities,
            config,
            plan,
            Path(work),
            progress,
            keep_link=links.keep,
            fetch_link=links.fetch,
        )
        found = walk(running, trials, known, keep)
    lake.put_bytes(path_of(key), encode(found))
    links.discard()
    return found


class _Links:
    """The models that the next fold goes on from, kept while the evaluation is under way."""

    def __init__(self, lake: Lake, at: str) -> None:
        self._lake = lake
        self._at = at

    def keep(self, folder: Path) -> None:
        """Keep every model's folder in `folder`; the list of them comes last."""
        models = sorted(each.name for each in folder.iterdir() if each.is_dir())
        for model in models:
            put_folder(self._lake, f"{self._at}/{folder.name}/{model}", folder / model)
        self._lake.put_bytes(self._list_of(folder), msgspec.json.encode(models))

    def fetch(self, folder: Path) -> bool:
        """Bring to `folder` what was kept by its name; whether anything was."""
        path = self._list_of(folder)
        data = self._lake.get_bytes(path) if self._lake.exists(path) else b""
        for model in msgspec.json.decode(data, type=list[str]) if data else ():
            get_folder(self._lake, f"{self._at}/{folder.name}/{model}", folder / model)
        return bool(data)

    def discard(self) -> None:
        """The evaluation is whole: leave nothing but empty files."""
        for path in self._lake.list(self._at):
            self._lake.put_bytes(path, b"")

    def _list_of(self, folder: Path) -> str:
        return f"{self._at}/{folder.name}.json"
