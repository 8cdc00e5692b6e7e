"""What a strategy learns from: episodes with the numbers that are seen at their decisions, as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.episodes import Episodes, action_mask
from models_registry.dqn_state import LATENT_NAMES as LATENT_NAMES
from models_registry.dqn_state import state_matrix as state_matrix
from models_registry.dqn_state import state_names as state_names
from models_registry.structure_autoencoder import LATENTS

Float32 = NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class Experience:
    """`episodes` over `u` decision rows, which are theirs alone: their row numbers are those of `decision`."""

    episodes: Episodes
    decision: Float32
    """`[u, D]`"""
    latents: Float32
    """`[u, 16]` of the window that ends at each row, from a model that has not seen later labels."""
    decision_names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        episodes: Episodes,
        decision: Float32,
        latents_of: Callable[[NDArray[np.int64]], Float32],
        decision_names: tuple[str, ...],
    ) -> Experience:
        """From the episodes of a history, its decision rows `[N, D]` and what gives the latents of rows by index."""
        used, place = np.unique(episodes.state_row, return_inverse=True)
        place = place.reshape(-1)
        count = len(episodes)
        own = replace(episodes, row=place[:count], step_row=place[count:])
        return cls(own, decision[used], np.asarray(latents_of(used), dtype=np.float32), tuple(decision_names))

    def __post_init__(self) -> None:
        if self.decision.shape[1:] != (len(self.decision_names),):
            raise ValueError(f"decision rows are {self.decision.shape[1:]}, the names are {len(self.decision_names)}")
        if self.latents.shape != (len(self.decision), LATENTS):
            raise ValueError(f"latents are {self.latents.shape}, not {(len(self.decision), LATENTS)}")

    def __len__(self) -> int:
        """How many opportunities there are."""
        return len(self.episodes)

    def __repr__(self) -> str:
        return f"Experience({len(self)} opportunities, {self.episodes.states} states of {len(self.names)} columns)"

    @property
    def names(self) -> list[str]:
        """The columns of a state."""
        return state_names(self.decision_names)

    def states(self) -> Float32:
        """Every state `[states, S]`, in the numbering of `Transitions`."""
        row = self.episodes.state_row
        return state_matrix(self.decision[row], self.latents[row], self.episodes.state_position)

    def masks(self) -> NDArray[np.bool_]:
        """Which actions there are in every state `[states, 5]`."""
        return action_mask(self.episodes.state_position[:, 0])

    def select(self, opportunities: NDArray[Any]) -> Experience:
        """Some of the opportunities by index, over their own rows alone."""
        chosen = self.episodes.select(opportunities)
        return Experience.of(chosen, self.decision, lambda rows: self.latents[rows], self.decision_names)
