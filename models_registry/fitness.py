"""Whether a bundle may decide at all: its files, its served formats, and how long a wave takes it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from models_registry.bundle import verify
from models_registry.convert import INT8
from models_registry.errors import BundleRejected
from models_registry.gate_rules import Fitness
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, DecisionSpecLike, Manifest
from models_registry.quantised_decisions import unfit
from models_registry.runtime import Predictor
from models_registry.training_set import TrainingSet

NETWORKS = (AUTOENCODER, FEATURE_NETWORK, LIQUIDITY, DQN)
WAVE_ROWS = 200
"""Symbols of a wave, as many as are followed live."""
REPEATS = 20


def integrity(folder: str | Path, decision_spec: DecisionSpecLike) -> str | None:
    """Why the bundle in `folder` is not whole, as `bundle.verify` finds; None when it is."""
    try:
        verify(folder, decision_spec)
    except BundleRejected as rejected:
        return rejected.reason
    return None


def unfit_formats(manifest: Manifest) -> dict[str, str]:
    """The models whose served format did not pass the parity gate when it was made, with the reason.

    A model without a table of formats was not converted: there is nothing that it could differ from.
    """
    found = {}
    for name, component in manifest.components.items():
        if component.served is None or not component.formats:
            continue
        report = component.formats.get(component.format or "")
        if report is None:
            found[name] = f"it serves {component.format}, which was never compared with the original"
        elif not report.passed:
            found[name] = f"{component.format} did not pass: {report.failed or 'no reason was kept'}"
    return found


def unquantised(manifest: Manifest) -> dict[str, str]:
    """The networks of a bundle without an INT8 file that passed its parity gate, with the reason.

    That a file which passed is slower than fp32, and so is not served, is no fault.
    """
    found = {}
    for name in NETWORKS:
        component = manifest.components.get(name)
        report = None if component is None else component.formats.get(INT8)
        if component is None:
            found[name] = "it is not in the bundle"
        elif report is None:
            found[name] = component.fallback or "it was not converted"
        elif not report.passed:
            found[name] = report.failed or "no reason was kept"
    return found


def latency_ms(predictor: Predictor, rows: TrainingSet, repeats: int = REPEATS) -> float:
    """The least time (ms) of `repeats` that one wave of `WAVE_ROWS` rows, a candidate each, takes the bundle.

    The wave is made of the set's first rows, again and again where they are fewer. Raises `ValueError` for an empty
    set.
    """
    if not len(rows):
        raise ValueError("a wave of no rows takes no time")
    at = np.resize(np.arange(min(len(rows), WAVE_ROWS)), WAVE_ROWS)
    decision, windows, index = rows.decision[at], rows.windows[at], np.arange(WAVE_ROWS, dtype=np.int64)
    least = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        if predictor.regime_predictor is not None:
            predictor.regimes(decision, windows)
        predictor.predict(decision, windows, index, rows.direction[at], kind=rows.kind[at], quality=rows.quality[at])
        least = min(least, time.perf_counter() - began)
    return float(least) * 1e3


def fitness(predictor: Predictor, rows: TrainingSet) -> Fitness:
    """Parity and latency of a bundle whose files are whole."""
    return Fitness(
        unfit_formats=unfit_formats(predictor.manifest),
        unfit_decisions=unfit(predictor.manifest.quantised),
        latency_ms=latency_ms(predictor, rows),
        latency_rows=WAVE_ROWS,
    )
