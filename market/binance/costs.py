"""What each route of the venue costs, as of 2026."""

from __future__ import annotations

from market.binance.rate_limit import Cost

ONE = Cost()
NOTHING = Cost(weight=0)
FIVE = Cost(weight=5)
ORDER = Cost(weight=0, orders_10s=1, orders_1m=1)
FUNDING = Cost(weight=1, funding=1)
PREMIUM_OF_ALL = Cost(weight=10)
OPEN_ORDERS_OF_ALL = Cost(weight=40)
POSITION_MODE = Cost(weight=30)
COUNTDOWN = Cost(weight=10)
INCOME = Cost(weight=30)


def klines(limit: int) -> Cost:
    """Of `limit` rows of klines.

    >>> [klines(limit).weight for limit in (99, 100, 499, 500, 1000, 1001, 1500)]
    [1, 2, 2, 5, 5, 10, 10]
    """
    return Cost(weight=next((weight for most, weight in ((99, 1), (499, 2), (1000, 5)) if limit <= most), 10))
