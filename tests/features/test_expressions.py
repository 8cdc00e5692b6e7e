"""The expression language: text and tree, bounds, refusals with positions, values that depend on their row alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.errors import ColumnUnknown, ExpressionInvalid, FeatureError
from features.expression_parser import parse
from features.expression_program import Program
from features.expressions import (
    MOST_DEPTH,
    MOST_NODES,
    MOST_TEXT,
    OPERATIONS,
    Call,
    Column,
    Node,
    Number,
    columns,
    text,
)

NAMES = ("5m.rsi_14", "15m.adx_14", "1h.return_1", "cross.breadth")
F = np.float32

numbers = st.one_of(
    st.integers(0, 100).map(float),
    st.floats(0, 2.0**125, width=32).filter(lambda value: math.copysign(1, value) > 0),
).map(Number)
leaves = st.one_of(st.sampled_from(NAMES).map(Column), numbers)


@st.composite
def calls(draw: st.DrawFn, inner: st.SearchStrategy[Node]) -> Node:
    operation = draw(st.sampled_from(sorted(OPERATIONS)))
    arguments = tuple(draw(inner) for _ in range(OPERATIONS[operation].arity))
    try:
        return Call(operation, arguments)
    except ExpressionInvalid:
        return arguments[0]


expressions = st.recursive(leaves, calls, max_leaves=14)
cells = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, 1e-45])
)


def by_hand(node: Node, row: dict[str, np.float32]) -> np.float32:
    """The documented meaning, one operation on one number at a time."""
    if isinstance(node, Number):
        return F(node.value)
    if isinstance(node, Column):
        return row[node.name]
    a, *rest = (by_hand(argument, row) for argument in node.arguments)
    if any(np.isnan(value) for value in (a, *rest)):
        return F(np.nan)
    if node.operation == "clip":
        return min(max(a, rest[0]), rest[1]) + F(0)
    if not rest:
        one = {"negate": lambda: -a, "abs": lambda: abs(a), "sign": lambda: F((a > 0) * 1.0 - (a < 0) * 1.0)}
        return one.get(node.operation, lambda: a / (F(1) + abs(a)))()
    (b,) = rest
    both = {
        "add": lambda: a + b,
        "subtract": lambda: a - b,
        "multiply": lambda: a * b,
        "divide": lambda: F(0) if b == 0 else a / b,
        "min": lambda: min(a, b) + F(0),
        "max": lambda: max(a, b) + F(0),
        "less": lambda: F(a < b),
        "less_equal": lambda: F(a <= b),
        "greater": lambda: F(a > b),
        "greater_equal": lambda: F(a >= b),
    }
    return both[node.operation]()


def attempt(written: str) -> tuple[Node | None, ExpressionInvalid | None]:
    try:
        return parse(written), None
    except ExpressionInvalid as error:
        return None, error


@settings(max_examples=400, deadline=None)
@given(node=expressions)
def test_text_and_tree_are_the_same_thing(node: Node) -> None:
    written = text(node)
    assert parse(written, NAMES) == node
    assert text(parse(written)) == written
    assert columns(node) <= set(NAMES)


@settings(max_examples=400, deadline=None)
@given(given_text=st.text(alphabet="0159.em5_rsi14 ()+-*/<>=,abs^é", max_size=40))
@example("(" * 4000)
@example("-" * 4000 + "1")
@example("1+" * 2000 + "1")
@example("min(" * 900 + "1")
@example("1" * 5000)
@example("")
def test_any_text_is_an_expression_or_is_refused_with_a_place(given_text: str) -> None:
    node, refusal = attempt(given_text)
    if node is not None:
        assert parse(text(node)) == node
    else:
        assert refusal is not None
        assert refusal.text == given_text
        assert refusal.position is not None
        assert 0 <= refusal.position <= min(len(given_text), MOST_TEXT)


@settings(max_examples=300, deadline=None)
@given(node=expressions, rows=st.lists(st.tuples(*[cells] * len(NAMES)), min_size=1, max_size=6))
def test_values_are_those_of_the_documented_arithmetic(node: Node, rows: list[tuple[float, ...]]) -> None:
    given_rows = np.array(rows, dtype=np.float32)
    with np.errstate(all="ignore"):
        expected = np.array([by_hand(node, dict(zip(NAMES, row, strict=True))) for row in given_rows], dtype=np.float32)
    expected[~np.isfinite(expected)] = np.nan
    found = Program([node], NAMES).run(given_rows)[:, 0]
    assert found.tobytes() == expected.tobytes()


@settings(max_examples=150, deadline=None)
@given(
    nodes=st.lists(expressions, min_size=1, max_size=5),
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(0, 90), max_size=4),
)
def test_values_do_not_depend_on_how_a_batch_is_split(nodes: list[Node], seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((90, len(NAMES))).astype(np.float32) * 10.0 ** rng.integers(-3, 4)
    special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1.0], dtype=np.float32)
    rows = np.where(rng.random(rows.shape) < 0.3, special[rng.integers(0, len(special), rows.shape)], rows)
    program = Program(nodes, NAMES)
    whole = program.run(rows)
    parts = [program.run(rows[a:b]) for a, b in itertools.pairwise([0, *sorted(cuts), 90])]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    alone = [Program([node], NAMES).run(rows)[:, 0] for node in nodes]
    assert np.stack(alone, axis=1).tobytes() == whole.tobytes()
    assert np.concatenate([program.run(row[None]) for row in rows]).tobytes() == whole.tobytes()


@given(node=expressions, at=st.integers(0, len(NAMES) - 1))
def test_what_reads_an_unknown_value_is_unknown(node: Node, at: int) -> None:
    row = np.ones((1, len(NAMES)), dtype=np.float32)
    row[0, at] = np.nan
    found = Program([node], NAMES).run(row)[0, 0]
    if NAMES[at] in columns(node):
        assert np.isnan(found)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1 - 2 - 3", -4.0),
        ("2 - 3 * 4", -10.0),
        ("8 / 4 / 2", 1.0),
        ("-2 * 3", -6.0),
        ("--2", 2.0),
        ("5 / 0", 0.0),
        ("-5 / (1 - 1)", 0.0),
        ("clip(7, 0, 5)", 5.0),
        ("clip(7, 5, 0)", 0.0),
        ("min(1, 2) + max(1, 2)", 3.0),
        ("sign(-3) + sign(0)", -1.0),
        ("squash(-3)", -0.75),
        ("1 < 2", 1.0),
        ("(1 >= 2) * 5 + (2 <= 2)", 1.0),
        ("1e38 * 100", math.nan),
        ("1e38 * 100 > 1", 1.0),
        (" 0.5\t*\n4 ", 2.0),
    ],
)
def test_worked_examples(written: str, value: float) -> None:
    found = Program([parse(written)], ()).run(np.zeros((3, 0), dtype=np.float32))
    np.testing.assert_array_equal(found[:, 0], np.full(3, value, dtype=np.float32))


@pytest.mark.parametrize(
    ("written", "position", "reason"),
    [
        ("", 0, "a value is missing"),
        ("5m.rsi_14 +", 11, "a value is missing"),
        ("(1 + 2", 6, "closing parenthesis"),
        ("1 2", 2, "not expected"),
        ("1 < 2 < 3", 6, "do not chain"),
        ("(1 < 2 < 3)", 7, "do not chain"),
        ("exp(1)", 0, "no function 'exp': there are abs"),
        ("abs 1", 4, "in parentheses"),
        ("2 * min(1)", 4, "takes 2 operands, not 1"),
        ("1 + clip(1, 2, 3, 4)", 4, "takes 3 operands, not 4"),
        ("1 + 1e99", 4, "float32"),
        ("2 ** 3", 3, "a value is missing"),
        ("5m.rsi_14 % 2", 10, "not of the language"),
        ("__import__('os')", 11, "not of the language"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(written: str, position: int, reason: str) -> None:
    with pytest.raises(ExpressionInvalid, match=reason) as refused:
        parse(written, NAMES)
    assert refused.value.position == position
    assert str(refused.value).startswith(f"at {position}: ")


def test_an_unknown_column_names_those_that_are() -> None:
    with pytest.raises(ColumnUnknown, match=r"at 4: no column '5m\.rsi_15': there is 5m\.rsi_14") as refused:
        parse("1 + 5m.rsi_15", NAMES)
    assert set(refused.value.known) == set(NAMES)
    assert isinstance(refused.value, FeatureError)
    with pytest.raises(ColumnUnknown):
        Program([parse("5m.rsi_15")], NAMES)
    with pytest.raises(ColumnUnknown, match="there is none"):
        parse("5m.rsi_14", [])


def test_trees_are_bounded_by_construction() -> None:
    deep: Node = Number(1)
    for _ in range(MOST_DEPTH - 1):
        deep = Call("negate", (deep,))
    assert parse(text(deep)) == deep
    with pytest.raises(ExpressionInvalid, match=f"{MOST_DEPTH} operations deep"):
        Call("negate", (deep,))
    wide: list[Node] = [Number(1)] * (MOST_NODES // 2)
    while len(wide) > 1:
        wide = [Call("add", pair) for pair in zip(wide[::2], wide[1::2], strict=True)]
    assert parse(text(wide[0])) == wide[0]
    with pytest.raises(ExpressionInvalid, match=f"at most {MOST_NODES}"):
        Call("add", (wide[0], wide[0]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Number(-1.0),
        lambda: Number(-0.0),
        lambda: Number(math.nan),
        lambda: Number(1e39),
        lambda: Column("rsi_14"),
        lambda: Column("5m.rsi 14"),
        lambda: Call("power", (Number(1.0), Number(2.0))),
        lambda: Call("add", (Number(1.0),)),
    ],
)
def test_no_tree_can_be_built_that_has_no_text(make: object) -> None:
    with pytest.raises(ExpressionInvalid):
        make()  # type: ignore[operator]
