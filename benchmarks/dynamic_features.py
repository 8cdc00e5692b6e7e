"""Twenty expressions on a wave of 200 decision rows, against evaluating them row by row in Python."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.report import Row, seconds
from features import DECISION_SPEC
from features.expression_program import Program
from features.expressions import Column, Node, Number
from models_registry.dynamic_candidates import REGIMES, generate

ROWS = 200
EXPRESSIONS = 20


def run() -> list[Row]:
    """Parity of every value, then the time of one wave."""
    names = DECISION_SPEC.names
    drawn = [node for regime in REGIMES for node in generate(regime, names, EXPRESSIONS, 3)]
    nodes = drawn[:: len(drawn) // EXPRESSIONS][:EXPRESSIONS]
    assert len(nodes) == EXPRESSIONS
    rng = np.random.default_rng(3)
    decision = rng.standard_normal((ROWS, len(names))).astype(np.float32)
    decision[rng.random(decision.shape) < 0.02] = np.nan
    program = Program(nodes, names)

    def row_by_row() -> list[list[float]]:
        return [[_value(node, row) for node in nodes] for row in rows]

    rows = [dict(zip(names, row, strict=True)) for row in decision.tolist()]
    expected, found = np.array(row_by_row()), program.run(decision)
    # Python reckons in float64.
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True), "the program differs from Python"
    return [
        Row(
            f"dynamic features, {EXPRESSIONS} expressions on {ROWS} rows",
            float(np.median(seconds(lambda: program.run(decision), 200))) * 1e6,
            "µs",
            float(np.median(seconds(row_by_row, 10))) * 1e6,
            "each value by itself in Python",
        )
    ]


def _value(node: Node, row: dict[str, float]) -> float:
    """One value of one row."""
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Column):
        return row[node.name]
    values = [_value(argument, row) for argument in node.arguments]
    if any(math.isnan(value) for value in values):
        return math.nan
    a, b = values[0], values[-1]
    match node.operation:
        case "add":
            return a + b
        case "subtract":
            return a - b
        case "multiply":
            return a * b
        case "divide":
            return a / b if b else 0.0
        case "less":
            return float(a < b)
        case "less_equal":
            return float(a <= b)
        case "greater":
            return float(a > b)
        case "greater_equal":
            return float(a >= b)
        case "negate":
            return -a
        case "abs":
            return abs(a)
        case "sign":
            return float((a > 0) - (a < 0))
        case "squash":
            return a / (1 + abs(a))
        case "min":
            return min(a, b)
        case "max":
            return max(a, b)
    return min(max(a, values[1]), b)
