"""A hundred questions at once through the asynchronous front, against asking them one by one."""

from __future__ import annotations

import asyncio

from benchmarks.report import Row, alternately, fastest_ms, median_ms
from benchmarks.small_bundle import AskedWave, asked_wave, small_bundle
from benchmarks.trained_with import trained
from models_registry.front import Answer, PredictionFront, Question
from models_registry.runtime import Predictor

ASKED = 100
SINGLE_ROWS = 2
"""Questions that are put to keras.predict; the rest would take as long each."""

AT_ONCE = f"{ASKED} questions at once, answered in batches"


def run() -> list[Row]:
    """Every answer is the wave's, to the bit, and none is lost; then the times, by turns."""
    bundle = small_bundle()
    wave = asked_wave(bundle.history, ASKED)
    questions = _questions(wave)
    with Predictor.load(bundle.folder) as predictor:
        other = trained(bundle.folder, predictor, wave)
        whole = predictor.predict(
            wave.decision, wave.windows, wave.index, wave.direction, kind=wave.kind, quality=wave.quality
        )
        expected = whole.win_probability[::2].tolist()

        def ask(batched: bool) -> None:
            answers = asyncio.run(_all(predictor, questions, batched))
            assert [answer.win_probability for answer in answers] == expected, "an answer is lost or another's"

        taken = alternately({"batched": lambda: ask(True), "single": lambda: ask(False)}, 40)
        keras = alternately({"keras": lambda: [other.row(index) for index in range(SINGLE_ROWS)]}, 4)["keras"]
    batched_ms, single_ms = fastest_ms(taken["batched"]), fastest_ms(taken["single"])
    keras_ms = fastest_ms(keras) * ASKED / SINGLE_ROWS
    medians = f"medians {median_ms(taken['batched']):.3g} and {median_ms(taken['single']):.3g} ms"
    return [
        Row(
            AT_ONCE,
            batched_ms,
            "ms",
            single_ms,
            "one by one in the same runtime (ENABLE_BATCH_PREDICTION=false)",
            f"the fastest of each; {medians}; none lost in {len(taken['batched'])} runs",
            least_ratio=2.5,
        ),
        Row(
            AT_ONCE,
            batched_ms,
            "ms",
            keras_ms,
            "keras.predict and xgboost one by one",
            f"{SINGLE_ROWS} measured, times {ASKED // SINGLE_ROWS}",
            least_ratio=10,
        ),
    ]


def _questions(wave: AskedWave) -> list[Question]:
    """The long candidate of every row."""
    return [
        Question(wave.decision[i], wave.windows[i], 1, int(wave.kind[2 * i]), float(wave.quality[2 * i]))
        for i in range(len(wave))
    ]


async def _all(predictor: Predictor, questions: list[Question], batched: bool) -> list[Answer]:
    async with PredictionFront(predictor, batched=batched) as front:
        return list(await asyncio.gather(*map(front.predict, questions)))
