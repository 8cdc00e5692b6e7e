"""The asynchronous front of the runtime: single questions from many tasks, answered in batches.

A wave is predicted in one call and needs no front. What asks one row at a time (a position that is scored again, a
request over HTTP) waits here for company: up to `MOST_ROWS` questions or `MOST_WAIT_S`, whichever comes first, and
not even that long when nobody else comes. The batch runs in a thread, so the event loop is never blocked. Since
results do not depend on how a batch is split, an answer is the same bits whoever it was asked with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models_registry.errors import InputRejected, ModelsError
from models_registry.runtime import Prediction

Float32 = NDArray[np.float32]

MOST_ROWS = 32
MOST_WAIT_S = 0.1
QUIET_S = 0.002
"""When nothing has been asked for so long, a batch goes though it is neither full nor old."""


class FrontClosed(ModelsError):
    """The front was closed before this question was answered: ask the one that replaced it, or stop asking."""

    def __init__(self) -> None:
        super().__init__("the prediction front is closed: this question was not answered")


@dataclass(frozen=True, repr=False)
class Question:
    """One candidate on one decision row."""

    decision: Float32
    """`[D]`"""
    window: Float32
    """`[W, 5]`"""
    direction: int
    """+1 long, -1 short."""
    kind: int = 0
    quality: float = float("nan")
    regime: int | None = None
    """The regime in force, by which dynamic features are known or not; None the row's own."""
    dynamic: bool = True
    """Whether there are dynamic features; else they are unknown."""


@dataclass(frozen=True)
class Answer:
    """What the bundle says of one question."""

    win_probability: float
    """Calibrated: target before stop."""
    reconstruction_error: float
    """NaN when the autoencoder is replaced by its plain version."""
    unlike: bool
    """The window is unlike the training data."""
    action: int
    """What the strategy would do when flat, as in `Prediction.action`."""
    action_value: tuple[float, ...]
    """In R, by action; NaN as in `Prediction.action_value`."""
    reach_below: tuple[float, ...]
    """How far down price will reach, by the bundle's quantiles, in ATR."""
    reach_above: tuple[float, ...]


class Predicts(Protocol):
    """What the front needs of a `Predictor`."""

    def predict(
        self,
        decision: Float32,
        windows: Float32,
        index: NDArray[np.int64],
        direction: NDArray[np.int8],
        *,
        kind: NDArray[np.uint8] | None = None,
        quality: Float32 | None = None,
        regime: NDArray[np.int8] | None = None,
        dynamic: bool = True,
    ) -> Prediction:
        """As `Predictor.predict`."""


class PredictionFront:
    """Answers questions in batches. To be made, used and closed on one event loop.

    Every question gets its own answer or its own error: when a batch fails, its questions are asked one by one. A
    caller that is cancelled leaves the others' batch as it is. After `aclose` nobody waits: what is being predicted is
    still answered, what only waited fails with `FrontClosed`, and so does every later question.
    """

    def __init__(
        self,
        predictor: Predicts,
        *,
        batched: bool = True,
        most_rows: int = MOST_ROWS,
        most_wait_s: float = MOST_WAIT_S,
        quiet_s: float = QUIET_S,
    ) -> None:
        """`batched` is `ENABLE_BATCH_PREDICTION`: without it every question is a batch of its own."""
        if most_rows < 1 or most_wait_s < 0 or quiet_s < 0:
            raise ValueError(f"a batch of {most_rows} rows after {most_wait_s} s, or {quiet_s} s of quiet, is none")
        self._predictor = predictor
        self._most_rows = most_rows if batched else 1
        self._most_wait_s = most_wait_s
        self._quiet_s = min(quiet_s, most_wait_s)
        # One thread: the predictor takes one caller at a time anyway.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prediction")
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._oldest: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self.batches = 0
        """How many batches have been sent to the predictor."""
        self.answered = 0

    async def predict(self, question: Question) -> Answer:
        """The bundle's answer to `question`; `InputRejected` when it does not fit the bundle, `FrontClosed`."""
        if self._closed:
            raise FrontClosed
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting = [each for each in self._waiting if not each[1].done()]  # who was cancelled fills no batch
        self._waiting.append((question, future))
        if len(self._waiting) >= self._most_rows:
            self._send()
        else:
            if self._oldest is None:
                self._oldest = loop.call_later(self._most_wait_s, self._send)
            if self._quiet is not None:
                self._quiet.cancel()
            self._quiet = loop.call_later(self._quiet_s, self._send)
        return await future

    def _send(self) -> None:
        """Hand what waits to the predictor's thread."""
        for timer in (self._oldest, self._quiet):
            if timer is not None:
                timer.cancel()
        self._oldest = self._quiet = None
        batch = [each for each in self._waiting if not each[1].done()]
        self._waiting = []
        if batch:
            task = asyncio.get_running_loop().create_task(self._answer(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, batch: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        loop = asyncio.get_running_loop()
        self.batches += 1
        questions = [question for question, _ in batch]
        found = await loop.run_in_executor(self._pool, _answers, self._predictor, questions)
        for (_, future), answer in zip(batch, found, strict=True):
            if future.done():
                continue
            if isinstance(answer, Answer):
                future.set_result(answer)
                self.answered += 1
            else:
                future.set_exception(answer)

    async def aclose(self) -> None:
        """Answer what is being predicted, fail what waits, release the thread. The predictor stays open."""
        self._closed = True
        waiting, self._waiting = self._waiting, []
        self._send()
        for _, future in waiting:
            if not future.done():
                future.set_exception(FrontClosed())
        while self._running:
            await asyncio.wait(tuple(self._running))
        self._pool.shutdown()

    async def __aenter__(self) -> PredictionFront:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _answers(predictor: Predicts, questions: Sequence[Question]) -> list[Answer | Exception]:
    """In the thread: the answers of one batch, or each question's own error."""
    try:
        return [*_batch(predictor, questions)]
    except Exception as error:  # noqa: BLE001 - whatever the runtime raises goes to the question that caused it
        if len(questions) == 1:
            return [error]
        return [answer for question in questions for answer in _answers(predictor, [question])]


def _batch(predictor: Predicts, questions: Sequence[Question]) -> list[Answer]:
    shapes = {(question.decision.shape, question.window.shape) for question in questions}
    if len(shapes) > 1:
        raise InputRejected(f"the rows of a batch differ in shape: {sorted(shapes)}")
    switches = {(question.regime is None, question.dynamic) for question in questions}
    if len(switches) > 1:
        raise InputRejected("the rows of a batch differ in how dynamic features are asked for")
    regimes = [question.regime for question in questions]
    found = predictor.predict(
        np.stack([question.decision for question in questions]),
        np.stack([question.window for question in questions]),
        np.arange(len(questions), dtype=np.int64),
        np.array([question.direction for question in questions], dtype=np.int8),
        kind=np.array([question.kind for question in questions], dtype=np.uint8),
        quality=np.array([question.quality for question in questions], dtype=np.float32),
        regime=None if None in regimes else np.array(regimes, dtype=np.int8),
        dynamic=questions[0].dynamic,
    )
    return [
        Answer(
            win_probability=float(found.win_probability[i]),
            reconstruction_error=float(found.reconstruction_error[i]),
            unlike=bool(found.unlike[i]),
            action=int(found.action[i]),
            action_value=tuple(found.action_value[i].tolist()),
            reach_below=tuple(found.reach.below[i].tolist()),
            reach_above=tuple(found.reach.above[i].tolist()),
        )
        for i in range(len(questions))
    ]
