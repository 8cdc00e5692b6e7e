"""What trained models, each in a folder of its own, say of rows before there is a bundle of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.actions import SIDES
from models_registry.component_folder import load_component
from models_registry.dynamic_features import DynamicColumns
from models_registry.feature_network_runtime import FeatureNetwork
from models_registry.manifest import AUTOENCODER, DYNAMIC, FEATURE_NETWORK, LIQUIDITY, WIN, Component
from models_registry.opportunities import Opportunities
from models_registry.stages import Embedder, Scorer, liquidity_predictor
from models_registry.win_inputs import Candidates

ROWS = 2048
"""Opportunities in one call."""

_MISSING = Component(version="none", served=None, format=None, fallback="there is none")


def win_probability(
    opportunities: Opportunities, among: NDArray[np.int64], below: Mapping[str, str | Path]
) -> NDArray[np.float32]:
    """The win model's probability `[n, 2]` of the opportunities `among`, long and short.

    NaN for all others, and for directions that are no candidate. `below` are the folders of the win model and of what
    it reads. Dynamic features follow the regimes of the rows.
    """
    places = {name: Path(place) for name, place in below.items()}
    parts = {name: load_component(place) for name, place in places.items()}
    names = opportunities.decision_names

    def of(name: str) -> tuple[Path, Component]:
        return places.get(name, Path()), parts.get(name, _MISSING)

    embedder = Embedder(*of(AUTOENCODER))
    network = FeatureNetwork(*of(FEATURE_NETWORK), names)
    liquidity = liquidity_predictor(*of(LIQUIDITY), names)
    scorer = Scorer(*of(WIN), list(names))
    served = parts.get(DYNAMIC, _MISSING).served
    dynamic = None if served is None else DynamicColumns(places[DYNAMIC], served, names)
    found = np.full(opportunities.kind.shape, np.nan, dtype=np.float32)
    for start in range(0, len(among), ROWS):
        chosen = among[start : start + ROWS]
        at = opportunities.episodes.row[chosen]
        decision, windows = opportunities.decision[at], opportunities.windows[at]
        row, side = np.nonzero(opportunities.kind[chosen])
        latents, error = embedder.run(windows)
        found[chosen[row], side] = scorer.run(
            Candidates(
                decision=decision,
                latents=latents,
                error=error,
                row=row,
                direction=np.asarray(SIDES, dtype=np.int8)[side],
                kind=opportunities.kind[chosen][row, side],
                quality=opportunities.quality[chosen][row, side],
                features=network.run(decision),
                reach=liquidity.run(windows, decision),
                dynamic=None if dynamic is None else dynamic.run(decision, None),
            )
        )
    return found
