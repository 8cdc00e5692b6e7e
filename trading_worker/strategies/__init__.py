"""The strategies by name."""

from __future__ import annotations

from trading_worker.errors import UnknownStrategy
from trading_worker.strategies.base import EVENT, HUNT, RULE, Choice, Proposals, Strategy
from trading_worker.strategies.hybrid import hybrid
from trading_worker.strategies.ict import ict
from trading_worker.strategies.self_learning import self_learning

__all__ = ["EVENT", "HUNT", "RULE", "STRATEGIES", "Choice", "Proposals", "Strategy", "strategy"]

STRATEGIES: dict[str, Strategy] = {"ict": ict, "self_learning": self_learning, "hybrid": hybrid}


def strategy(name: str) -> Strategy:
    """The strategy of that name; `UnknownStrategy`, which lists the names, when there is none.

    >>> strategy("momentum")
    Traceback (most recent call last):
    trading_worker.errors.UnknownStrategy: unknown strategy 'momentum': use one of ict, self_learning, hybrid
    """
    try:
        return STRATEGIES[name]
    except KeyError:
        raise UnknownStrategy(name, STRATEGIES) from None
