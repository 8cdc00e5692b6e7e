"""`dynamic_features`: expressions over the decision row that data chose for each regime, as columns of the win model.

First what the live runtime needs: the stored form and its evaluation. Then the component that a training writes.
A column is unknown (NaN) outside its regime, which the trees take as missing; so it is on every row when the columns
are switched off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.errors import ExpressionInvalid
from features.expression_parser import parse
from features.expression_program import Program
from features.expressions import VERSION
from models_registry.dynamic_candidates import REGIMES
from models_registry.dynamic_selection import DynamicConfig, DynamicReport, regime_codes, search
from models_registry.errors import BundleRejected, InputRejected
from models_registry.manifest import DYNAMIC, Component, Metric
from models_registry.training_set import Split, TrainingSet

Float32 = NDArray[np.float32]

EXPRESSIONS_FILE = f"{DYNAMIC}.json"
FORMAT = "expressions"
MOST = 256
"""Expressions that are read from a file at all."""
SWITCHED_OFF = "switched off by ENABLE_DYNAMIC_FEATURES"
NONE_IN_BUNDLE = "the bundle has none"


class StoredExpression(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column: its regime by name, and its canonical text."""

    regime: str
    text: str


class StoredExpressions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file that a bundle pins."""

    language: int
    """`features.expressions.VERSION` of the texts."""
    expressions: list[StoredExpression]


class DynamicParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest says of the search."""

    report: DynamicReport | None = None
    columns: list[str] = []
    """What the win model calls them, in order."""


class DynamicColumns:
    """The expressions of a bundle, compiled for its decision rows.

    Raises `BundleRejected` for a file that is not what this version reads, or reads columns that there are not.
    """

    def __init__(self, folder: Path, file: str, names: Sequence[str]) -> None:
        if Path(file).name != file:
            raise BundleRejected(folder, f"{file!r} is not a plain file name")
        try:
            stored = msgspec.json.decode((folder / file).read_bytes(), type=StoredExpressions)
        except FileNotFoundError:
            raise BundleRejected(folder, f"{file} is missing") from None
        except (OSError, ValueError) as error:
            raise BundleRejected(folder, f"{file} cannot be read: {error}") from error
        if stored.language != VERSION:
            raise BundleRejected(folder, f"{file} is of expressions {stored.language}, this version has {VERSION}")
        if not 0 < len(stored.expressions) <= MOST:
            raise BundleRejected(folder, f"{file} has {len(stored.expressions)} expressions, not 1 to {MOST}")
        codes = {name: code for code, name in REGIMES.items()}
        self._names = list(names)
        known = frozenset(names)
        nodes, regimes = [], []
        for each in stored.expressions:
            try:
                nodes.append(parse(each.text, known))
                regimes.append(codes[each.regime])
            except ExpressionInvalid as error:
                raise BundleRejected(folder, f"{file} has {each.text!r}, which is not valid {error}") from error
            except KeyError:
                raise BundleRejected(folder, f"{file} has the regime {each.regime!r}, which is none") from None
        self.columns = column_names(stored.expressions)
        self._regimes = np.array(regimes, dtype=np.int8)
        self._program = Program(nodes, self._names)

    def run(self, decision: Float32, regime: NDArray[np.int8] | None = None) -> Float32:
        """The columns `[k, E]` on decision rows `[k, D]`; each value depends on its own row alone.

        `regime` int8 `[k]` is the regime in force, 0 ranging, 1 trending, 2 volatile, anything else unknown; None
        takes that of the rows.
        """
        if decision.shape[1] != self._program.width:
            raise InputRejected(
                f"decision rows have {decision.shape[1]} columns, the bundle's have {self._program.width}"
            )
        if regime is None:
            regime = regime_codes(decision, self._names)
        if len(regime) != len(decision):
            raise InputRejected(f"{len(regime)} regimes for {len(decision)} decision rows")
        values = self._program.run(decision)
        values[np.asarray(regime)[:, None] != self._regimes] = np.nan
        return values


def column_names(expressions: Sequence[StoredExpression]) -> list[str]:
    """What each is called as a column: its regime and its text.

    >>> column_names([StoredExpression("ranging", "5m.rsi_14 - 50")])
    ['ranging: 5m.rsi_14 - 50']
    """
    return [f"{each.regime}: {each.text}" for each in expressions]


def unknown(rows: int, columns: int) -> Float32:
    """The columns when they are switched off."""
    return np.full((rows, columns), np.nan, dtype=np.float32)


def train(
    rows: TrainingSet, split: Split, config: DynamicConfig, folder: Path, regime: NDArray[np.int8] | None = None
) -> Component:
    """Search on the split's fit part and store what was kept in `folder`.

    The win model stops early and calibrates on the validation rows and is judged on the holdout, so neither chooses
    expressions. `regime` int8 `[m]` is the regime in force on every row of the set, None that of the rows. When
    nothing is kept there is no file, and the component says what was tried.
    """
    codes = regime_codes(rows.decision, rows.decision_names) if regime is None else regime
    later = np.concatenate([split.validation, split.holdout])
    report = search(rows, split.fit, later, codes, config)
    kept = [StoredExpression(each.regime, each.text) for each in report.kept]
    parameters = DynamicParameters(report=report, columns=column_names(kept))
    if not kept:
        return _component(parameters, None, {}, report.summary)
    data = msgspec.json.format(msgspec.json.encode(StoredExpressions(VERSION, kept)), indent=2) + b"\n"
    (folder / EXPRESSIONS_FILE).write_bytes(data)
    return _component(parameters, EXPRESSIONS_FILE, {EXPRESSIONS_FILE: hashlib.sha256(data).hexdigest()}, None)


def report_of(component: Component) -> DynamicReport:
    """The search that a component of this name tells of; `ValueError` (of msgspec) when it tells of none."""
    return msgspec.convert(component.parameters["report"], DynamicReport)


def _component(
    parameters: DynamicParameters, served: str | None, files: dict[str, str], fallback: str | None
) -> Component:
    report = parameters.report
    return Component(
        version="none" if served is None else files[served][:12],
        served=served,
        format=None if served is None else FORMAT,
        files=files,
        metrics={} if report is None else _metrics(report),
        headline="corrected_information_ratio" if report is not None else None,
        fallback=fallback,
        parameters=_plain(parameters),
    )


def _metrics(report: DynamicReport) -> dict[str, Metric]:
    best = max((part for part in report.regimes if part.best_corrected is not None), key=_of_best, default=None)
    found = {
        "corrected_information_ratio": Metric(
            value=None if best is None else best.best_corrected,
            baseline=report.min_sharpe,
            baseline_name="the least that is kept",
            rows=sum(part.rows for part in report.regimes),
            blocks=max((part.blocks for part in report.regimes), default=0),
            note=f"of the best of {report.tried} expressions, a year's, less what so many tries explain",
        ),
        "kept": Metric(value=float(len(report.kept)), baseline=float(report.tried), baseline_name="tried"),
    }
    for part in report.regimes:
        found[f"information_ratio_{part.regime}"] = Metric(
            value=part.best_ratio,
            baseline=part.bar,
            baseline_name="what would have been enough",
            rows=part.rows,
            blocks=part.blocks,
            note=f"the best of {part.tried} tried, a year's, before the correction",
        )
    return found


def _of_best(part: Any) -> float:
    return float(part.best_corrected)


def _plain(parameters: DynamicParameters) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(parameters)
    return plain
