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


_BTC = ladder(
    (
        (150, 300_000, "0.004"),
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

_ETH = ladder(
    (
        (150, 300_000, "0.004"),
        (100, 800_000, "0.005"),
        (75, 3_000_000, "0.0065"),
        (50, 12_000_000, "0.01"),
        (25, 50_000_000, "0.02"),
        (20, 65_000_000, "0.025"),
        (10, 150_000_000, "0.05"),
        (5, 320_000_000, "0.1"),
        (4, 400_000_000, "0.125"),
        (3, 530_000_000, "0.15"),
        (2, 800_000_000, "0.25"),
        (1, 1_200_000_000, "0.5"),
    )
)

_SOL = ladder(
    (
        (100, 50_000, "0.005"),
        (75, 400_000, "0.0065"),
        (50, 1_000_000, "0.01"),
        (25, 4_000_000, "0.02"),
        (20, 8_000_000, "0.025"),
        (10, 40_000_000, "0.05"),
        (5, 80_000_000, "0.1"),
        (4, 100_000_000, "0.125"),
        (2, 200_000_000, "0.25"),
        (1, 400_000_000, "0.5"),
    )
)

_XRP = ladder(
    (
        (100, 40_000, "0.005"),
        (75, 80_000, "0.006"),
        (50, 150_000, "0.01"),
        (40, 400_000, "0.0125"),
        (25, 1_000_000, "0.02"),
        (20, 2_000_000, "0.025"),
        (10, 10_000_000, "0.05"),
        (5, 20_000_000, "0.1"),
        (4, 25_000_000, "0.125"),
        (2, 50_000_000, "0.25"),
        (1, 100_000_000, "0.5"),
    )
)

_DOGE = ladder(
    (
        (75, 80_000, "0.0065"),
        (50, 150_000, "0.01"),
        (40, 750_000, "0.0125"),
        (25, 2_000_000, "0.02"),
        (20, 4_000_000, "0.025"),
        (10, 20_000_000, "0.05"),
        (5, 40_000_000, "0.1"),
        (4, 50_000_000, "0.125"),
        (2, 100_000_000, "0.25"),
        (1, 200_000_000, "0.5"),
    )
)

OTHER = ladder(
    (
        (75, 10_000, "0.005"),
        (50, 50_000, "0.01"),
        (40, 200_000, "0.015"),
        (25, 1_000_000, "0.02"),
        (20, 2_000_000, "0.025"),
        (10, 10_000_000, "0.05"),
        (5, 20_000_000, "0.1"),
        (4, 25_000_000, "0.125"),
        (2, 50_000_000, "0.25"),
        (1, 100_000_000, "0.5"),
    )
)
"""Brackets of every symbol that has no table of its own: those of ADAUSDT."""

BRACKETS = {"BTCUSDT": _BTC, "ETHUSDT": _ETH, "SOLUSDT": _SOL, "XRPUSDT": _XRP, "DOGEUSDT": _DOGE}
"""Brackets as the venue had them in May 2026, by symbol."""


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
