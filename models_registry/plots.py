"""Plots of a trained component as PNG bytes, from what its manifest entry holds; matplotlib is imported inside."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from models_registry.manifest import DQN, Component

LOSSES = ("fit", "validation")
"""The parts of a training whose losses are drawn; other curves are no losses."""
MEAN_VALUE = "mean_"
"""Prefix of the strategy's curves of values."""
COVERAGE = "coverage_"
"""Prefix of the metrics that say how often reach stayed within a quantile."""
MOST_OF_A_NAME = 40
"""Characters of a column's name beside its bar: expressions are longer than a plot is wide."""


def component_plots(name: str, component: Component) -> dict[str, bytes]:
    """Every plot that what is kept of a component allows, by name.

    `loss` for all that are fitted; `calibration` of the win model and of the feature network's outcome heads;
    `importance` of the win model's columns; `q_values` of the strategy; `reconstruction` of the autoencoder;
    `reach_coverage` of the liquidity predictor.
    """
    kept, plots = component.parameters, {}
    history = kept.get("history") or {}
    losses = {part: history[part] for part in LOSSES if history.get(part)}
    if losses:
        plots["loss"] = loss_curve(losses, name, first=0 if name == DQN else 1)
    valued = {
        part.removeprefix(MEAN_VALUE): curve for part, curve in history.items() if part.startswith(MEAN_VALUE) and curve
    }
    if valued:
        plots["q_values"] = q_values(valued)
    bins = kept.get("reliability")
    if bins:
        plots["calibration"] = calibration(bins if isinstance(bins, dict) else {"won": bins})
    if kept.get("importance"):
        plots["importance"] = importance(kept["importance"])
    if kept.get("channel_errors"):
        plots["reconstruction"] = reconstruction(kept["channel_errors"], kept.get("examples") or [])
    coverage = {
        float(part.removeprefix(COVERAGE)): metric.value
        for part, metric in component.metrics.items()
        if part.startswith(COVERAGE) and metric.value is not None
    }
    if coverage:
        plots["reach_coverage"] = reach_coverage(coverage)
    return plots


def loss_curve(history: Mapping[str, Sequence[float | None]], title: str, first: int = 1) -> bytes:
    """The loss of each part by epoch, pass or round; the first number is of the one numbered `first`."""
    figure, axes = _figure(title)
    for part, losses in history.items():
        axes.plot(
            range(first, first + len(losses)), _numbers(losses), label=part, marker="." if len(losses) < 3 else ""
        )
    axes.set_xlabel("epoch, pass or round")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    return _png(figure)


def q_values(values: Mapping[str, Sequence[float | None]]) -> bytes:
    """What the strategy values each action at, on average over the validation states that have it, pass by pass."""
    figure, axes = _figure("mean value by action, validation")
    axes.axhline(0.0, color="0.7", linewidth=1)
    for action, curve in values.items():
        axes.plot(range(len(curve)), _numbers(curve), label=action, marker=".")
    axes.set_xlabel("pass")
    axes.set_ylabel("R")
    axes.legend(frameon=False)
    return _png(figure)


def calibration(bins: Mapping[str, Sequence[tuple[float, float, int]]]) -> bytes:
    """Predicted probability against the share that came, held out, for each head; the diagonal is perfect."""
    figure, axes = _figure("calibration, held out")
    every = [share for rows in bins.values() for predicted, came, _ in rows for share in (predicted, came)]
    axes.plot([min(every), max(every)], [min(every), max(every)], color="0.7", linewidth=1)
    for head, rows in bins.items():
        axes.plot([row[0] for row in rows], [row[1] for row in rows], marker="o", label=head)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share that came")
    if len(bins) > 1:
        axes.legend(frameon=False)
    return _png(figure)


def reconstruction(
    errors: Mapping[str, tuple[float, float]], examples: Sequence[Mapping[str, Sequence[float]]]
) -> bytes:
    """The held-out error by channel beside principal components', and windows with what became of them.

    `errors` are (own, principal components'), in variances; an example has the paths `window` and `reconstruction`.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (top, *below) = _figures("reconstruction, held out", 1 + len(examples))
    places = range(len(errors))
    for shift, label, values in (
        (-0.2, "network", [own for own, _ in errors.values()]),
        (0.2, "principal components", [other for _, other in errors.values()]),
    ):
        top.bar([place + shift for place in places], values, width=0.4, label=label)
    top.set_xticks(places, list(errors))
    top.set_ylabel("squared error")
    top.margins(y=0.6)  # room for the legend
    top.legend(frameon=False, fontsize="small")
    for axes, example in zip(below, examples, strict=True):
        axes.plot(example["window"], label="close")
        axes.plot(example["reconstruction"], label="given back")
        axes.set_ylabel("ATR")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize="small")
    return _png(figure)


def reach_coverage(coverage: Mapping[float, float]) -> bytes:
    """How often reach stayed within each quantile, held out; the diagonal is perfect."""
    figure, axes = _figure("reach within its quantiles, held out")
    shares = sorted(coverage)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(shares, [coverage[share] for share in shares], marker="o")
    axes.set_xlabel("quantile")
    axes.set_ylabel("share within")
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


def _numbers(values: Sequence[float | None]) -> list[float]:
    """What is not known as NaN, which is not drawn."""
    return [math.nan if value is None else value for value in values]


def _figure(title: str) -> tuple[Any, Any]:
    figure, (axes,) = _figures(title, 1)
    return figure, axes


def _figures(title: str, rows: int) -> tuple[Any, list[Any]]:
    # The object interface: pyplot keeps global state and picks a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0 if rows == 1 else 1.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    every = list(figure.subplots(rows, squeeze=False)[:, 0])
    every[0].set_title(title)
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # Without the version of matplotlib in the file, equal plots are equal bytes.
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
