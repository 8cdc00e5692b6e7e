"""Questions that are asked one at a time and answered in batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.reach import Reach
from models_registry.assembling import TrainedBundle
from models_registry.errors import InputRejected
from models_registry.front import Answer, FrontClosed, PredictionFront, Question
from models_registry.runtime import Prediction, Predictor
from models_registry.training_set import TrainingSet

WAIT_S = 5.0
"""Never waited for: what should be sent at once is, or the test's own limit ends it."""


HANGS_S = 20.0
"""An answer that has not come by then never will."""


async def all_of(asked: Iterable[Awaitable[Answer]]) -> list[Answer | BaseException]:
    """What becomes of each question: its answer or its error. One that is never answered fails the test."""
    async with asyncio.timeout(HANGS_S):
        return await asyncio.gather(*asked, return_exceptions=True)


def probabilities(found: Iterable[Answer | BaseException]) -> list[float]:
    """Of those that are answers."""
    return [each.win_probability for each in found if isinstance(each, Answer)]


def question(rows: TrainingSet, index: int) -> Question:
    return Question(
        rows.decision[index],
        rows.windows[index],
        int(rows.direction[index]),
        int(rows.kind[index]),
        float(rows.quality[index]),
    )


class Recorded:
    """A predictor that answers with the first column, fails where it is NaN, and can be held up."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.free = threading.Event()
        self.free.set()

    def predict(self, decision, windows, index, direction, **about):  # type: ignore[no-untyped-def]
        self.free.wait(30)
        self.sizes.append(len(decision))
        self.threads.add(threading.get_ident())
        if np.isnan(decision[:, 0]).any():
            raise RuntimeError(f"cannot stand {decision[:, 0]}")
        self.about = about
        error = np.zeros(len(decision), np.float32)
        reach = Reach((0.5,), error[:, None] + 1, error[:, None] + 2)
        return Prediction(
            latents=error,
            reconstruction_error=error,
            unlike=error > 0,
            win_probability=decision[:, 0] * direction,
            features=error,
            reach=reach,
            action=np.ones(len(decision), np.int64),
            action_value=decision[:, :2],
        )


def answer(probability: float, *values: float) -> Answer:
    """What `Recorded` says."""
    return Answer(probability, 0.0, False, 1, values, (1.0,), (2.0,))


def small(value: float, direction: int = 1) -> Question:
    return Question(np.array([value, 0.0], np.float32), np.zeros((2, 5), np.float32), direction)


async def test_questions_asked_together_are_one_batch_and_each_has_its_own_answer() -> None:
    runtime = Recorded()
    async with PredictionFront(runtime, most_wait_s=WAIT_S) as front:
        found = await asyncio.gather(*(front.predict(small(i)) for i in range(20)))
    assert [answer.win_probability for answer in found] == list(range(20))
    assert runtime.sizes == [20]
    assert runtime.threads.isdisjoint({threading.get_ident()})
    assert (front.batches, front.answered) == (1, 20)


async def test_a_full_batch_waits_for_nobody() -> None:
    runtime = Recorded()
    async with PredictionFront(runtime, most_wait_s=WAIT_S, quiet_s=WAIT_S) as front:
        found = await asyncio.wait_for(asyncio.gather(*(front.predict(small(i)) for i in range(64))), WAIT_S / 2)
    assert len(found) == 64
    assert runtime.sizes == [32, 32]


async def test_a_batch_that_never_has_quiet_goes_when_its_oldest_has_waited_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the loop's timers held by hand: each question begins the quiet anew, and none the oldest's wait."""
    timers: list[tuple[float, Callable[[], None], Mock]] = []

    def call_later(delay_s: float, callback: Callable[[], None]) -> Mock:
        timers.append((delay_s, callback, Mock()))
        return timers[-1][2]

    runtime = Recorded()
    async with PredictionFront(runtime, most_wait_s=0.1, quiet_s=0.002) as front:
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
        tasks = []
        for value in range(5):
            tasks.append(asyncio.create_task(front.predict(small(value))))
            await asyncio.sleep(0)
        waiting = [(delay_s, callback) for delay_s, callback, handle in timers if not handle.cancel.called]
        assert [delay_s for delay_s, _ in waiting] == [0.1, 0.002]
        assert len(timers) == 1 + 5
        assert front.batches == 0
        waiting[0][1]()
        assert all(handle.cancel.called for _, _, handle in timers), "a later batch would be sent too soon"
        found = await asyncio.gather(*tasks)
    assert [answer.win_probability for answer in found] == [0, 1, 2, 3, 4]
    assert runtime.sizes == [5]


async def test_switched_off_every_question_is_a_batch() -> None:
    runtime = Recorded()
    async with PredictionFront(runtime, batched=False) as front:
        await asyncio.gather(*(front.predict(small(i)) for i in range(5)))
    assert runtime.sizes == [1] * 5


async def test_who_asks_what_cannot_be_answered_gets_the_error_and_nobody_else() -> None:
    runtime = Recorded()
    other = Question(np.zeros(3, np.float32), np.zeros((2, 5), np.float32), 1)
    async with PredictionFront(runtime, most_wait_s=WAIT_S) as front:
        asked = [small(1), small(float("nan")), other, small(2, -1)]
        found = await all_of(front.predict(each) for each in asked)
    assert found[0] == answer(1.0, 1.0, 0.0)
    assert isinstance(found[1], RuntimeError)
    assert found[2] == answer(0.0, 0.0, 0.0)  # of another shape: alone, this runtime takes it
    assert found[3] == answer(-2.0, 2.0, 0.0)


async def test_how_dynamic_features_are_asked_for_is_passed_on_and_divides_a_batch() -> None:
    runtime = Recorded()
    async with PredictionFront(runtime, most_wait_s=WAIT_S) as front:
        same = [replace(small(i), regime=2, dynamic=False) for i in range(3)]
        await asyncio.gather(*(front.predict(each) for each in same))
        assert runtime.sizes == [3]
        assert runtime.about["regime"].tolist() == [2, 2, 2]
        assert runtime.about["dynamic"] is False
        await asyncio.gather(front.predict(same[0]), front.predict(small(1)))
    assert runtime.sizes == [3, 1, 1]
    assert runtime.about["regime"] is None


async def test_a_caller_that_is_cancelled_leaves_the_others_their_answers() -> None:
    runtime = Recorded()
    runtime.free.clear()
    async with PredictionFront(runtime, most_rows=4, most_wait_s=WAIT_S, quiet_s=WAIT_S) as front:
        running = [asyncio.create_task(front.predict(small(i))) for i in range(4)]
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(front.predict(small(i))) for i in range(4, 7)]
        await asyncio.sleep(0)
        running[1].cancel()
        waiting[0].cancel()
        await asyncio.sleep(0)
        more = [asyncio.create_task(front.predict(small(i))) for i in range(7, 9)]  # with 5 and 6 a batch
        runtime.free.set()
        found = await all_of([*running, *waiting[1:], *more])
    assert isinstance(found[1], asyncio.CancelledError)
    assert probabilities(found) == [0, 2, 3, 5, 6, 7, 8]
    assert sum(runtime.sizes) == 8  # the one that only waited was never asked


async def test_closing_answers_what_runs_and_fails_what_waits() -> None:
    runtime = Recorded()
    runtime.free.clear()
    front = PredictionFront(runtime, most_rows=2, most_wait_s=WAIT_S, quiet_s=WAIT_S)
    running = [asyncio.create_task(front.predict(small(i))) for i in range(2)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(front.predict(small(7)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(front.aclose())
    with pytest.raises(FrontClosed):
        await asyncio.wait_for(waiting, WAIT_S)
    assert not closing.done()
    runtime.free.set()
    await asyncio.wait_for(closing, WAIT_S)
    assert probabilities(await all_of(running)) == [0, 1]
    with pytest.raises(FrontClosed):
        await front.predict(small(1))


async def test_the_loop_goes_on_while_a_batch_is_predicted() -> None:
    runtime = Recorded()
    runtime.free.clear()
    async with PredictionFront(runtime, batched=False) as front:
        task = asyncio.create_task(front.predict(small(1)))
        for _ in range(1000):  # would never be reached if the loop stood still: the runtime is held up
            await asyncio.sleep(0)
        assert front.batches == 1
        assert not task.done()
        runtime.free.set()
        assert probabilities(await all_of([task])) == [1]


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(40)), most_rows=st.integers(1, 33))
def test_an_answer_is_the_same_bits_whoever_it_was_asked_with(
    order: list[int], most_rows: int, five: TrainedBundle, planted_set: TrainingSet
) -> None:
    async def ask(predictor: Predictor) -> dict[int, Answer]:
        async with PredictionFront(predictor, most_rows=most_rows) as front:
            found = await asyncio.gather(*(front.predict(question(planted_set, index)) for index in order))
        return dict(zip(order, found, strict=True))

    with Predictor.load(five.folder) as predictor:
        index = np.arange(40)
        whole = predictor.predict(
            planted_set.decision[:40],
            planted_set.windows[:40],
            index,
            planted_set.direction[:40],
            kind=planted_set.kind[:40],
            quality=planted_set.quality[:40],
        )
        found = asyncio.run(ask(predictor))
    assert [found[row].win_probability for row in range(40)] == whole.win_probability.tolist()
    assert [found[row].reconstruction_error for row in range(40)] == whole.reconstruction_error.tolist()
    assert [found[row].action for row in range(40)] == whole.action.tolist()
    assert [list(found[row].reach_below) for row in range(40)] == whole.reach.below.tolist()
    assert [list(found[row].reach_above) for row in range(40)] == whole.reach.above.tolist()
    values = np.array([found[row].action_value for row in range(40)], np.float32)
    assert np.array_equal(values, whole.action_value, equal_nan=True)


async def test_a_row_that_does_not_fit_the_bundle_is_refused_alone(
    trained: TrainedBundle, planted_set: TrainingSet
) -> None:
    good = question(planted_set, 0)
    with Predictor.load(trained.folder) as predictor:
        async with PredictionFront(predictor) as front:
            found = await all_of(
                [front.predict(good), front.predict(replace(good, decision=good.decision[:-1]))],
            )
    assert isinstance(found[0], Answer)
    assert isinstance(found[1], InputRejected)
