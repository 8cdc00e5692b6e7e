"""`python -m benchmarks.module_skill`: what the optional modules find, on days that chose nothing of them.

Made markets with the edge that `market.sources.synthetic` documents and without any, and a recording (`--klines DIR`).
On each:

- **Regime prediction**: log loss of the forecast an hour ahead against persistence.
- **Liquidity hunting**: mean R of the hunts against that of the CUSUM events that are none, net and before costs: a
  cost weighs more in R where the ATR is small, so that candidates differ even where nobody can foretell anything.
- **Dynamic features**: how many were tried and kept, and the win model's log loss with them against without them.
  Where none is kept the two are one model. So the best five are kept once more whatever they are worth: was it right
  to refuse them? And on how many of `--searches` made markets was anything kept at all?

Hunts are not fitted to anything, so all days judge them; the last days alone judge what was fitted. Intervals are of
95 %, by blocks of time. The autoencoder is left out (the plain features of the window stand in): this compares win
models with each other. The same arguments give the same numbers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from features.barriers import CostModel
from features.candidates import EVENT, HUNT, KIND, RULE
from features.history import decision_history
from features.labels import LabelTable, label_history
from features.liquidity import HuntSettings
from market.bars import DAY_MS
from market.lake import Lake
from market.sources import BarSource, open_source
from models_registry.assembling import assemble
from models_registry.component_folder import COMPONENT_FILE
from models_registry.dynamic_features import report_of
from models_registry.dynamic_selection import DynamicConfig
from models_registry.evaluation import predict_rows
from models_registry.manifest import AUTOENCODER, DYNAMIC, WIN, Component, encode
from models_registry.optional_training import train_dynamic_features, train_regime_predictor
from models_registry.provenance import of_labels
from models_registry.runtime import Predictor
from models_registry.statistics import (
    Interval,
    Scored,
    block_index,
    block_sums,
    difference_interval,
    improvement,
    log_loss,
    ratio_interval,
)
from models_registry.training import train_win_classifier
from models_registry.training_config import TrainingConfig, split_of
from models_registry.training_set import TrainingSet
from orchestration.label_store import History, store_history_labels
from orchestration.resources import TrainingSettings
from orchestration.training_data import join

MADE = "synthetic:seed={seed},symbols={symbols},edge={edge}"
REFUSED = 5
"""How many expressions are kept for once whatever they are worth."""


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured, beside its baseline."""

    module: str
    what: str
    measured: float | None
    baseline: float | None
    gain: Interval | None
    """Of the measured over the baseline, positive when it is better."""
    note: str


def training_settings(held_days: float) -> TrainingSettings:
    """Everything as by default but the switches and the length of the holdout."""
    return TrainingSettings(holdout_hours=24 * held_days, market_regime_prediction=True, dynamic_features=True)


def history_of(source: BarSource, days: float) -> History:
    """The newest `days` of every symbol, with their decision rows."""
    covered = {symbol: span for symbol in source.symbols() if (span := source.coverage(symbol)) is not None}
    # A made market has no end of its own.
    end = min(max(stop for _, stop in covered.values()), min(start for start, _ in covered.values()) + _span(days))
    start = end - _span(days)
    bars = {symbol: source.klines(symbol, start, end) for symbol in covered}
    funding = {symbol: source.funding(symbol, start, end) for symbol in covered}
    return History(round(days), bars, funding, decision_history(bars, funding))


def _span(days: float) -> int:
    return round(days * DAY_MS)


def measured(history: History, settings: TrainingSettings, folder: Path) -> list[Line]:
    """All lines of one market; `folder` is empty and keeps what was trained."""
    rows = training_rows(history, settings, folder)
    config = settings.config(int(rows.decided_at[-1]))
    return [
        *regime_lines(rows, config, folder / "regime"),
        *hunting_lines(history, settings),
        *dynamic_lines(rows, config, folder),
    ]


def training_rows(history: History, settings: TrainingSettings, folder: Path) -> TrainingSet:
    """The training set that the assets would make; its lake lies in `folder`."""
    lake = Lake(str(folder / "lake"))
    store_history_labels(lake, history, settings)
    return join(lake, history.rows, settings.max_windows, settings.half_life()).rows


def regime_lines(rows: TrainingSet, config: TrainingConfig, folder: Path) -> list[Line]:
    """The forecast against persistence on the held-out days."""
    component = train_regime_predictor(rows, config, folder)
    stands = "kept" if component.served is not None else f"its fallback: {component.fallback}"
    lines = []
    for name in ("log_loss", "hits", "sure"):
        metric = component.metrics.get(name)
        if metric is None:
            continue
        low, high = metric.interval or (np.nan, np.nan)
        gain = None if metric.improvement is None else Interval(metric.improvement, low, high, metric.blocks)
        note = stands if name == "log_loss" else metric.note or ""
        lines.append(
            Line("regime prediction", f"{name}, {metric.rows:,} rows", metric.value, metric.baseline, gain, note)
        )
    return lines or [Line("regime prediction", "not judged", None, None, None, stands)]


def hunting_lines(history: History, settings: TrainingSettings) -> list[Line]:
    """Mean R of the hunts, and of the rule's signals, against that of the other events."""
    lines = []
    for costs, name in ((settings.costs(), "net"), (CostModel(0.0, 0.0, 0.0), "before costs")):
        table = label_history(
            history.rows, history.bars, history.funding, settings.plan(), costs, hunting=HuntSettings()
        )
        lines += [_of_kind(table, kind, name, settings.seed) for kind in (HUNT, RULE)]
    return lines


def _of_kind(table: LabelTable, kind: int, costs: str, seed: int) -> Line:
    labels = table.labels
    starts, block = block_index(labels["decided_at"])
    chosen, events = labels["kind"] == kind, labels["kind"] == EVENT
    mine, theirs = (
        (block_sums(block, np.where(those, labels["r"], 0.0), len(starts)), block_sums(block, those, len(starts)))
        for those in (chosen, events)
    )
    return Line(
        "liquidity hunting",
        f"mean R of {int(chosen.sum()):,} {KIND[kind]}s, {costs}",
        float(labels["r"][chosen].mean()),
        float(labels["r"][events].mean()),
        difference_interval(mine, theirs, seed=seed),
        f"by itself {_shown(ratio_interval(*mine, seed=seed))}; {float(table.won[chosen].mean()):.1%} reach the target",
    )


def dynamic_lines(rows: TrainingSet, config: TrainingConfig, folder: Path) -> list[Line]:
    """What was kept, and what it did for the win model on the held-out days."""
    (folder / AUTOENCODER).mkdir()
    split = split_of(rows, config)
    left_out = Component(version="none", served=None, format=None, fallback="left out by the benchmark")
    left_out = msgspec.structs.replace(left_out, provenance=of_labels(rows, split, config.seed))
    (folder / AUTOENCODER / COMPONENT_FILE).write_bytes(encode(left_out))
    chosen = config.dynamic or DynamicConfig()
    anyhow = replace(config, dynamic=replace(chosen, min_sharpe=-1e9, max_count=REFUSED))
    began = time.perf_counter()
    component = train_dynamic_features(rows, config, folder / "kept")
    took = time.perf_counter() - began
    report = report_of(component)
    lines = [
        Line(
            "dynamic features",
            f"best corrected ratio, {part.regime}",
            part.best_corrected,
            report.min_sharpe,
            None,
            f"{part.kept} of {part.tried} kept; {_number(part.best_ratio)} before the correction, {part.blocks} blocks "
            f"of {report.block_hours} h; {_number(part.bar)} would have been enough",
        )
        for part in report.regimes
    ]
    held = rows.select(split.holdout)
    without = win_probability(rows, config, folder, None)
    base = float(log_loss(held.won, without).mean())
    later = ", ".join("–" if each.later is None else f"{each.later:+.2f}" for each in report.kept)
    notes = {
        "kept": f"coefficients on what came later: {later}; the search took {took:.1f} s",
        "anyhow": "not what a training does",
    }
    rate = np.full(len(held), held.won.mean())
    scored = Scored(held.decided_at, held.known_at, held.won, held.r, without)
    plain = improvement(scored, rate, config.seed)
    lines.append(
        Line(
            "win model",
            f"log loss without, {len(held):,} rows",
            base,
            float(log_loss(held.won, rate).mean()),
            plain,
            "against the held-out rows' own base rate",
        )
    )
    train_dynamic_features(rows, anyhow, folder / "anyhow")
    tries = {"anyhow": f"the best {REFUSED}, kept anyhow"}
    if report.kept:
        tries = {"kept": f"the {len(report.kept)} kept"} | tries
    for place, name in tries.items():
        probability = win_probability(rows, config, folder, folder / place)
        gain = improvement(replace(scored, probability=probability), without, config.seed)
        loss = float(log_loss(held.won, probability).mean())
        lines.append(Line("dynamic features", f"log loss with {name}", loss, base, gain, notes[place]))
    return lines


def win_probability(
    rows: TrainingSet, config: TrainingConfig, folder: Path, dynamic: Path | None
) -> NDArray[np.float32]:
    """What a win model trained with the expressions in the folder `dynamic` says of the held-out rows, as served."""
    name = "plain" if dynamic is None else dynamic.name
    win = folder / f"win-{name}"
    below = {AUTOENCODER: folder / AUTOENCODER} | ({} if dynamic is None else {DYNAMIC: dynamic})
    train_win_classifier(rows, below, config, win)
    parts = below | {WIN: win}
    bundle = assemble(rows, config, parts, folder / f"bundle-{name}")
    with Predictor.load(bundle.folder) as predictor:
        return predict_rows(predictor, rows.select(split_of(rows, config).holdout))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _shown(found: Interval | None) -> str:
    if found is None:
        return ""
    return f"{found.value:+.4f} ({found.low:+.4f} … {found.high:+.4f})" if found.known else f"{found.value:+.4f} (few)"


def show(title: str, lines: list[Line]) -> None:
    """Print the lines of a market."""
    table = Table(title=title)
    for column in ("module", "what", "measured", "baseline", "better by, 95 %", "note"):
        table.add_column(column, justify="right" if column in ("measured", "baseline") else "left")
    for line in lines:
        numbers = ("–" if each is None else f"{each:.4f}" for each in (line.measured, line.baseline))
        table.add_row(line.module, line.what, *numbers, _shown(line.gain), line.note)
    Console(width=220).print(table)


def searched(edge: str, markets: int, given: argparse.Namespace, settings: TrainingSettings) -> Line:
    """How many of so many made markets had anything to keep."""
    kept, best = [], []
    for seed in range(given.seed + 1, given.seed + 1 + markets):
        made = open_source(MADE.format(seed=seed, symbols=given.symbols, edge=edge))
        with tempfile.TemporaryDirectory() as folder:
            rows = training_rows(history_of(made, given.days), settings, Path(folder))
            config = settings.config(int(rows.decided_at[-1]))
            report = report_of(train_dynamic_features(rows, config, Path(folder) / "kept"))
        kept.append(len(report.kept))
        best.append(
            max((part.best_corrected for part in report.regimes if part.best_corrected is not None), default=np.nan)
        )
    wanted = ", ".join(map(str, kept))
    note = f"kept: {wanted}; best corrected ratios from {min(best):.2f} to {max(best):.2f}"
    share = float(np.mean(np.array(kept) > 0))
    return Line("dynamic features", f"share of {markets} markets, edge {edge}, with any kept", share, None, None, note)


def main() -> None:
    """Measure and print, market by market."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.module_skill")
    parser.add_argument("--klines", help="a folder of recorded 1m klines, measured too")
    parser.add_argument("--days", type=float, default=51.0, help="newest days of every market")
    parser.add_argument("--held-days", type=float, default=10.0, help="the last of them, which judge")
    parser.add_argument("--symbols", type=int, default=9, help="of the made markets")
    parser.add_argument("--seed", type=int, default=7, help="of the first made market")
    parser.add_argument("--searches", type=int, default=10, help="more made markets of each kind that are searched")
    given = parser.parse_args()
    edges = ("none", "planted")
    markets = [MADE.format(seed=given.seed, symbols=given.symbols, edge=edge) for edge in edges]
    if given.klines:
        markets.append(f"recorded:{given.klines}")
    settings = training_settings(given.held_days)
    for market in markets:
        with tempfile.TemporaryDirectory() as folder:
            history = history_of(open_source(market), given.days)
            minutes = sum(bars.size for bars in history.bars.values())
            title = (
                f"{market.rpartition('/')[2]}: {len(history.bars)} symbols, {given.days:g} days, {minutes:,} minutes"
            )
            show(title, measured(history, settings, Path(folder)))
    if given.searches:
        show("More made markets", [searched(edge, given.searches, given, settings) for edge in edges])


if __name__ == "__main__":
    main()
