"""Which of two candidates goes before the gate, and where the gate's window then begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models_registry.errors import NotEnoughData
from models_registry.training_set import TrainingSet
from orchestration import choosing
from orchestration.choosing import SHARE, chosen_until, put_up
from tests.models_registry import planted
from tests.orchestration.test_judging import Registry

HOUR = planted.HOUR
SEEN = planted.START + 10 * 24 * HOUR
"""When the last label was known that the bundles have seen."""


class Bundle:
    """A loaded bundle: what it is from, and how well it knows the rows."""

    def __init__(self, version: str, continued_from: str | None, log_loss: float, seen: int = SEEN) -> None:
        self.version, self.log_loss = version, log_loss
        self.manifest: Any = SimpleNamespace(
            components={"win": SimpleNamespace(provenance=SimpleNamespace(continued_from=continued_from))},
            training=SimpleNamespace(holdout_start_ms=seen - HOUR, last_known_at=seen),
            decision_spec=SimpleNamespace(id=planted.SPEC_ID),
        )

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Candidates:
    """Bundles by version, what they were put on, and a registry without a server."""

    def __init__(self, folder: Path, *bundles: Bundle) -> None:
        self.registry = Registry(folder)
        self.bundles = {bundle.version: bundle for bundle in bundles}
        self.put_on: dict[str, tuple[int, TrainingSet]] = {}

    def load(self, folder: Path) -> Bundle:
        return self.bundles[folder.name]

    def evaluate(self, bundle: Bundle, rows: TrainingSet, *, start_ms: int, fewest: int, **_: object) -> object:
        inside = rows.select(rows.decided_at >= start_ms)
        if len(inside) < fewest:
            raise NotEnoughData("the evaluation window", len(inside), fewest)
        self.put_on[bundle.version] = start_ms, inside
        return SimpleNamespace(rows=len(inside), log_loss=bundle.log_loss, expectancy=0.1)

    def put_up(self, version: str, rows: TrainingSet, folder: Path) -> str:
        return put_up(self.registry, version, folder / version, rows, 0.35, 7)


@pytest.fixture(scope="module")
def rows() -> TrainingSet:
    return planted.training_set(rows=4000, windows=10)


def candidates(monkeypatch: pytest.MonkeyPatch, folder: Path, *bundles: Bundle) -> Candidates:
    found = Candidates(folder, *bundles)
    monkeypatch.setattr(choosing.Predictor, "load", found.load)
    monkeypatch.setattr(choosing, "evaluate", found.evaluate)
    return found


@pytest.mark.parametrize(("new_loss", "winner", "loser"), [(0.60, "2", "1"), (0.62, "1", "2")])
def test_the_better_goes_before_the_gate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: TrainingSet, new_loss: float, winner: str, loser: str
) -> None:
    found = candidates(monkeypatch, tmp_path, Bundle("1", "0", 0.61), Bundle("2", None, new_loss))
    assert found.put_up("1", rows, tmp_path) == "1", "nothing waits"
    assert found.put_up("2", rows, tmp_path) == winner
    assert found.registry.challenger() == winner
    entry = found.registry.ledger.entries()[-1]
    assert entry.reason.startswith(f"chosen over version {loser}: log loss 0.6")
    assert entry.details["choice"]["expectancy"] == 0.1  # type: ignore[index]


def test_the_choice_is_made_before_the_gates_window(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: TrainingSet
) -> None:
    found = candidates(monkeypatch, tmp_path, Bundle("1", "0", 0.61, SEEN + HOUR), Bundle("2", None, 0.60))
    found.put_up("1", rows, tmp_path)
    found.put_up("2", rows, tmp_path)
    until = chosen_until(found.registry.ledger.entries(), "2")
    start = SEEN + HOUR + 1
    assert until == start + int(SHARE * (int(rows.decided_at[-1]) - start))
    for begun, inside in found.put_on.values():
        assert begun == start, "after what either has seen"
        assert inside.known_at.max() < until, "no outcome that the gate judges by"
        assert inside.decided_at.min() >= start
    assert np.array_equal(found.put_on["1"][1].decided_at, found.put_on["2"][1].decided_at)
    assert chosen_until(found.registry.ledger.entries(), "1") == 0


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (Bundle("1", "0", 0.5), Bundle("2", "0", 0.6), "both continued from a champion"),
        (Bundle("1", None, 0.5), Bundle("2", None, 0.6), "both are from scratch"),
        (Bundle("1", "0", 0.5, SEEN + 9 * 24 * HOUR), Bundle("2", None, 0.6), "not enough data"),
    ],
)
def test_without_a_choice_the_newer_takes_the_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: TrainingSet, old: Bundle, new: Bundle, why: str
) -> None:
    found = candidates(monkeypatch, tmp_path, old, new)
    found.put_up("1", rows, tmp_path)
    assert found.put_up("2", rows, tmp_path) == "2"
    entry = found.registry.ledger.entries()[-1]
    assert why in entry.reason
    assert chosen_until(found.registry.ledger.entries(), "2") == 0


def test_a_rival_that_is_gone_is_no_rival(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: TrainingSet) -> None:
    found = candidates(monkeypatch, tmp_path, Bundle("1", "0", 0.5), Bundle("2", None, 0.6))
    found.put_up("1", rows, tmp_path)
    found.registry.deleted.add("1")
    assert found.put_up("2", rows, tmp_path) == "2"


def test_the_champion_is_no_rival(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: TrainingSet) -> None:
    """Champion and challenger are the gate's to compare."""
    found = candidates(monkeypatch, tmp_path, Bundle("1", "0", 0.5), Bundle("2", None, 0.6))
    found.put_up("1", rows, tmp_path)
    found.registry.aliases["champion"] = "1"
    assert found.put_up("2", rows, tmp_path) == "2"
    assert found.put_on == {}
