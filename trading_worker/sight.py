"""What the models saw of one symbol at a decision, as one vector: its decision row, then its window bar by bar.

With the signal's direction, kind and quality that is all that a bundle of the same DecisionSpec is asked with, so an
open position can be scored again, by the champion or by another bundle, without any bar.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.decision import DecisionWave
from features.decision_spec import DecisionSpec


def width(spec: DecisionSpec) -> int:
    """Numbers in a vector of `spec`."""
    return len(spec.names) + spec.window * len(spec.window_names)


def pack(wave: DecisionWave, line: int) -> NDArray[np.float32]:
    """Line `line` of a wave, float32 [width]."""
    return np.concatenate((wave.decision[line], wave.windows[line].reshape(-1)))


def unpack(vector: NDArray[np.float32], spec: DecisionSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The decision row, float32 [1, D], and the window, float32 [1, W, C], as a predictor takes them."""
    columns = len(spec.names)
    return vector[None, :columns], vector[columns:].reshape(1, spec.window, len(spec.window_names))
