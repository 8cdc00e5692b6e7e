"""REST answers about an account: balance, account, position risk; versions 2 and 3."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from market.simulator.venue.accounts import Account
from market.simulator.venue.brackets import most_notional
from market.simulator.venue.events import break_even_price, plain, price_text
from market.simulator.venue.margin import Margins, Market, exposure, liquidation_price, maintenance_of, margins
from market.simulator.venue.positions import Position

ZERO = Decimal(0)


def balance_rows(account: Account, market: Market, now_ms: int) -> list[dict[str, Any]]:
    """`GET /fapi/v2/balance` and v3."""
    found = margins(account, market)
    return [
        {
            "accountAlias": "sim",
            "asset": "USDT",
            "balance": price_text(found.wallet),
            "crossWalletBalance": price_text(found.cross_wallet),
            "crossUnPnl": price_text(found.cross_unrealized),
            "availableBalance": price_text(found.available),
            "maxWithdrawAmount": price_text(_withdrawable(found)),
            "marginAvailable": True,
            "updateTime": now_ms,
        }
    ]


def _withdrawable(found: Margins) -> Decimal:
    return max(ZERO, min(found.free, found.free - found.cross_unrealized))


def account_answer(account: Account, market: Market, now_ms: int, version: int) -> dict[str, Any]:
    """`GET /fapi/v2/account` with the positions of every symbol, v3 with those that are held or ordered."""
    found = margins(account, market)
    sums = {
        "totalInitialMargin": price_text(found.position_initial + found.open_order_initial),
        "totalMaintMargin": price_text(found.maintenance),
        "totalWalletBalance": price_text(found.wallet),
        "totalUnrealizedProfit": price_text(found.unrealized),
        "totalMarginBalance": price_text(found.wallet + found.unrealized),
        "totalPositionInitialMargin": price_text(found.position_initial),
        "totalOpenOrderInitialMargin": price_text(found.open_order_initial),
        "totalCrossWalletBalance": price_text(found.cross_wallet),
        "totalCrossUnPnl": price_text(found.cross_unrealized),
        "availableBalance": price_text(found.available),
        "maxWithdrawAmount": price_text(_withdrawable(found)),
    }
    asset = {
        "asset": "USDT",
        "walletBalance": price_text(found.wallet),
        "unrealizedProfit": price_text(found.unrealized),
        "marginBalance": price_text(found.wallet + found.unrealized),
        "maintMargin": price_text(found.maintenance),
        "initialMargin": price_text(found.position_initial + found.open_order_initial),
        "positionInitialMargin": price_text(found.position_initial),
        "openOrderInitialMargin": price_text(found.open_order_initial),
        "crossWalletBalance": price_text(found.cross_wallet),
        "crossUnPnl": price_text(found.cross_unrealized),
        "availableBalance": price_text(found.available),
        "maxWithdrawAmount": price_text(_withdrawable(found)),
        "updateTime": now_ms,
    }
    if version == 3:
        positions = [_account_position(account, position, market) for position in listed_positions(account, market)]
        return {**sums, "assets": [asset], "positions": positions}
    every = [position for symbol in market.rules for position in _all_sides(account, symbol)]
    rows = [_account_position(account, each, market) | _v2_extras(account, each, market) for each in every]
    head = {
        "feeTier": 0,
        "feeBurn": False,
        "canTrade": True,
        "canDeposit": True,
        "canWithdraw": True,
        "updateTime": 0,
        "multiAssetsMargin": False,
        "tradeGroupId": -1,
    }
    return {**head, **sums, "assets": [{**asset, "marginAvailable": True}], "positions": rows}


def _all_sides(account: Account, symbol: str) -> list[Position]:
    both = account.positions.get(f"{symbol}|BOTH") or Position(symbol, "BOTH")
    return [both] if not account.hedge else [both, *account.sides(symbol)]


def listed_positions(account: Account, market: Market) -> list[Position]:
    """The positions that version 3 lists: held, or of a symbol with an open order."""
    ordered = {(order.symbol, order.position_side) for order in account.open_orders.values()}
    return [
        position
        for symbol in market.rules
        if symbol in account.active_symbols()
        for position in account.sides(symbol)
        if position.quantity or (symbol, position.side) in ordered
    ]


def _account_position(account: Account, position: Position, market: Market) -> dict[str, Any]:
    """A position as `account` tells it. A symbol that has had no price yet counts with a price of zero."""
    quote = market.quotes.get(position.symbol)
    mark = quote.mark if quote else ZERO
    leverage = account.settings_of(position.symbol).leverage
    held, total = exposure(account, position.symbol, mark) if quote else (ZERO, ZERO)
    return {
        "symbol": position.symbol,
        "positionSide": position.side,
        "positionAmt": plain(position.quantity),
        "unrealizedProfit": price_text(position.unrealized(mark)),
        "isolatedMargin": price_text(_isolated_margin(position, mark)),
        "notional": price_text(position.notional(mark)),
        "isolatedWallet": plain(position.isolated_wallet),
        "initialMargin": price_text(total / leverage),
        "positionInitialMargin": price_text(abs(position.notional(mark)) / leverage),
        "openOrderInitialMargin": price_text((total - held) / leverage),
        "maintMargin": price_text(maintenance_of(position, market) if position.quantity else ZERO),
        "updateTime": position.updated_ms,
    }


def _isolated_margin(position: Position, mark: Decimal) -> Decimal:
    return position.isolated_wallet + position.unrealized(mark) if position.isolated_wallet else ZERO


def _v2_extras(account: Account, position: Position, market: Market) -> dict[str, Any]:
    settings = account.settings_of(position.symbol)
    return {
        "leverage": str(settings.leverage),
        "isolated": settings.isolated,
        "entryPrice": price_text(position.entry_price),
        "breakEvenPrice": price_text(break_even_price(account, position)),
        "maxNotional": plain(most_notional(market.rules[position.symbol].brackets, settings.leverage)),
        "bidNotional": "0",
        "askNotional": "0",
    }


def risk_rows(account: Account, market: Market, symbols: Iterable[str], version: int) -> list[dict[str, Any]]:
    """`GET /fapi/v2/positionRisk` of every symbol asked for, v3 of those that are held or ordered."""
    if version == 3:
        chosen = set(symbols)
        positions = [position for position in listed_positions(account, market) if position.symbol in chosen]
    else:
        positions = [position for symbol in symbols for position in _all_sides(account, symbol)]
    return [_risk_row(account, position, market, version) for position in positions]


def _risk_row(account: Account, position: Position, market: Market, version: int) -> dict[str, Any]:
    quote = market.quotes.get(position.symbol)
    mark = quote.mark if quote else ZERO
    settings = account.settings_of(position.symbol)
    row = {
        "symbol": position.symbol,
        "positionSide": position.side,
        "positionAmt": plain(position.quantity),
        "entryPrice": price_text(position.entry_price),
        "breakEvenPrice": price_text(break_even_price(account, position)),
        "markPrice": price_text(mark),
        "unRealizedProfit": price_text(position.unrealized(mark)),
        "liquidationPrice": price_text(liquidation_price(account, position, market)),
        "isolatedMargin": price_text(_isolated_margin(position, mark)),
        "notional": price_text(position.notional(mark)),
        "isolatedWallet": plain(position.isolated_wallet),
        "updateTime": position.updated_ms,
    }
    if version == 2:
        return {
            **row,
            "leverage": str(settings.leverage),
            "maxNotionalValue": plain(most_notional(market.rules[position.symbol].brackets, settings.leverage)),
            "marginType": "isolated" if settings.isolated else "cross",
            "isAutoAddMargin": "false",
        }
    held, total = exposure(account, position.symbol, mark) if quote else (ZERO, ZERO)
    return {
        **row,
        "marginAsset": "USDT",
        "initialMargin": price_text(total / settings.leverage),
        "maintMargin": price_text(maintenance_of(position, market) if position.quantity else ZERO),
        "positionInitialMargin": price_text(abs(position.notional(mark)) / settings.leverage),
        "openOrderInitialMargin": price_text((total - held) / settings.leverage),
        "adl": 1 if position.quantity else 0,
        "bidNotional": "0",
        "askNotional": "0",
    }
