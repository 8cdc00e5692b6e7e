"""A bundle on disk: a folder with `manifest.json` and the files it pins.

A bundle is written whole or not at all: into a folder beside its place, flushed, then renamed.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.reach import Reach
from market.folders import sync_folder
from market.whole_files import write_atomic
from models_registry.errors import BundleRejected
from models_registry.exports import sha256_of
from models_registry.manifest import (
    AUTOENCODER,
    DQN,
    FEATURE_NETWORK,
    LIQUIDITY,
    MANIFEST_FILE,
    REGIME,
    WIN,
    DecisionSpecLike,
    Golden,
    Manifest,
    encode,
)
from models_registry.runtime import Predictor, Seen, read_manifest
from models_registry.terms import check_hunting, cost_model, trade_plan

GOLDEN_FILE = "golden.npz"
GOLDEN_ROWS = 64

TOLERANCE_INT8 = {
    "latents": 0.25,
    "reconstruction_error": 0.05,
    "features": 0.25,
    "reach_below": 0.25,
    "reach_above": 0.25,
    "win_probability": 1e-4,
    "action_value": 0.1,
    "regime_probability": 1e-6,
}
"""Processors round INT8 layers differently by one step, a few hundredths of an output's spread, and what is predicted
passes several layers. Reconstruction errors and reaches are relative. What reads another model's outputs is checked
from the golden ones, not from recomputed ones: trees jump at their thresholds, and from the same inputs they agree to
rounding."""

TOLERANCE_FLOAT = {
    "latents": 1e-3,
    "reconstruction_error": 1e-3,
    "features": 1e-3,
    "reach_below": 1e-3,
    "reach_above": 1e-3,
    "win_probability": 1e-4,
    "action_value": 1e-3,
    "regime_probability": 1e-6,
}
"""fp32 and the plain versions differ between processors by the order of their sums only."""

RELATIVE = ("reconstruction_error", "reach_below", "reach_above")
"""Golden outputs whose differences are relative to them."""

GIVEN_BY = {
    "latents": AUTOENCODER,
    "reconstruction_error": AUTOENCODER,
    "features": FEATURE_NETWORK,
    "reach_below": LIQUIDITY,
    "reach_above": LIQUIDITY,
    "win_probability": WIN,
    "action_value": DQN,
    "regime_probability": REGIME,
}
"""The model that gives each golden output: by its format goes the tolerance."""


def write(
    folder: str | Path, manifest: Manifest, files: Mapping[str, Path | bytes], golden: Mapping[str, Any]
) -> Manifest:
    """Write a bundle to `folder`, which must not exist, and return its manifest with the golden outputs pinned.

    `files` are the files that the manifest's components pin, by plain name. `golden` are the golden inputs:
    `decision`, `windows`, `index`, `direction`, `kind`, `quality`; the outputs are computed here, through the
    exported files themselves. Raises `BundleRejected` when a component's file is missing or has another hash, and for
    a plan or costs that nobody can trade by.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists: a bundle is never overwritten")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _check_terms(folder, manifest)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        _write_file(partial / name, data)
    check_files(partial, manifest)
    with Predictor(partial, manifest) as predictor:
        data = _npz({**golden, **_golden_outputs(predictor, golden)})
    _write_file(partial / GOLDEN_FILE, data)
    pinned = Golden(file=GOLDEN_FILE, sha256=hashlib.sha256(data).hexdigest(), tolerance=_tolerance(manifest))
    manifest = msgspec.structs.replace(manifest, golden=pinned)
    _write_file(partial / MANIFEST_FILE, encode(manifest))
    sync_folder(partial)
    partial.rename(folder)
    sync_folder(folder.parent)
    return manifest


def rewrite_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Replace the manifest of a bundle atomically: the registry pins its version numbers this way."""
    folder = Path(folder)
    write_atomic(folder / MANIFEST_FILE, encode(manifest))


def verify(folder: str | Path, decision_spec: DecisionSpecLike | str | None) -> Manifest:
    """Check everything that can be checked before a bundle decides, and return its manifest.

    That is: the manifest can be read, its plan and costs can be traded by, every pinned file has its sha256, the
    bundle's DecisionSpec is `decision_spec` (a specification, or its id; None leaves it to the caller), and the
    golden outputs are reproduced within the declared tolerance on this processor. Raises `BundleRejected` with the
    first reason, and nothing else: what a bundle holds must not stop the worker that it is offered to.
    """
    folder = Path(folder)
    try:
        return _verified(folder, decision_spec)
    except BundleRejected:
        raise
    except Exception as error:
        raise BundleRejected(folder, f"its check failed: {type(error).__name__}: {error}") from error


def _verified(folder: Path, decision_spec: DecisionSpecLike | str | None) -> Manifest:
    manifest = read_manifest(folder)
    _check_spec(folder, manifest, decision_spec)
    _check_terms(folder, manifest)
    check_files(folder, manifest)
    golden = manifest.golden
    if golden is None:
        raise BundleRejected(folder, "it has no golden outputs")
    _check_file(folder, golden.file, golden.sha256)
    with Predictor(folder, manifest) as predictor:
        _check_golden(folder, predictor, golden)
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """`BundleRejected` unless every file that a component pins or serves is there with its sha256."""
    for name, component in manifest.components.items():
        for file, expected in component.files.items():
            _check_file(folder, file, expected)
        if component.served is not None and component.served not in component.files:
            raise BundleRejected(folder, f"{name} serves {component.served}, which the manifest does not pin")
        if component.served is None and component.fallback is None:
            raise BundleRejected(folder, f"{name} has neither a served file nor a fallback")


def _check_file(folder: Path, file: str, expected: str) -> None:
    if Path(file).name != file:
        raise BundleRejected(folder, f"{file!r} is not a plain file name")
    if not (folder / file).is_file():
        raise BundleRejected(folder, f"{file} is missing")
    actual = sha256_of(folder / file)
    if actual != expected:
        raise BundleRejected(folder, f"{file} has sha256 {actual[:12]}…, the manifest pins {expected[:12]}…")


def _check_spec(folder: Path, manifest: Manifest, spec: DecisionSpecLike | str | None) -> None:
    if spec is None:
        return
    wanted = spec if isinstance(spec, str) else spec.id
    if manifest.decision_spec.id != wanted:
        raise BundleRejected(folder, f"its DecisionSpec is {manifest.decision_spec.id}, not {wanted}")
    if not isinstance(spec, str) and list(spec.names) != manifest.decision_spec.names:
        raise BundleRejected(folder, f"its DecisionSpec {wanted} has other columns than the one of that name here")


def _check_terms(folder: Path, manifest: Manifest) -> None:
    try:
        trade_plan(manifest.plan)
        cost_model(manifest.costs)
        check_hunting(manifest.hunting)
    except ValueError as error:
        raise BundleRejected(folder, str(error)) from error


def _check_golden(folder: Path, predictor: Predictor, golden: Golden) -> None:
    """The outputs for the golden inputs are the golden outputs; models may fail in any way on inputs of theirs."""
    try:
        differences = golden_differences(predictor, golden_arrays(folder / golden.file))
    except ValueError as error:
        raise BundleRejected(folder, str(error)) from error
    except Exception as error:
        raise BundleRejected(folder, f"its golden outputs cannot be computed: {error}") from error
    for name, worst in differences.items():
        if name not in golden.tolerance:
            raise BundleRejected(folder, f"it declares no tolerance for golden {name}")
        if worst > golden.tolerance[name]:
            raise BundleRejected(
                folder, f"golden {name} differs by {worst:.3g}, more than the tolerance {golden.tolerance[name]:g}"
            )


def golden_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Golden inputs and outputs by name."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def golden_differences(predictor: Predictor, golden: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The largest difference of what `predictor` gives for the golden inputs to each golden output.

    Those of `RELATIVE` are relative; a value that is known on one side only makes it infinite. Raises `ValueError` for
    outputs that are empty or of another shape.
    """
    found = {}
    for name, values in _golden_outputs(predictor, golden, _seen(predictor, golden)).items():
        expected = golden[name]
        if not values.size:
            raise ValueError(f"golden {name} is empty and proves nothing")
        if values.shape != expected.shape:
            raise ValueError(f"golden {name} is {expected.shape}, its inputs give {values.shape}")
        difference = np.abs(values.astype(np.float64) - expected)
        if name in RELATIVE:
            difference /= np.maximum(np.abs(expected), 1e-6)
        unknown = np.isnan(values) != np.isnan(expected)
        found[name] = np.inf if unknown.any() else float(np.nanmax(difference, initial=0.0))
    return found


def _golden_outputs(
    predictor: Predictor, golden: Mapping[str, NDArray[Any]], seen: Seen | None = None
) -> dict[str, NDArray[np.float32]]:
    """The outputs for golden inputs; what reads the first stage's reads what is `seen` where that is given."""
    own = predictor.see(golden["decision"], golden["windows"])
    probability = predictor.score(
        golden["decision"],
        seen or own,
        golden["index"],
        golden["direction"],
        kind=golden["kind"],
        quality=golden["quality"],
    )
    found = {
        "latents": own.latents,
        "reconstruction_error": own.error,
        "features": own.features,
        "reach_below": own.reach.below,
        "reach_above": own.reach.above,
        "win_probability": probability,
        "action_value": predictor.act(golden["decision"], (seen or own).latents)[0],
    }
    regimes = predictor.regimes(golden["decision"], golden["windows"])
    return found if regimes is None else found | {"regime_probability": regimes.astype(np.float32)}


def _seen(predictor: Predictor, golden: Mapping[str, NDArray[Any]]) -> Seen:
    """The first stage's golden outputs."""
    reach = Reach(predictor.quantiles, golden["reach_below"], golden["reach_above"])
    return Seen(golden["latents"], golden["reconstruction_error"], golden["features"], reach)


def _tolerance(manifest: Manifest) -> dict[str, float]:
    def of(name: str) -> Mapping[str, float]:
        part = manifest.components.get(GIVEN_BY[name])
        return TOLERANCE_INT8 if part is not None and part.format == "tflite_int8" else TOLERANCE_FLOAT

    return {name: of(name)[name] for name in GIVEN_BY}


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
