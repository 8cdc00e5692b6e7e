"""From text to the tree of an expression; see `features.expressions` for the language."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from features.errors import ColumnUnknown, ExpressionInvalid
from features.expressions import (
    COLUMN,
    COMPARISON,
    FUNCTIONS,
    MOST_DEPTH,
    MOST_TEXT,
    OPERATIONS,
    PRODUCT,
    SUM,
    Call,
    Column,
    Node,
    Number,
)

_TOKEN = re.compile(
    rf"(?P<space>[ \t\r\n]+)|(?P<column>{COLUMN})|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign><=|>=|[-+*/()<>,])",
    re.ASCII,
)
_BETWEEN = {
    level: {op.sign: name for name, op in OPERATIONS.items() if op.arity == 2 and op.sign and op.level == level}
    for level in (COMPARISON, SUM, PRODUCT)
}
_MOST_NESTED = 2 * MOST_DEPTH
"""Of parentheses: more than any tree needs, and few enough for the stack."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: str, known: Collection[str] | None = None) -> Node:
    """The tree of `text`, whose columns must be among `known` unless that is None.

    Raises `ExpressionInvalid` with the position of what is wrong, for an unknown column `ColumnUnknown`.

    >>> parse("-5m.macd_line * 2", ["5m.macd_line"]).operation
    'multiply'
    >>> parse("5m.rsi_14 +", None)
    Traceback (most recent call last):
    features.errors.ExpressionInvalid: at 11: a value is missing
    """
    if len(text) > MOST_TEXT:
        raise ExpressionInvalid(f"an expression is at most {MOST_TEXT} characters long", text, MOST_TEXT)
    return _Parser(text, None if known is None else frozenset(known)).whole()


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str, known: frozenset[str] | None) -> None:
        self._text = text
        self._known = known
        self._tokens = _tokens(text)
        self._next = 0
        self._nested = 0

    def whole(self) -> Node:
        node = self._comparison()
        token = self._peek
        if token.kind != "end":
            chained = token.text in _BETWEEN[COMPARISON]
            raise self._fault("comparisons do not chain" if chained else f"{token.text!r} is not expected here", token)
        return node

    def _comparison(self) -> Node:
        node = self._sum()
        if self._peek.text in _BETWEEN[COMPARISON]:
            token = self._take()
            node = self._call(_BETWEEN[COMPARISON][token.text], (node, self._sum()), token)
        return node

    def _sum(self) -> Node:
        node = self._product()
        while self._peek.text in _BETWEEN[SUM]:
            token = self._take()
            node = self._call(_BETWEEN[SUM][token.text], (node, self._product()), token)
        return node

    def _product(self) -> Node:
        node = self._unary()
        while self._peek.text in _BETWEEN[PRODUCT]:
            token = self._take()
            node = self._call(_BETWEEN[PRODUCT][token.text], (node, self._unary()), token)
        return node

    def _unary(self) -> Node:
        signs = []
        while self._peek.text == "-":
            signs.append(self._take())
        node = self._primary()
        for token in reversed(signs):
            node = self._call("negate", (node,), token)
        return node

    def _primary(self) -> Node:
        token = self._take()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "column":
            if self._known is not None and token.text not in self._known:
                raise ColumnUnknown(token.text, sorted(self._known), self._text, token.at)
            return Column(token.text)
        if token.kind == "word":
            return self._function(token)
        if token.text == "(":
            return self._inside(token)[0]
        raise self._fault("a value is missing", token)

    def _function(self, token: _Token) -> Node:
        if token.text not in FUNCTIONS:
            raise self._fault(f"no function {token.text!r}: there are {', '.join(FUNCTIONS)}", token)
        opening = self._take()
        if opening.text != "(":
            raise self._fault(f"{token.text} takes its operands in parentheses", opening)
        return self._call(token.text, tuple(self._inside(opening, separated=True)), token)

    def _inside(self, opening: _Token, *, separated: bool = False) -> list[Node]:
        """What stands between an opening parenthesis and its closing one."""
        self._nested += 1
        if self._nested > _MOST_NESTED:
            raise self._fault(f"parentheses nest at most {_MOST_NESTED} deep", opening)
        found = [self._comparison()]
        while separated and self._peek.text == ",":
            self._take()
            found.append(self._comparison())
        closing = self._take()
        if closing.text != ")":
            chained = closing.text in _BETWEEN[COMPARISON]
            raise self._fault("comparisons do not chain" if chained else "a closing parenthesis is missing", closing)
        self._nested -= 1
        return found

    def _number(self, token: _Token) -> Number:
        try:
            return Number(float(token.text))
        except ExpressionInvalid as error:
            raise self._fault(error.reason, token) from None

    def _call(self, operation: str, arguments: tuple[Node, ...], token: _Token) -> Call:
        try:
            return Call(operation, arguments)
        except ExpressionInvalid as error:
            raise self._fault(error.reason, token) from None

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        # The end is never passed.
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _fault(self, reason: str, token: _Token) -> ExpressionInvalid:
        return ExpressionInvalid(reason, self._text, token.at)


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ExpressionInvalid(f"{text[at]!r} is not of the language", text, at)
        if found.lastgroup != "space":
            tokens.append(_Token(str(found.lastgroup), found.group(), at))
        at = found.end()
    return [*tokens, _Token("end", "", len(text))]
