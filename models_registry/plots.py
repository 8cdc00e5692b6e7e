"""Plots of a trained component as PNG bytes, from what its manifest entry holds; matplotlib is imported inside."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from models_registry.manifest import WIN, Component
from models_registry.win_classifier import WinParameters

MOST_OF_A_NAME = 40
"""Characters of a column's name beside its bar: expressions are longer than a plot is wide."""


def component_plots(name: str, component: Component) -> dict[str, bytes]:
    """Every plot that a component's parameters allow: `loss`, and for the win model `calibration`, `importance`."""
    plots: dict[str, bytes] = {}
    history = component.parameters.get("history")
    if history:
        plots["loss"] = loss_curve(history, name)
    if name == WIN and component.served is not None:
        parameters = msgspec.convert(component.parameters, WinParameters)
        if parameters.reliability:
            plots["calibration"] = calibration(parameters.reliability)
        if parameters.importance:
            plots["importance"] = importance(parameters.importance)
    return plots


def loss_curve(history: Mapping[str, Sequence[float]], title: str) -> bytes:
    """The loss of each part by epoch or round."""
    figure, axes = _figure(title)
    for part, losses in history.items():
        axes.plot(range(1, len(losses) + 1), losses, label=part)
    axes.set_xlabel("epoch or round")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    return _png(figure)


def calibration(bins: Sequence[tuple[float, float, int]]) -> bytes:
    """Predicted probability against the share won, held out; the diagonal is perfect."""
    figure, axes = _figure("calibration, held out")
    predicted, won = [row[0] for row in bins], [row[1] for row in bins]
    low, high = min(predicted + won), max(predicted + won)
    axes.plot([low, high], [low, high], color="0.7", linewidth=1)
    axes.plot(predicted, won, marker="o")
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share won")
    return _png(figure)


def importance(shares: Mapping[str, float], most: int = 20) -> bytes:
    """The columns with the largest share of the gain."""
    figure, axes = _figure("share of gain")
    largest = sorted(shares.items(), key=lambda item: item[1])[-most:]
    axes.barh(range(len(largest)), [share for _, share in largest])
    # By place: two long names may be short for the same.
    names = [name if len(name) <= MOST_OF_A_NAME else f"{name[: MOST_OF_A_NAME - 1]}…" for name, _ in largest]
    axes.set_yticks(range(len(largest)), names)
    return _png(figure)


def _figure(title: str) -> tuple[Any, Any]:
    # The object interface: pyplot keeps global state and picks a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # Without the version of matplotlib in the file, equal plots are equal bytes.
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
