"""Single questions to the bundle in force, over HTTP: `GET /predict?symbol=…`.

Questions wait for company in a `PredictionFront` on the bundle that decides. When that is swapped the front goes with
it: who had no answer yet is asked again of the next one, about the row as the next one sees it. When the worker ends,
whoever waits is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from models_registry.errors import ModelsError
from models_registry.front import FrontClosed, PredictionFront
from models_registry.runtime import Predictor
from trading_worker.engine import Engine
from trading_worker.questions import asked_about, told


class Consultation:
    """Answers about a symbol at its last decision wave. To be made, used and closed on one event loop.

    Parameters
    ----------
    engine: whose bundle and last wave are asked about; its predictor is a `Predictor`.
    batched: `ENABLE_BATCH_PREDICTION`; else every question is a batch of its own.
    """

    def __init__(self, engine: Engine, *, batched: bool) -> None:
        self._engine = engine
        self._batched = batched
        self._rows = {symbol: row for row, symbol in enumerate(engine.symbols)}
        self._changed = asyncio.Event()
        self._closed = False
        self.answered = 0
        """Questions that have had their answer."""
        self.batches = 0
        """Batches that they came in, of fronts that are closed."""
        self._front: PredictionFront | None = None
        self._open()

    def _open(self) -> None:
        self._front = PredictionFront(self._predictor, batched=self._batched)
        self._changed.set()

    @property
    def _predictor(self) -> Predictor:
        predictor = self._engine.predictor
        if not isinstance(predictor, Predictor):
            raise TypeError(f"{type(predictor).__name__} is no Predictor")
        return predictor

    async def about(self, symbol: str) -> dict[str, Any]:
        """What the bundle in force says of `symbol`, as plain JSON values.

        Raises `NotFollowed`, `NothingToAsk` where there is no row to decide on, and `FrontClosed` when the worker
        ends.
        """
        row = self._rows.get(symbol)
        if row is None:
            raise NotFollowed(symbol)
        while True:
            front = await self._opened()
            engine, predictor = self._engine, self._predictor
            wave, spec = engine.last_decision, engine.state.spec
            try:
                # In a thread: with hunting on, the liquidity predictor is asked for the scores of pools.
                asked = await asyncio.to_thread(asked_about, symbol, row, wave, spec, predictor, engine.settings)
                answers = await asyncio.gather(*map(front.predict, asked.questions))
            except ModelsError:
                # What the bundle before could not answer any more is asked of the one in force.
                if front is self._front or self._closed:
                    raise
                continue
            self.answered += 1
            return {
                "bundle": str(predictor.manifest.bundle_version),
                "decision_spec": spec.id,
                **told(asked, (answers[0], answers[1]), predictor.quantiles),
                "models": predictor.formats,
                "fallbacks": dict(predictor.fallbacks),
            }

    async def _opened(self) -> PredictionFront:
        while self._front is None:
            if self._closed:
                raise FrontClosed
            self._changed.clear()
            await self._changed.wait()
        return self._front

    @asynccontextmanager
    async def swapped(self) -> AsyncIterator[None]:
        """For the time in which the engine's bundle changes: nothing is asked, and afterwards the one in force is."""
        await self._shut()
        try:
            yield
        finally:
            if not self._closed:
                self._open()

    async def aclose(self) -> None:
        """Answer what is being predicted; everybody else has `FrontClosed`."""
        self._closed = True
        await self._shut()
        self._changed.set()

    async def _shut(self) -> None:
        front, self._front = self._front, None
        if front is not None:
            await front.aclose()
            self.batches += front.batches


class NotFollowed(LookupError):
    """A symbol that this worker does not follow."""

    def __init__(self, symbol: str) -> None:
        super().__init__(f"this worker does not follow {symbol!r}")
