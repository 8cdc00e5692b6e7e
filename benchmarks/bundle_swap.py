"""Changing the bundle of a running engine: the pause between two waves, against loading it on the spot."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.report import Row, seconds
from benchmarks.small_bundle import small_bundle
from features import DECISION_SPEC
from models_registry.bundle import verify
from models_registry.runtime import Predictor
from trading_worker.engine import Engine

SYMBOLS = tuple(f"COIN{i}USDT" for i in range(200))


def run() -> list[Row]:
    """Parity of both bundles' manifests, then the time of a prepared swap and of one that verifies and loads first."""
    with tempfile.TemporaryDirectory() as folder:
        first = small_bundle().folder
        second = shutil.copytree(first, Path(folder) / "second")
        assert verify(first, DECISION_SPEC) == verify(second, DECISION_SPEC)
        with Predictor.load(first) as one, Predictor.load(second) as other:
            engine = Engine(SYMBOLS, one)
            predictors = [other, one]

            def prepared() -> None:
                predictors.reverse()
                engine.swap(predictors[0])

            def on_the_spot() -> None:
                verify(second, DECISION_SPEC)
                with Predictor.load(second) as loaded:
                    engine.swap(loaded)
                engine.swap(one)

            prepared_s, spot_s = seconds(prepared, 500), seconds(on_the_spot, 10)
    return [
        Row(
            f"bundle swap, {len(SYMBOLS)} symbols",
            float(np.median(prepared_s)) * 1e3,
            "ms",
            float(np.median(spot_s)) * 1e3,
            "verifying and loading within the pause",
            f"p99 {np.quantile(prepared_s, 0.99) * 1e3:.3f} ms",
        )
    ]
