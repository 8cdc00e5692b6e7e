"""Pictures for the metadata of assets: PNG inside Markdown, which is how the Dagster UI shows one."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models_registry.manifest import Metric
    from models_registry.pooling import PooledMetric
    from models_registry.trade_record import TradeRecord
    from models_registry.walk_forward import ModelEvaluation


def shown(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A PNG as metadata."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def shown_all(pngs: Mapping[str, bytes]) -> dict[str, dg.MarkdownMetadataValue]:
    """Several by name."""
    return {f"plot_{name}": shown(png, name) for name, png in pngs.items()}


def closes(days: Sequence[Mapping[str, float]]) -> bytes:
    """Each symbol's last price of the day against that of its first, by day."""

    def draw(axes: Any) -> None:
        for symbol in sorted({symbol for day in days for symbol in day}):
            prices = [(at, day[symbol]) for at, day in enumerate(days) if symbol in day]
            axes.plot([at for at, _ in prices], [price / prices[0][1] for _, price in prices], linewidth=0.8)
        axes.set_xlabel("day")
        axes.set_ylabel("close against the first day's")

    return _png("closes", draw)


def outcomes(r: NDArray[np.float64], outcome: NDArray[np.int8]) -> bytes:
    """How much trades gave, by how they ended."""

    def draw(axes: Any) -> None:
        bins = np.linspace(-3, 3, 61).tolist()
        parts = {"target": 1, "stop": 2, "expiry": 3}
        clipped = [np.clip(r[outcome == code], -3, 3) for code in parts.values()]
        axes.hist(clipped, bins=bins, stacked=True, label=list(parts))
        axes.set_xlabel("R, net of costs")
        axes.legend(frameon=False)

    return _png("outcomes", draw)


def per_day(decided_at: NDArray[np.int64], live: NDArray[np.bool_]) -> bytes:
    """Labels by day of decision, those of history and live ones."""

    def draw(axes: Any) -> None:
        day = (decided_at - decided_at[:1]) // 86_400_000
        bins = np.arange(int(day.max(initial=0)) + 2) - 0.5
        axes.hist([day[~live], day[live]], bins=bins.tolist(), stacked=True, label=["history", "live"])
        axes.set_xlabel("day")
        axes.legend(frameon=False)

    return _png("labels a day", draw)


def running_r(records: Mapping[str, TradeRecord]) -> bytes:
    """The running sum of R of each bundle's positions over the record's window, by when they were decided."""

    def draw(axes: Any) -> None:
        for name, record in records.items():
            hours = (np.array(record.blocks.start_ms) - record.start_ms) / 3_600_000
            axes.plot(hours, np.cumsum(record.blocks.r), label=f"{name} ({record.positions})")
        axes.axhline(0, color="0.7", linewidth=1)
        axes.set_xlabel("hours")
        axes.set_ylabel("sum of R")
        axes.legend(frameon=False)

    return _png("closed positions", draw)


def improvements(pooled: Mapping[str, Mapping[str, PooledMetric]]) -> bytes:
    """Every improvement with its interval, in units of the smallest effect that its sample could have shown."""
    lines = [
        (f"{model} {name}", metric.improvement, metric.interval, metric.smallest_detectable)
        for model, metrics in pooled.items()
        for name, metric in metrics.items()
    ]

    def draw(axes: Any) -> None:
        shown = [
            (name, value / unit, [(value - span[0]) / unit, (span[1] - value) / unit])
            for name, value, span, unit in lines
            if value is not None and span is not None and unit
        ]
        places = range(len(shown))
        spans = np.array([span for *_, span in shown]).reshape(-1, 2).T
        axes.errorbar([value for _, value, _ in shown], places, xerr=spans, fmt="o", ms=3)
        axes.set_yticks(places, [name for name, *_ in shown], fontsize=6)
        axes.axvline(0, color="0.7", linewidth=1)
        axes.set_xlabel("improvement, smallest detectable effect = 1")

    return _png("improvements over the baselines", draw, height=1 + 0.16 * max(len(lines), 12))


def by_fold(found: ModelEvaluation) -> dict[str, bytes]:
    """The headline of each model beside its baseline, fold by fold, from scratch and prequentially."""
    pngs = {}
    runs = {"from scratch": found.folds, "prequential": found.continued}
    headlines = {model: name for fold in found.folds for model, name in fold.headlines.items()}
    for model, name in headlines.items():
        pngs[model] = _folds(model, name, {run: [fold.metrics.get(model, {}) for fold in runs[run]] for run in runs})
    return pngs


def _folds(model: str, name: str, runs: Mapping[str, Sequence[Mapping[str, Metric]]]) -> bytes:
    def draw(axes: Any) -> None:
        for run, folds in runs.items():
            known = [(number, fold[name]) for number, fold in enumerate(folds, start=1) if name in fold]
            if known:
                numbers = [number for number, _ in known]
                (line,) = axes.plot(numbers, [_or_nan(each.value) for _, each in known], marker="o", label=run)
                baseline = [_or_nan(each.baseline) for _, each in known]
                axes.plot(numbers, baseline, linestyle="--", color=line.get_color(), label=f"baseline, {run}")
        axes.set_xlabel("fold")
        axes.set_ylabel(name)
        axes.legend(frameon=False)

    return _png(model, draw)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _png(title: str, draw: Callable[[Any], None], height: float = 3.5) -> bytes:
    # The object interface: pyplot keeps global state and picks a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()
