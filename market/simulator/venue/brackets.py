"""Leverage brackets: how much notional each leverage may hold, and how much margin must stay behind it.

Maintenance margin = notional × ratio − cum, where cum makes it continuous from one bracket to the next.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

ZERO = Decimal(0)


class Bracket(Struct, frozen=True):
    """Notionals in [floor, cap) USDT: the highest leverage, the maintenance ratio, and what is taken off (cum)."""

    number: int
    leverage: int
    floor: Decimal
    cap: Decimal
    ratio: Decimal
    cum: Decimal


def ladder(steps: tuple[tuple[int, int, str], ...]) -> tuple[Bracket, ...]:
    """Brackets from (leverage, cap, ratio) in ascending order of cap.

    >>> ladder(((50, 5_000, "0.01"), (20, 25_000, "0.025")))[1].cum
    Decimal('75.000')
    """
    found: list[Bracket] = []
    floor = cum = last = ZERO
    for number, (leverage, cap, text) in enumerate(steps, start=1):
        ratio = Decimal(text)
        cum += floor * (ratio - last)
        found.append(Bracket(number, leverage, floor, Decimal(cap), ratio, cum))
        floor, last = Decimal(cap), ratio
    return tuple(found)


MAJOR = ladder(
    (
        (125, 300_000, "0.004"),
        (100, 800_000, "0.005"),
        (75, 3_000_000, "0.0065"),
        (50, 12_000_000, "0.01"),
        (25, 70_000_000, "0.02"),
        (20, 100_000_000, "0.025"),
        (10, 230_000_000, "0.05"),
        (5, 480_000_000, "0.1"),
        (4, 600_000_000, "0.125"),
        (3, 800_000_000, "0.15"),
        (2, 1_200_000_000, "0.25"),
        (1, 1_800_000_000, "0.5"),
    )
)
"""Brackets of BTCUSDT and ETHUSDT, of the venue's order of magnitude."""

MINOR = ladder(
    (
        (75, 10_000, "0.01"),
        (50, 50_000, "0.015"),
        (25, 250_000, "0.02"),
        (20, 500_000, "0.025"),
        (10, 1_250_000, "0.05"),
        (5, 2_500_000, "0.1"),
        (4, 3_125_000, "0.125"),
        (2, 6_250_000, "0.25"),
        (1, 12_500_000, "0.5"),
    )
)
"""Brackets of every other symbol."""


def bracket_of(brackets: tuple[Bracket, ...], notional: Decimal) -> Bracket:
    """The bracket that a notional falls in; beyond the last cap, the last."""
    for bracket in brackets:
        if notional < bracket.cap:
            return bracket
    return brackets[-1]


def maintenance_margin(brackets: tuple[Bracket, ...], notional: Decimal) -> Decimal:
    """Margin that must stay behind a position of this notional.

    >>> maintenance_margin(ladder(((50, 5_000, "0.01"), (20, 25_000, "0.025"))), Decimal(10_000))
    Decimal('175.000')
    """
    bracket = bracket_of(brackets, notional)
    return notional * bracket.ratio - bracket.cum


def most_notional(brackets: tuple[Bracket, ...], leverage: int) -> Decimal:
    """The largest notional that a leverage may hold; zero for a leverage beyond every bracket."""
    return max((bracket.cap for bracket in brackets if bracket.leverage >= leverage), default=ZERO)
