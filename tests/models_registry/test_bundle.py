from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models_registry import bundle
from models_registry.assembling import TrainedBundle, golden_inputs
from models_registry.errors import BundleRejected
from models_registry.exports import sha256_of
from models_registry.manifest import AUTOENCODER, WIN, decode, encode
from models_registry.runtime import Predictor, Seen, read_manifest
from models_registry.training_set import TrainingSet
from tests.models_registry import planted


@dataclass(frozen=True)
class Spec:
    id: str = planted.SPEC_ID
    names: tuple[str, ...] = planted.NAMES


@pytest.fixture
def folder(trained: TrainedBundle, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(trained.folder, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_a_bundle_as_it_was_written_is_accepted(trained: TrainedBundle) -> None:
    assert bundle.verify(trained.folder, Spec()) == trained.manifest
    assert bundle.verify(trained.folder, planted.SPEC_ID) == trained.manifest
    assert bundle.verify(trained.folder, None) == trained.manifest


def test_the_manifest_is_stable_json(trained: TrainedBundle) -> None:
    data = (trained.folder / "manifest.json").read_bytes()
    assert encode(decode(data)) == data


@pytest.mark.parametrize("file", ["structure_autoencoder.int8.tflite", "win_classifier.onnx", "golden.npz"])
def test_one_changed_byte_is_refused(folder: Path, file: str) -> None:
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / file).write_bytes(data)
    with pytest.raises(BundleRejected, match=f"{file} has sha256"):
        bundle.verify(folder, Spec())


@pytest.mark.parametrize("file", ["win_classifier.onnx", "golden.npz", "win_classifier.ubj"])
def test_a_missing_file_is_refused(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(BundleRejected, match=f"{file} is missing"):
        bundle.verify(folder, Spec())


def test_another_decision_spec_is_refused(folder: Path) -> None:
    with pytest.raises(BundleRejected, match="DecisionSpec is decision-test-1, not other"):
        bundle.verify(folder, "other")
    with pytest.raises(BundleRejected, match="has other columns"):
        bundle.verify(folder, Spec(names=planted.NAMES[::-1]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content["components"][WIN].update(file="../win.onnx"), "does not pin"),
        (lambda content: content["components"][WIN].update(files={"../x": "0"}), "not a plain file name"),
        (lambda content: content["components"][WIN].update(file=None), "neither a served file nor a fallback"),
        (lambda content: content["components"][WIN]["parameters"].update(trees="many"), "parameters of win_classifier"),
        (lambda content: content["components"][WIN]["parameters"]["centre"]["decision"].pop(), "its centre is missing"),
        (lambda content: content.update(golden=None), "no golden outputs"),
        (lambda content: content.update(schema=99), "schema 99"),
        (lambda content: content.update(surprise=1), "unknown field"),
        (lambda content: content.pop("training"), "missing required field"),
        (lambda content: content["decision_spec"]["names"].pop(), "columns, its manifest says"),
        (lambda content: content["plan"].pop("target_atr"), "its plan says horizon_minutes, stop_atr; a plan is"),
        (lambda content: content["plan"].update(trail_atr=1.0), "its plan says"),
        (lambda content: content["plan"].update(stop_atr=-1.0), "stop_atr -1, which is no distance"),
        (lambda content: content["plan"].update(target_atr=0.0), "target_atr 0, which is no distance"),
        (lambda content: content["plan"].update(horizon_minutes=0), "a horizon of 0 minutes"),
        (lambda content: content["plan"].update(horizon_minutes=30.5), "a horizon of 30.5 minutes"),
        (lambda content: content["plan"].update(horizon_minutes=1e300), r"a horizon of 1e\+300 minutes"),
        (lambda content: content["costs"].update(taker=1.0), "its costs name taker; costs are"),
        (lambda content: content["costs"].update(fee_bps=-1.0), "fee_bps -1, which is no share"),
        (lambda content: content["costs"].update(slippage_bps=1e5), "slippage_bps 100000, which is no share"),
        (lambda content: content["golden"]["tolerance"].pop("latents"), "no tolerance for golden latents"),
    ],
)
def test_a_manifest_that_promises_something_else_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    edit(folder, change)
    with pytest.raises(BundleRejected, match=reason):
        bundle.verify(folder, planted.SPEC_ID)


def test_a_torn_manifest_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BundleRejected, match="cannot be read"):
        bundle.verify(folder, Spec())


@pytest.mark.parametrize("output", ["latents", "reconstruction_error", "win_probability"])
def test_other_outputs_than_the_golden_ones_are_refused(folder: Path, output: str) -> None:
    with np.load(folder / "golden.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays[output] = arrays[output] + np.float32(0.6)
    np.savez(folder / "golden.npz", **arrays)
    edit(folder, lambda content: content["golden"].update(sha256=sha256_of(folder / "golden.npz")))
    with pytest.raises(BundleRejected, match="differs by"):
        bundle.verify(folder, Spec())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda arrays: arrays.update(latents=arrays["latents"][:1]), "golden"),
        (lambda arrays: arrays.update(win_probability=arrays["win_probability"][:1]), r"is \(1,\), its inputs give"),
        (
            lambda arrays: arrays.update(win_probability=arrays["win_probability"].astype(str)),
            "golden outputs cannot be computed",
        ),
        (lambda arrays: arrays.update(windows=arrays["windows"][:, :-1]), "cannot be computed: windows are"),
        (lambda arrays: arrays.update(index=arrays["index"] + 10_000), "cannot be computed"),
        (lambda arrays: arrays.update({name: arrays[name][:0] for name in arrays}), "proves nothing"),
        (lambda arrays: arrays.pop("direction"), "cannot be computed"),
    ],
)
def test_golden_arrays_that_the_models_cannot_take_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    with np.load(folder / "golden.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    change(arrays)
    np.savez(folder / "golden.npz", **arrays)
    edit(folder, lambda content: content["golden"].update(sha256=sha256_of(folder / "golden.npz")))
    with pytest.raises(BundleRejected, match=reason):
        bundle.verify(folder, Spec())


def test_a_manifest_that_nests_without_end_is_refused(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    deep = "[" * 100_000 + "]" * 100_000
    (folder / "manifest.json").write_text(text.replace('"parameters": {', f'"parameters": {{"deep": {deep}, ', 1))
    with pytest.raises(BundleRejected, match="cannot be read"):
        bundle.verify(folder, Spec())


def test_whatever_fails_while_a_bundle_is_checked_is_a_refusal(
    trained: TrainedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Predictor, folder: Path, manifest: object) -> None:
        raise ZeroDivisionError("the runtime's own")

    monkeypatch.setattr(Predictor, "__init__", broken)
    with pytest.raises(BundleRejected, match="ZeroDivisionError: the runtime's own"):
        bundle.verify(trained.folder, Spec())


def test_a_bundle_that_nobody_can_trade_by_is_not_written(
    trained: TrainedBundle, planted_set: TrainingSet, tmp_path: Path
) -> None:
    manifest = msgspec.structs.replace(trained.manifest, plan={"stop_atr": 1.0})
    with pytest.raises(BundleRejected, match="its plan says"):
        bundle.write(tmp_path / "new", manifest, {}, golden_inputs(planted_set))
    assert not (tmp_path / "new").exists()


def test_a_model_that_cannot_be_loaded_is_refused(folder: Path) -> None:
    (folder / "win_classifier.onnx").write_bytes(b"not a model" * 500)
    pin = sha256_of(folder / "win_classifier.onnx")
    edit(folder, lambda content: content["components"][WIN]["files"].update({"win_classifier.onnx": pin}))
    with pytest.raises(BundleRejected, match=r"win_classifier\.onnx cannot be loaded"):
        bundle.verify(folder, Spec())


@pytest.mark.parametrize(("off", "accepted"), [(0.1, True), (0.4, False)])
def test_how_another_processor_rounds_is_accepted_and_no_more(
    trained: TrainedBundle, monkeypatch: pytest.MonkeyPatch, off: float, accepted: bool
) -> None:
    see = Predictor.see

    def rounded(self: Predictor, decision: np.ndarray, windows: np.ndarray) -> Seen:
        seen = see(self, decision, windows)
        return replace(seen, latents=seen.latents + np.float32(off), error=seen.error * np.float32(1.01))

    monkeypatch.setattr(Predictor, "see", rounded)
    if accepted:
        bundle.verify(trained.folder, Spec())
    else:
        with pytest.raises(BundleRejected, match=r"golden latents differs by 0\.4"):
            bundle.verify(trained.folder, Spec())


def test_a_bundle_is_never_overwritten(trained: TrainedBundle, planted_set: TrainingSet) -> None:
    with pytest.raises(FileExistsError, match="never overwritten"):
        bundle.write(trained.folder, trained.manifest, {}, golden_inputs(planted_set))


def test_a_bundle_whose_files_differ_from_its_manifest_is_not_written(
    trained: TrainedBundle, planted_set: TrainingSet, tmp_path: Path
) -> None:
    files = {file: b"wrong" for part in trained.manifest.components.values() for file in part.files}
    with pytest.raises(BundleRejected, match="sha256"):
        bundle.write(tmp_path / "new", trained.manifest, files, golden_inputs(planted_set))
    assert not (tmp_path / "new").exists()


def test_rewriting_the_manifest_keeps_the_bundle_whole(folder: Path) -> None:
    manifest = msgspec.structs.replace(read_manifest(folder), bundle_version="12")
    bundle.rewrite_manifest(folder, manifest)
    assert bundle.verify(folder, Spec()).bundle_version == "12"
    assert not list(folder.glob(".*"))


def test_the_manifest_names_what_it_holds(trained: TrainedBundle) -> None:
    manifest = trained.manifest
    assert set(manifest.components) == {AUTOENCODER, WIN}
    assert manifest.fallbacks == {}
    for part in manifest.components.values():
        assert part.headline in part.metrics
        assert part.served in part.files
        assert part.version == part.files[part.served][:12]
    assert set(manifest.components[AUTOENCODER].formats) == {"tflite_int8", "tflite_fp32", "tflite_int8_io"}
