"""A small language over the columns of decision rows: for features that data chose and a bundle pins as text.

    squash((5m.rsi_14 - 50) / 10) * (5m.adx_14 < 20)

| written | is |
|---|---|
| `5m.rsi_14` | a column, by its full name |
| `50`, `0.25`, `1e-3` | a number, rounded to float32; a negative one is `-` before it |
| `a + b`, `a - b`, `a * b`, `-a` | as usual |
| `a / b` | 0 where `b` is 0, else as usual |
| `abs(a)`, `sign(a)` | magnitude; -1, 0 or 1 |
| `min(a, b)`, `max(a, b)` | the smaller, the larger |
| `clip(a, low, high)` | `min(max(a, low), high)` |
| `squash(a)` | `a / (1 + abs(a))`: a sigmoid within ±1 |
| `a < b`, `a <= b`, `a > b`, `a >= b` | 1 or 0; they do not chain |

An expression reads one row and nothing else: there is no operator over time. Every expression has a value on every
row, in float32 arithmetic (IEEE 754) from left to right: NaN where any column that it reads is NaN, and where the
result is not finite. All operations are correctly rounded (hence `squash` and not tanh, of which processors and
lengths of array differ), so a value depends on its row alone, to the bit. Text is canonical: equal trees have equal
text, and parsing it gives the tree back. Trees are bounded, so none can stall a worker.

Here is the tree; `expression_parser` reads text, `expression_program` evaluates.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from features.errors import ExpressionInvalid

VERSION = 1
"""Raised whenever the same text would give other numbers. Pinned beside every stored expression."""

MOST_NODES = 64
MOST_DEPTH = 16
MOST_TEXT = 4096
"""Characters that are read at all."""

COLUMN = r"[0-9]*[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+"
"""What the name of a column looks like; the dot tells it from a function."""

COMPARISON, SUM, PRODUCT, UNARY, PRIMARY = range(1, 6)


class Operation(NamedTuple):
    """How an operation is written: between two operands at a level of precedence, or as a function."""

    arity: int
    sign: str = ""
    level: int = PRIMARY


OPERATIONS: dict[str, Operation] = {
    "add": Operation(2, "+", SUM),
    "subtract": Operation(2, "-", SUM),
    "multiply": Operation(2, "*", PRODUCT),
    "divide": Operation(2, "/", PRODUCT),
    "less": Operation(2, "<", COMPARISON),
    "less_equal": Operation(2, "<=", COMPARISON),
    "greater": Operation(2, ">", COMPARISON),
    "greater_equal": Operation(2, ">=", COMPARISON),
    "negate": Operation(1, "-", UNARY),
    "abs": Operation(1),
    "sign": Operation(1),
    "squash": Operation(1),
    "min": Operation(2),
    "max": Operation(2),
    "clip": Operation(3),
}
"""Every operation by its name in the tree. Those without a sign are written by that name."""

FUNCTIONS = tuple(name for name, operation in OPERATIONS.items() if not operation.sign)


@dataclass(frozen=True, slots=True)
class Number:
    """A number that is not negative, rounded to float32."""

    value: float
    depth: int = field(default=1, init=False, repr=False, compare=False)
    size: int = field(default=1, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            rounded = float(np.float32(self.value))
        if not math.isfinite(rounded) or math.copysign(1.0, rounded) < 0:
            raise ExpressionInvalid(f"{self.value!r} is no finite float32 of at least 0")
        object.__setattr__(self, "value", rounded)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the decision row, by name."""

    name: str
    depth: int = field(default=1, init=False, repr=False, compare=False)
    size: int = field(default=1, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(COLUMN, self.name, re.ASCII):
            raise ExpressionInvalid(f"{self.name!r} is no name of a column, such as 5m.rsi_14")


@dataclass(frozen=True, slots=True)
class Call:
    """An operation on expressions; `ExpressionInvalid` when the tree would be too large or is not well formed."""

    operation: str
    arguments: tuple[Node, ...]
    depth: int = field(init=False, repr=False, compare=False)
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = OPERATIONS.get(self.operation)
        if known is None:
            raise ExpressionInvalid(f"no operation {self.operation!r}: there are {', '.join(OPERATIONS)}")
        if len(self.arguments) != known.arity:
            raise ExpressionInvalid(f"{self.operation} takes {known.arity} operands, not {len(self.arguments)}")
        depth = 1 + max(argument.depth for argument in self.arguments)
        size = 1 + sum(argument.size for argument in self.arguments)
        if depth > MOST_DEPTH:
            raise ExpressionInvalid(f"an expression is at most {MOST_DEPTH} operations deep")
        if size > MOST_NODES:
            raise ExpressionInvalid(f"an expression has at most {MOST_NODES} operations, columns and numbers")
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "size", size)


Node = Number | Column | Call
"""An expression."""


def text(node: Node) -> str:
    """The canonical text, with no parentheses but those that are needed.

    >>> text(Call("multiply", (Call("add", (Column("5m.rsi_14"), Number(0.5))), Number(2.0))))
    '(5m.rsi_14 + 0.5) * 2'
    """
    if isinstance(node, Number):
        # Of NumPy, since that is the shortest text of a float32.
        return str(np.float32(node.value)).removesuffix(".0")
    if isinstance(node, Column):
        return node.name
    operation = OPERATIONS[node.operation]
    if not operation.sign:
        return f"{node.operation}({', '.join(text(argument) for argument in node.arguments)})"
    if operation.arity == 1:
        return f"{operation.sign}{_within(node.arguments[0], UNARY)}"
    left, right = node.arguments
    # From left to right: the same level needs no parentheses on the left, unless it cannot chain.
    least = operation.level + (operation.level == COMPARISON)
    return f"{_within(left, least)} {operation.sign} {_within(right, operation.level + 1)}"


def _within(node: Node, least: int) -> str:
    """The text of an operand that must bind at least as tightly as `least`."""
    level = OPERATIONS[node.operation].level if isinstance(node, Call) else PRIMARY
    return text(node) if level >= least else f"({text(node)})"


def columns(node: Node) -> frozenset[str]:
    """The names of the columns that it reads.

    >>> sorted(columns(Call("divide", (Column("5m.macd_line"), Column("5m.adx_14")))))
    ['5m.adx_14', '5m.macd_line']
    """
    if isinstance(node, Call):
        return frozenset().union(*(columns(argument) for argument in node.arguments))
    return frozenset((node.name,)) if isinstance(node, Column) else frozenset()
