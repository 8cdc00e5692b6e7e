"""What the live runtime needs of `strategy_dqn`: its parameters, the policy, and the plain version that stands in.

Values are R still to come over closing now, net of fees and funding (`features.episodes`): what an entry is worth when
flat, how much better than closing it is to hold. TensorFlow is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.actions import ACTIONS, HOLD, LONG, SHORT, SKIP
from models_registry.errors import InputRejected
from models_registry.manifest import Component
from models_registry.sessions import TfliteSession

Float32 = NDArray[np.float32]

CLIP = 5.0
"""Normalised inputs are limited to this many spreads: INT8 has one input scale per tensor."""


class DqnParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime applies around the network, and what a later training goes on from."""

    names: list[str]
    """The columns of a state."""
    centre: list[float]
    """Per column, the median of the fitted states."""
    spread: list[float]
    value_scale: list[float]
    """Per action: the network gives values in these units, so that one INT8 scale serves all of them."""
    calibration: tuple[float, float] = (0.0, 1.0)
    """Intercept and slope that the values of long and short went through (`calibrated`); the file has them in it."""
    clip: float = CLIP
    actions: list[str] = msgspec.field(default_factory=lambda: list(ACTIONS))
    discount: float = 1.0
    """A bar of the deciding timeframe."""
    updates: int = 0
    """Trainings that the network has been through."""
    analyses: int = 0
    """Opportunities that they were fitted to, altogether."""
    batches: int = 0
    history: dict[str, list[float | None]] = {}
    """The curves of the last training, one number a pass; the first is of the network that it began with."""


def normalise(state: Float32, parameters: DqnParameters) -> Float32:
    """States `[k, S]` as the network takes them: centred, scaled, clipped; NaN as the median."""
    return standardised(state, *scales(parameters), parameters.clip, np.empty_like(state))


def scales(parameters: DqnParameters) -> tuple[Float32, Float32]:
    """Centre and one over the spread of every column."""
    spread = np.asarray(parameters.spread, dtype=np.float32)
    return np.asarray(parameters.centre, dtype=np.float32), np.float32(1.0) / spread


def standardised(state: Float32, centre: Float32, scale: Float32, clip: float, out: Float32) -> Float32:
    """`normalise` into `out`, with the arrays at hand."""
    np.subtract(state, centre, out=out)
    out *= scale
    np.clip(out, -clip, clip, out=out)
    np.copyto(out, np.float32(0.0), where=np.isnan(out))
    return out


def masked(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The best action [k] of `values` [k, A] among those of `mask`; the first of equals, so doing nothing wins ties."""
    return np.asarray(np.where(mask, values, -np.inf).argmax(axis=1))


def plain_actions(signal: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The plain version: take the rule signal [k] (1, -1, 0), hold to the barrier. Actions `[k]` within `mask`.

    >>> flat, held = [True, True, True, False, False], [False, False, False, True, True]
    >>> plain_actions(np.array([1, -1, 0, 1]), np.array([flat, flat, flat, held])).tolist()
    [1, 2, 0, 3]
    """
    wanted = np.where(signal > 0, LONG, np.where(signal < 0, SHORT, SKIP))
    possible = mask[np.arange(len(mask)), wanted]
    return np.where(mask[:, HOLD], HOLD, np.where(possible, wanted, SKIP))


class DqnPolicy:
    """The network of a component, or its plain version when it serves none. Rows do not depend on each other.

    One caller at a time: the buffers are reused.
    """

    def __init__(self, folder: Path, component: Component) -> None:
        self._session: TfliteSession | None = None
        if component.served is None:
            return
        self.parameters = msgspec.convert(component.parameters, DqnParameters)
        self._session = TfliteSession(folder / component.served)
        self._centre, self._column_scale = scales(self.parameters)
        self._value_scale = np.asarray(self.parameters.value_scale, dtype=np.float32)
        self._buffer = np.empty((256, len(self.parameters.names)), dtype=np.float32)

    @property
    def served(self) -> bool:
        """Whether there is a network; else the plain version stands in."""
        return self._session is not None

    def run(
        self, state: Float32, mask: NDArray[np.bool_], signal: NDArray[Any] | None = None
    ) -> tuple[Float32, NDArray[np.int64]]:
        """Values `[k, 5]` in R and the best actions `[k]` among those of `mask [k, 5]`.

        `signal [k]` is the rule strategy's, which the plain version follows; its values are NaN. Raises `InputRejected`
        for states of other columns, a row without any action, or a plain version without signals.
        """
        if mask.shape != (len(state), len(ACTIONS)) or not mask.any(axis=1).all():
            raise InputRejected(f"the mask {mask.shape} of {len(state)} states leaves a row without an action")
        if self._session is None:
            if signal is None:
                raise InputRejected("the plain version of the strategy follows the rule signal, which is not given")
            return np.full(mask.shape, np.nan, dtype=np.float32), plain_actions(signal, mask)
        if state.shape[1] != len(self.parameters.names):
            raise InputRejected(f"states have {state.shape[1]} columns, the bundle's {len(self.parameters.names)}")
        if len(state) > len(self._buffer):
            self._buffer = np.empty((2 * len(state), state.shape[1]), dtype=np.float32)
        rows = self._buffer[: len(state)]
        standardised(state, self._centre, self._column_scale, self.parameters.clip, rows)
        values = self._session.run(rows)[0]
        values *= self._value_scale
        return values, masked(values, mask)


def plain_component(reason: str) -> Component:
    """The component of a strategy that could not be trained: the rules, and why."""
    return Component(version="none", served=None, format=None, fallback=reason)
