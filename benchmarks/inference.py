"""One wave of 200 rows through both models of a bundle, against the libraries that trained them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.report import Row, seconds
from benchmarks.small_bundle import small_bundle
from features.candidates import EVENT
from features.quality import quality
from models_registry.manifest import AUTOENCODER
from models_registry.runtime import Predictor

ROWS = 200


def run() -> list[Row]:
    """Parity of the served autoencoder with Keras and of the served win model with xgboost, then the time of a wave."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        bundle = small_bundle(Path(folder) / "bundle")
        history = bundle.history
        ready = np.flatnonzero(history.ready)[-ROWS:]
        decision, windows = history.decision[ready], history.windows(ready)
        index = np.repeat(np.arange(ROWS), 2)
        direction = np.tile(np.array([1, -1], dtype=np.int8), ROWS)
        kind = np.full(2 * ROWS, EVENT, dtype=np.uint8)
        score = quality(decision[index], direction)
        with Predictor.load(bundle.folder) as predictor:
            served = predictor.manifest.components[AUTOENCODER]

            def wave() -> object:
                return predictor.predict(decision, windows, index, direction, kind=kind, quality=score)

            wave_s = float(np.median(seconds(wave, 200)))
            embed_s = float(np.median(seconds(lambda: predictor.see(decision, windows), 200)))
            keras_s = _keras_seconds(bundle.folder, predictor, decision, windows)
    return [
        Row(
            f"inference, {ROWS} rows and {2 * ROWS} candidates, both models",
            wave_s * 1e3,
            "ms",
            (keras_s + wave_s - embed_s) * 1e3,
            "keras.predict in place of the served autoencoder",
            f"autoencoder served as {served.format}",
        ),
        Row(f"autoencoder, {ROWS} rows", embed_s * 1e3, "ms", keras_s * 1e3, "keras.predict on the same batch"),
    ]


def _keras_seconds(folder: Path, predictor: Predictor, decision: np.ndarray, windows: np.ndarray) -> float:
    """The median time of `keras.predict` on the windows, after checking that it gives what is served."""
    import keras

    from models_registry.stages import parameters
    from models_registry.structure_autoencoder import KERAS_FILE, AutoencoderParameters, normalise

    component = predictor.manifest.components[AUTOENCODER]
    normalised = normalise(windows, parameters(folder, AUTOENCODER, component, AutoencoderParameters))
    network = keras.models.load_model(folder / KERAS_FILE)
    expected = network.predict(normalised, verbose=0)[0]
    latents = predictor.see(decision, windows).latents
    scale = float(np.abs(expected).max())
    assert float(np.abs(latents - expected).max()) < 0.1 * scale, "the served autoencoder differs from Keras"
    return float(np.median(seconds(lambda: network.predict(normalised, verbose=0), 10)))
