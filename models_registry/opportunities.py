"""What the strategy learns from, as it is kept: opportunities of a history with their trades, rows and windows.

Unlike an `Experience` it has no latents, which are the autoencoder's, but the windows that they are made of; so it can
be stored before any model is trained, and every model that the strategy is compared with can be asked about it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.barriers import CostModel, TradePlan
from features.candidates import candidates
from features.episodes import SIDES, Episodes, episodes
from features.history import DecisionHistory
from features.liquidity import HuntSettings
from features.quality import quality
from market.bars import Bars
from market.funding import Fundings
from models_registry.dqn_experience import Experience
from models_registry.errors import TrainingSetUnreadable
from models_registry.thinning import evenly

Float32 = NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class Opportunities:
    """`n` opportunities over `u` decision rows, which are theirs alone: row numbers of `episodes` are those here."""

    episodes: Episodes
    decision: Float32
    """`[u, D]`"""
    windows: Float32
    """`[u, W, 5]`"""
    kind: NDArray[np.uint8]
    """`[n, 2]` why the row is a candidate, long and short; 0 where it is none."""
    quality: Float32
    """`[n, 2]`"""
    decision_names: tuple[str, ...]
    decision_spec_id: str

    @classmethod
    def of(
        cls,
        history: DecisionHistory,
        bars: Mapping[str, Bars],
        funding: Mapping[str, Fundings],
        plan: TradePlan,
        costs: CostModel,
        *,
        hunting: HuntSettings | None = None,
        most: int = 24_000,
    ) -> Opportunities:
        """Every opportunity of `history` followed through the 1m `bars`; above `most` they are thinned evenly."""
        found = episodes(history, bars, funding, plan, costs, hunting=hunting)
        if len(found) > most:
            found = found.select(evenly(len(found), most))
        used, place = np.unique(found.state_row, return_inverse=True)
        place = place.reshape(-1)
        own = replace(found, row=place[: len(found)], step_row=place[len(found) :])
        decision, every = history.decision[used], candidates(history.decision[found.row], history.spec, None, hunting)
        kind = np.zeros((len(found), len(SIDES)), dtype=np.uint8)
        kind[every.index, (every.direction < 0).astype(np.int64)] = every.kind
        score = np.empty((len(found), len(SIDES)), dtype=np.float32)
        for column, side in enumerate(SIDES):
            direction = np.full(len(found), side, dtype=np.int8)
            score[:, column] = quality(decision[own.row], direction, history.spec, plan)
        return cls(own, decision, history.windows(used), kind, score, history.spec.names, history.spec.id)

    def __post_init__(self) -> None:
        if self.decision.shape[1:] != (len(self.decision_names),) or len(self.windows) != len(self.decision):
            raise ValueError(
                f"decision rows are {self.decision.shape}, windows {self.windows.shape}, "
                f"the names are {len(self.decision_names)}"
            )

    def __len__(self) -> int:
        return len(self.episodes)

    def __repr__(self) -> str:
        return f"Opportunities({len(self)} over {len(self.decision)} decision rows)"

    def select(self, opportunities: NDArray[Any]) -> Opportunities:
        """Some of the opportunities by index, over their own rows alone."""
        chosen = np.asarray(opportunities, dtype=np.int64)
        found = self.episodes.select(chosen)
        used, place = np.unique(found.state_row, return_inverse=True)
        place = place.reshape(-1)
        return replace(
            self,
            episodes=replace(found, row=place[: len(found)], step_row=place[len(found) :]),
            decision=self.decision[used],
            windows=self.windows[used],
            kind=self.kind[chosen],
            quality=self.quality[chosen],
        )

    def experience(self, latents: Float32) -> Experience:
        """What a strategy learns from, with the latents `[u, 16]` of the windows."""
        return Experience(self.episodes, self.decision, latents, self.decision_names)

    def to_bytes(self) -> bytes:
        """The whole as a compressed npz archive; equal ones give equal bytes."""
        names = np.asarray(self.decision_names, dtype=np.str_)
        buffer = io.BytesIO()
        text = {"decision_names": names, "decision_spec_id": np.asarray(self.decision_spec_id)}
        np.savez_compressed(buffer, **self._arrays(), **text)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, what: object = "given") -> Opportunities:
        """What `to_bytes` gave, or `TrainingSetUnreadable`; `what` names it in the message."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                values = {name: stored[name] for name in stored.files}
            own = {name: values.pop(name) for name in ("decision", "windows", "kind", "quality")}
            names = tuple(str(name) for name in values.pop("decision_names"))
            spec_id = str(values.pop("decision_spec_id"))
            return cls(Episodes(**values), **own, decision_names=names, decision_spec_id=spec_id)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise TrainingSetUnreadable(what, str(error)) from error

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            **{each.name: getattr(self.episodes, each.name) for each in fields(Episodes)},
            "decision": self.decision,
            "windows": self.windows,
            "kind": self.kind,
            "quality": self.quality,
        }

    @property
    def data_hash(self) -> str:
        """sha256 of the whole content: names, types, shapes and bytes."""
        digest = hashlib.sha256(repr((self.decision_spec_id, self.decision_names)).encode())
        for name, values in self._arrays().items():
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()
