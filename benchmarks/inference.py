"""One wave of 200 rows through all five models of a bundle, against the libraries that trained them."""

from __future__ import annotations

import numpy as np

from benchmarks.report import Row, alternately, fastest_ms, median_ms
from benchmarks.small_bundle import asked_wave, small_bundle
from benchmarks.trained_with import trained
from models_registry.runtime import Predictor

ROWS = 200
SINGLE_ROWS = 4
"""Rows that are asked one by one; the rest would take as long each."""


def run() -> list[Row]:
    """Parity of every served file with what trained it, then the time of a wave, all ways by turns."""
    bundle = small_bundle()
    wave = asked_wave(bundle.history, ROWS)
    with Predictor.load(bundle.folder) as predictor:
        other = trained(bundle.folder, predictor, wave)

        def served() -> object:
            return predictor.predict(
                wave.decision, wave.windows, wave.index, wave.direction, kind=wave.kind, quality=wave.quality
            )

        taken = alternately({"served": served, "batch": other.batch}, 15)
        # keras leaves threads behind that look for work for a while: alone is how the runtime runs.
        alone = alternately({"served": served}, 200)["served"]
        served_ms = fastest_ms(np.concatenate([taken["served"], alone]))
        batch_ms = fastest_ms(taken["batch"])
        single = alternately({"rows": lambda: [other.row(index) for index in range(SINGLE_ROWS)]}, 2)["rows"]
        rows_ms = fastest_ms(single) * ROWS / SINGLE_ROWS
        formats = sorted(set(predictor.formats.values()))
    what = f"one wave, {ROWS} rows and {2 * ROWS} candidates, five models"
    note = (
        f"the fastest of each; medians {median_ms(alone):.3g} and {median_ms(taken['batch']):.0f} ms; "
        f"{', '.join(formats)}"
    )
    return [
        Row(
            what,
            served_ms,
            "ms",
            batch_ms,
            "keras.predict and xgboost on the same batch",
            note,
            least_ratio=15,
            at_most=15,
        ),
        Row(
            what,
            served_ms,
            "ms",
            rows_ms,
            "keras.predict and xgboost row by row",
            f"{SINGLE_ROWS} rows measured, times {ROWS // SINGLE_ROWS}",
            least_ratio=1000,
        ),
    ]
