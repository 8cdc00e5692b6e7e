"""Trades as a trader would enter them into a ledger: bars, costs and fundings in; prices, R and the time out.

Every row has its arithmetic written out. Decided at 100 with an ATR of 2: a long's stop lies at 97 and its target at
104, a short's at 103 and 96; they are the plan's and stay there wherever the entry comes out. R is after fee and
funding and in units of the risk |entry - stop|; the excursions are prices alone, in the same unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from features.barriers import EXPIRY, OUTCOME, STOP, TARGET, UNKNOWN, VOID, CostModel
from tests.features.candle_tables import COSTLY, DECIDED, FREE, MINUTE, candles, charged, follow

NAN = float("nan")
LONG, SHORT = 1, -1
FEE_ONLY = CostModel(fee_bps=10.0, spread_bps=0.0, slippage_bps=0.0)
SPREAD_ONLY = CostModel(fee_bps=0.0, spread_bps=20.0, slippage_bps=0.0)
SLIPPAGE_ONLY = CostModel(fee_bps=0.0, spread_bps=0.0, slippage_bps=10.0)


@dataclass(frozen=True)
class Trade:
    """One line of the ledger."""

    what: str
    side: int
    bars: str
    outcome: int
    entry: float
    exit: float
    r: float
    best: float
    worst: float
    known: int
    """Minutes from the decision to the close of the minute that ended it: from then on the outcome is known."""
    costs: CostModel = FREE
    fundings: tuple[tuple[int, float], ...] = ()
    """(minute, rate): charged within that minute."""
    paid: float = 0.0
    """Funding over the whole trade, in price; negative when received."""


UP = "0 100 101 99 100\n1 100 104 99 103"
DOWN = "0 100 101 99 100\n1 100 101 96 97"
FLAT = "\n".join(f"{minute} 100 101 99 100" for minute in range(5))

ENTRY = [
    # Each cost by itself: half the spread 0.1 %, slippage 0.1 %, both at the entry; the fee moves no price.
    Trade("half the spread is against a long", LONG, UP, TARGET, 100.1, 104, 3.9 / 3.1, 3.9 / 3.1, -1.1 / 3.1, 2,
          SPREAD_ONLY),
    Trade("half the spread is against a short", SHORT, DOWN, TARGET, 99.9, 96, 3.9 / 3.1, 3.9 / 3.1, -1.1 / 3.1, 2,
          SPREAD_ONLY),
    Trade("slippage is against a long", LONG, UP, TARGET, 100.1, 104, 3.9 / 3.1, 3.9 / 3.1, -1.1 / 3.1, 2,
          SLIPPAGE_ONLY),
    Trade("slippage is against a short", SHORT, DOWN, TARGET, 99.9, 96, 3.9 / 3.1, 3.9 / 3.1, -1.1 / 3.1, 2,
          SLIPPAGE_ONLY),
    # 4 gained, fees 0.1 % of 100 and of 104.
    Trade("the fee is paid on both sides", LONG, UP, TARGET, 100, 104, (4 - 0.1 - 0.104) / 3, 4 / 3, -1 / 3, 2,
          FEE_ONLY),
    # The open has moved to 98: entry 98, risk 1, six to the target.
    Trade("an open nearer to the stop risks less for more", LONG, "0 98 99 97.5 98\n1 98 104 98 104", TARGET, 98, 104,
          6.0, 6.0, -0.5, 2),
    # The open has moved to 102: entry 102, risk 5, two to the target.
    Trade("an open nearer to the target risks more for less", LONG, "0 102 103 101 102\n1 102 104 101 104", TARGET,
          102, 104, 0.4, 0.4, -0.2, 2),
    # For a short 102 is nearer to its stop at 103: risk 1, six to 96.
    Trade("an open nearer to a short's stop risks less for more", SHORT, "0 102 102.5 101 102\n1 102 102 96 96",
          TARGET, 102, 96, 6.0, 6.0, -0.5, 2),
    Trade("opening at a short's stop is no trade", SHORT, "0 103 104 102 103", VOID, 0, 0, NAN, 0, 0, 1),
    Trade("opening beyond a short's target is no trade", SHORT, "0 95.9 103 95 96", VOID, 0, 0, NAN, 0, 0, 1),
    # 103.9 × 1.002 = 104.1078 is beyond 104; for the short 96.1 × 0.998 = 95.9078.
    Trade("costs that carry the entry beyond the target: no trade", LONG, "0 103.9 104 103 104", VOID, 0, 0, NAN, 0, 0,
          1, COSTLY),
    Trade("costs that carry a short's entry beyond the target: no trade", SHORT, "0 96.1 97 96 96", VOID, 0, 0, NAN, 0,
          0, 1, COSTLY),
    # The open decides whether the stop was passed, not the entry after costs: 97.05 is above 97, 97.2441 the entry.
    Trade("an open a hair above the stop is a trade", LONG, "0 97.05 97.1 97 97.05", STOP, 97.2441, 96.903,
          (96.903 - 97.2441 - 0.0972441 - 0.096903) / 0.2441, 0, (96.903 - 97.2441) / 0.2441, 1, COSTLY),
]  # fmt: skip

BARRIERS = [
    # 104 - 100.2 = 3.8 gained, fees 0.1002 + 0.104; the target is a resting order and slips not.
    Trade("a long wins", LONG, UP, TARGET, 100.2, 104, (3.8 - 0.2042) / 3.2, 3.8 / 3.2, -1.2 / 3.2, 2, COSTLY),
    # 99.8 - 96 = 3.8 gained, fees 0.0998 + 0.096.
    Trade("a short wins", SHORT, DOWN, TARGET, 99.8, 96, (3.8 - 0.1958) / 3.2, 3.8 / 3.2, -1.2 / 3.2, 2, COSTLY),
    # 97 × 0.999 = 96.903: 3.297 lost, fees 0.1002 + 0.096903.
    Trade("a long is stopped, with slippage", LONG, DOWN, STOP, 100.2, 96.903, -(3.297 + 0.197103) / 3.2, 0.8 / 3.2,
          -3.297 / 3.2, 2, COSTLY),
    # 103 × 1.001 = 103.103: 3.303 lost, fees 0.0998 + 0.103103.
    Trade("a short is stopped, with slippage", SHORT, UP, STOP, 99.8, 103.103, -(3.303 + 0.202903) / 3.2, 0.8 / 3.2,
          -3.303 / 3.2, 2, COSTLY),
    # Both in one bar: 104 was there, 97 too, and the stop counts; the bar's high is not ours.
    Trade("both in one bar is the stop", LONG, "0 100 101 99 100\n1 100 105 96 104", STOP, 100.2, 96.903,
          -(3.297 + 0.197103) / 3.2, 0.8 / 3.2, -3.297 / 3.2, 2, COSTLY),
    Trade("both in one bar is a short's stop too", SHORT, "0 100 101 99 100\n1 100 104 95 96", STOP, 99.8, 103.103,
          -(3.303 + 0.202903) / 3.2, 0.8 / 3.2, -3.303 / 3.2, 2, COSTLY),
    # It opens at 95, beyond 97: 95 × 0.999 = 94.905, 5.295 lost, fees 0.1002 + 0.094905: more than one R.
    Trade("a gap through the stop fills at the open", LONG, "0 100 101 99 99\n1 95 98 94 98", STOP, 100.2, 94.905,
          -(5.295 + 0.195105) / 3.2, 0.8 / 3.2, -5.295 / 3.2, 2, COSTLY),
    # 106 × 1.001 = 106.106, 6.306 lost, fees 0.0998 + 0.106106.
    Trade("a short's gap through the stop too", SHORT, "0 100 101 99 101\n1 106 107 105 105", STOP, 99.8, 106.106,
          -(6.306 + 0.205906) / 3.2, 0.8 / 3.2, -6.306 / 3.2, 2, COSTLY),
    # No better than its limit, though it opens at 107.
    Trade("a gap beyond the target fills at the target", LONG, "0 100 101 99 100\n1 107 108 106 107", TARGET, 100.2,
          104, (3.8 - 0.2042) / 3.2, 3.8 / 3.2, -1.2 / 3.2, 2, COSTLY),
    # The stop of the minute of expiry comes before the expiry at its close.
    Trade("the stop in the minute of expiry", LONG, FLAT[: FLAT.rindex("4")] + "4 100 101 97 100", STOP, 100, 97, -1,
          1 / 3, -1, 5),
]  # fmt: skip

EXPIRIES = [
    # Marked to market at 100.6 of the fifth minute: 0.4 gained, fees 0.1002 + 0.1006.
    Trade("a long expires at the close", LONG, FLAT[:-3] + "100.6", EXPIRY, 100.2, 100.6, (0.4 - 0.2008) / 3.2,
          0.8 / 3.2, -1.2 / 3.2, 5, COSTLY),
    # 99.8 - 100.6: 0.8 lost, fees 0.0998 + 0.1006.
    Trade("a short expires at the close", SHORT, FLAT[:-3] + "100.6", EXPIRY, 99.8, 100.6, -(0.8 + 0.2004) / 3.2,
          0.8 / 3.2, -1.2 / 3.2, 5, COSTLY),
    # Nowhere in five minutes: 0.2 to enter, fees 0.1002 + 0.1.
    Trade("standing still costs the entry and two fees", LONG, FLAT, EXPIRY, 100.2, 100, -(0.2 + 0.2002) / 3.2,
          0.8 / 3.2, -1.2 / 3.2, 5, COSTLY),
]  # fmt: skip

FUNDINGS = [
    # 0.3 % of 100, the open of minute 2.
    Trade("a long pays a positive rate", LONG, FLAT, EXPIRY, 100, 100, -0.1, 1 / 3, -1 / 3, 5, FREE,
          ((2, 0.003),), 0.3),
    Trade("a short receives it", SHORT, FLAT, EXPIRY, 100, 100, 0.1, 1 / 3, -1 / 3, 5, FREE, ((2, 0.003),), -0.3),
    Trade("a long receives a negative rate", LONG, FLAT, EXPIRY, 100, 100, 0.1, 1 / 3, -1 / 3, 5, FREE, ((2, -0.003),),
          -0.3),
    Trade("a short pays it", SHORT, FLAT, EXPIRY, 100, 100, -0.1, 1 / 3, -1 / 3, 5, FREE, ((2, -0.003),), 0.3),
    # Charged at the stroke of the minute, before anything was bought in it.
    Trade("nothing is due in the minute of entry", LONG, FLAT, EXPIRY, 100, 100, 0, 1 / 3, -1 / 3, 5, FREE,
          ((0, 0.003),)),
    # The stop comes later in the minute than the charge: a whole R and 0.3 more.
    Trade("it is due in the minute of the stop", LONG, DOWN, STOP, 100, 97, -1.1, 1 / 3, -1, 2, FREE,
          ((1, 0.003),), 0.3),
    Trade("it is due in the minute of the target", LONG, UP, TARGET, 100, 104, (4 - 0.3) / 3, 4 / 3, -1 / 3, 2, FREE,
          ((1, 0.003),), 0.3),
    Trade("it is due in the minute of expiry", SHORT, FLAT, EXPIRY, 100, 100, 0.1, 1 / 3, -1 / 3, 5, FREE,
          ((4, 0.003),), -0.3),
    Trade("not in the minute after", LONG, UP + "\n2 103 104 102 103", TARGET, 100, 104, 4 / 3, 4 / 3, -1 / 3, 2, FREE,
          ((2, 0.003),)),
    Trade("nor in the minute before the entry", LONG, UP, TARGET, 100, 104, 4 / 3, 4 / 3, -1 / 3, 2, FREE,
          ((-1, 0.003),)),
    # On the price at which its minute opens: 0.3 % of 101 and of 102 with opposite signs.
    Trade("twice, each on its own minute's open", LONG,
          "0 100 101 99 101\n1 101 102 100 102\n2 102 103 100 101\n3 101 102 100 101\n4 101 102 100 101", EXPIRY, 100,
          101, (1 - 0.303 + 0.306) / 3, 1, -1 / 3, 5, FREE, ((1, 0.003), (2, -0.003)), -0.003),
    # 3.8 gained, fees 0.0998 + 0.096, and 0.25 % of 100 received.
    Trade("all at once", SHORT, DOWN, TARGET, 99.8, 96, (3.8 - 0.1958 + 0.25) / 3.2, 3.8 / 3.2, -1.2 / 3.2, 2, COSTLY,
          ((1, 0.0025),), -0.25),
]  # fmt: skip

UNSEEN = [
    Trade("the minute of entry is missing", LONG, "1 100 104 99 104", UNKNOWN, 0, 0, NAN, 0, 0, 2),
    Trade("a minute is missing while it is open", SHORT, "0 100 101 99 100\n3 100 104 95 96", UNKNOWN, 99.8, 0, NAN,
          0.8 / 3.2, -1.2 / 3.2, 4, COSTLY),
    Trade("the minute of expiry is missing", LONG, FLAT[: FLAT.rindex("4")] + "5 100 101 99 100", UNKNOWN, 100, 0, NAN,
          1 / 3, -1 / 3, 6),
]  # fmt: skip


@pytest.mark.parametrize("trade", [*ENTRY, *BARRIERS, *EXPIRIES, *FUNDINGS, *UNSEEN], ids=lambda trade: trade.what)
def test_the_ledger(trade: Trade) -> None:
    position = follow(trade.side, candles(trade.bars), trade.costs, charged(*trade.fundings))
    assert OUTCOME[int(position["outcome"])] == OUTCOME[trade.outcome]
    assert position["entry"] == pytest.approx(trade.entry)
    assert position["exit_price"] == pytest.approx(trade.exit)
    assert position["funding"] == pytest.approx(trade.paid)
    assert position["r"] == pytest.approx(trade.r, nan_ok=True)
    assert position["best"] == pytest.approx(trade.best)
    assert position["worst"] == pytest.approx(trade.worst)
    assert position["exit_time"] == DECIDED + trade.known * MINUTE
