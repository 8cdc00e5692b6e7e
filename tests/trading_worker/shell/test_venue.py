"""A ban is kept: nobody asks while it lasts."""

from __future__ import annotations

import pytest

from market.binance.errors import IpBanned
from trading_worker.shell.venue import BAN_S, Ban


async def test_nothing_is_asked_while_a_ban_lasts_and_then_again() -> None:
    now, asked = [0.0], 0
    ban = Ban(lambda: now[0])

    async def question() -> int:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise IpBanned(418, -1003, "banned")
        return asked

    for seconds in (0.0, 1.0, BAN_S - 1.0):
        now[0] = seconds
        with pytest.raises(IpBanned):
            await ban.ask(question)
    assert asked == 1
    now[0] = BAN_S
    assert await ban.ask(question) == 2
