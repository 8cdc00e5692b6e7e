"""Expressions evaluated over decision rows, all of them at once; see `features.expressions` for their meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import ColumnUnknown
from features.expressions import Call, Column, Node, Number, text

Float32 = NDArray[np.float32]

_ZERO, _ONE, _NAN = np.float32(0), np.float32(1), np.float32(np.nan)


def _divide(a: Any, b: Any) -> Any:
    zero = b == _ZERO
    quotient = a / np.where(zero, _ONE, b)
    return np.where(zero & (a == a), _ZERO, quotient)


# Of 0 and -0 either may come out as the larger, depending on where in the array they stand: the sum with 0 makes them
# one.
def _smaller(a: Any, b: Any) -> Any:
    return np.minimum(a, b) + _ZERO


def _larger(a: Any, b: Any) -> Any:
    return np.maximum(a, b) + _ZERO


def _squash(a: Any) -> Any:
    return a / (_ONE + np.abs(a))


def _comparison(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def known(a: Any, b: Any) -> Any:
        return np.where((a != a) | (b != b), _NAN, np.where(compare(a, b), _ONE, _ZERO))

    return known


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": _divide,
    "less": _comparison(np.less),
    "less_equal": _comparison(np.less_equal),
    "greater": _comparison(np.greater),
    "greater_equal": _comparison(np.greater_equal),
    "negate": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "squash": _squash,
    "min": _smaller,
    "max": _larger,
    "clip": lambda a, low, high: _smaller(_larger(a, low), high),
}


class Program:
    """Expressions over the columns `names`; what several of them have in common is computed once.

    >>> from features.expression_parser import parse
    >>> program = Program([parse("a.x / a.y"), parse("a.x < 3")], ["a.x", "a.y"])
    >>> program.run(np.array([[2.0, 4.0], [5.0, 0.0]], dtype=np.float32)).tolist()
    [[0.5, 1.0], [0.0, 0.0]]
    """

    def __init__(self, expressions: Sequence[Node], names: Sequence[str]) -> None:
        self.width = len(names)
        self._place = {name: index for index, name in enumerate(names)}
        self._columns: list[int] = []
        self._steps: list[Callable[[list[Any], Float32], Any]] = []
        self._slot: dict[str, int] = {}
        self._results = [self._add(expression) for expression in expressions]

    def _add(self, node: Node) -> int:
        """The slot of an expression's value. Equal expressions have equal text."""
        key = text(node)
        if key not in self._slot:
            self._steps.append(self._step(node, key))
            self._slot[key] = len(self._steps) - 1
        return self._slot[key]

    def _step(self, node: Node, key: str) -> Callable[[list[Any], Float32], Any]:
        if isinstance(node, Number):
            value = np.float32(node.value)
            return lambda slots, given: value
        if isinstance(node, Column):
            if node.name not in self._place:
                raise ColumnUnknown(node.name, sorted(self._place), key, 0)
            self._columns.append(self._place[node.name])
            line = len(self._columns) - 1
            return lambda slots, given: given[line]
        return _call(node, [self._add(argument) for argument in node.arguments])

    def run(self, rows: Float32) -> Float32:
        """The values `[k, E]` on rows `[k, width]`; each depends on its own row alone, to the bit."""
        out = np.empty((len(rows), len(self._results)), dtype=np.float32)
        given = np.ascontiguousarray(rows[:, self._columns].T, dtype=np.float32)
        slots: list[Any] = []
        with np.errstate(all="ignore"):
            for step in self._steps:
                slots.append(step(slots, given))
        for column, slot in enumerate(self._results):
            out[:, column] = slots[slot]
        out[~np.isfinite(out)] = np.nan
        return out


def _call(node: Call, operands: list[int]) -> Callable[[list[Any], Float32], Any]:
    function = _FUNCTIONS[node.operation]
    if len(operands) == 1:
        (only,) = operands
        return lambda slots, given: function(slots[only])
    if len(operands) == 2:
        left, right = operands
        return lambda slots, given: function(slots[left], slots[right])
    return lambda slots, given: function(*(slots[operand] for operand in operands))
