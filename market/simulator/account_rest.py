"""Signed REST routes of the account: balances, positions, settings, income."""

from __future__ import annotations

from market.simulator.limits import ORDERS_1M, ORDERS_10S
from market.simulator.order_rest import LONGEST_SPAN_MS, Call, Reply
from market.simulator.parameters import Parameters, position_side_of
from market.simulator.trading import Trading
from market.simulator.venue import settings
from market.simulator.venue.account_answers import account_answer, balance_rows, risk_rows
from market.simulator.venue.accounts import Account
from market.simulator.venue.answers import bracket_rows, commission_row, income_row
from market.simulator.venue.brackets import most_notional
from market.simulator.venue.events import plain
from market.simulator.venue.placing import rules_of
from market.simulator.venue.refusals import Refusal, invalid, missing

SUCCESS = {"code": 200, "msg": "success"}


class AccountRest:
    """Handlers by method and path."""

    def __init__(self, trading: Trading) -> None:
        self._trading = trading
        self.calls: dict[tuple[str, str], Call] = {
            ("GET", "/fapi/v2/account"): lambda account, asked: self.account(account, 2),
            ("GET", "/fapi/v3/account"): lambda account, asked: self.account(account, 3),
            ("GET", "/fapi/v2/balance"): self.balance,
            ("GET", "/fapi/v3/balance"): self.balance,
            ("GET", "/fapi/v2/positionRisk"): lambda account, asked: self.risk(account, asked, 2),
            ("GET", "/fapi/v3/positionRisk"): lambda account, asked: self.risk(account, asked, 3),
            ("GET", "/fapi/v1/accountConfig"): self.account_config,
            ("GET", "/fapi/v1/symbolConfig"): self.symbol_config,
            ("POST", "/fapi/v1/leverage"): self.leverage,
            ("GET", "/fapi/v1/leverageBracket"): self.brackets,
            ("POST", "/fapi/v1/marginType"): self.margin_type,
            ("POST", "/fapi/v1/positionMargin"): self.position_margin,
            ("GET", "/fapi/v1/positionSide/dual"): self.mode,
            ("POST", "/fapi/v1/positionSide/dual"): self.set_mode,
            ("GET", "/fapi/v1/multiAssetsMargin"): self.assets_mode,
            ("POST", "/fapi/v1/multiAssetsMargin"): self.set_assets_mode,
            ("GET", "/fapi/v1/commissionRate"): self.commission,
            ("GET", "/fapi/v1/income"): self.income,
            ("GET", "/fapi/v1/rateLimit/order"): self.rate_limit,
            ("GET", "/fapi/v1/apiTradingStatus"): self.trading_status,
        }

    def account(self, account: Account, version: int) -> Reply:
        """`GET account`, version 2 or 3."""
        venue = self._trading.venue
        return Reply(account_answer(account, venue.market, venue.now_ms, version), weight=5)

    def balance(self, account: Account, asked: Parameters) -> Reply:
        """`GET balance`."""
        venue = self._trading.venue
        return Reply(balance_rows(account, venue.market, venue.now_ms), weight=5)

    def risk(self, account: Account, asked: Parameters, version: int) -> Reply:
        """`GET positionRisk` of one symbol or all."""
        symbol = asked.optional("symbol")
        symbols = (symbol,) if symbol else tuple(self._trading.rules)
        for each in symbols:
            rules_of(self._trading.venue, each)
        return Reply(risk_rows(account, self._trading.venue.market, symbols, version), weight=5)

    def account_config(self, account: Account, asked: Parameters) -> Reply:
        """`GET accountConfig`."""
        body = {
            "feeTier": 0,
            "canTrade": True,
            "canDeposit": True,
            "canWithdraw": True,
            "dualSidePosition": account.hedge,
            "updateTime": 0,
            "multiAssetsMargin": False,
            "tradeGroupId": -1,
        }
        return Reply(body, weight=5)

    def symbol_config(self, account: Account, asked: Parameters) -> Reply:
        """`GET symbolConfig` of one symbol or all."""
        symbol = asked.optional("symbol")
        rows = []
        for each in (symbol,) if symbol else self._trading.rules:
            brackets, chosen = rules_of(self._trading.venue, each).brackets, account.settings_of(each)
            rows.append(
                {
                    "symbol": each,
                    "marginType": "ISOLATED" if chosen.isolated else "CROSSED",
                    "isAutoAddMargin": False,
                    "leverage": chosen.leverage,
                    "maxNotionalValue": plain(most_notional(brackets, chosen.leverage)),
                }
            )
        return Reply(rows, weight=5)

    def leverage(self, account: Account, asked: Parameters) -> Reply:
        """`POST leverage`."""
        symbol, leverage = asked.text("symbol"), asked.integer("leverage")
        if leverage is None:
            raise missing("leverage")
        most = settings.set_leverage(self._trading.venue, account, symbol, leverage)
        return Reply({"symbol": symbol, "leverage": leverage, "maxNotionalValue": plain(most)})

    def brackets(self, account: Account, asked: Parameters) -> Reply:
        """`GET leverageBracket` of one symbol or all; a list in both cases."""
        symbol = asked.optional("symbol")
        symbols = (symbol,) if symbol else tuple(self._trading.rules)
        return Reply([bracket_rows(each, rules_of(self._trading.venue, each).brackets) for each in symbols])

    def margin_type(self, account: Account, asked: Parameters) -> Reply:
        """`POST marginType`: ISOLATED or CROSSED."""
        symbol, kind = asked.text("symbol"), asked.text("marginType")
        if kind not in ("ISOLATED", "CROSSED"):
            raise invalid("marginType")
        settings.set_margin_type(self._trading.venue, account, symbol, kind == "ISOLATED")
        return Reply(SUCCESS)

    def position_margin(self, account: Account, asked: Parameters) -> Reply:
        """`POST positionMargin`: type 1 adds, 2 takes away."""
        amount, kind = asked.number("amount"), asked.integer("type")
        if amount is None:
            raise missing("amount")
        if kind not in (1, 2) or amount <= 0:
            raise invalid("type" if kind not in (1, 2) else "amount")
        signed, side = (amount if kind == 1 else -amount), position_side_of(asked)
        settings.move_margin(self._trading.venue, account, asked.text("symbol"), side, signed)
        return Reply(
            {"amount": float(amount), "code": 200, "msg": "Successfully modify position margin.", "type": kind}
        )

    def mode(self, account: Account, asked: Parameters) -> Reply:
        """`GET positionSide/dual`."""
        return Reply({"dualSidePosition": account.hedge}, weight=30)

    def set_mode(self, account: Account, asked: Parameters) -> Reply:
        """`POST positionSide/dual`, of all symbols."""
        hedge = asked.flag("dualSidePosition")
        if hedge is None:
            raise missing("dualSidePosition")
        settings.set_hedge(account, hedge)
        return Reply(SUCCESS)

    def assets_mode(self, account: Account, asked: Parameters) -> Reply:
        """`GET multiAssetsMargin`: never."""
        return Reply({"multiAssetsMargin": False}, weight=30)

    def set_assets_mode(self, account: Account, asked: Parameters) -> Reply:
        """`POST multiAssetsMargin`: -4171 for single-asset mode, which is the only one there is.

        For the other one -4170 with open orders, -4167 with isolated symbols, as at the venue; else -1020. Never
        -4171, which says that the mode that was asked for is set.
        """
        wanted = asked.flag("multiAssetsMargin")
        if wanted is None:
            raise missing("multiAssetsMargin")
        if not wanted:
            raise Refusal(-4171)
        if account.open_orders or account.open_algos:
            raise Refusal(-4170)
        if any(chosen.isolated for chosen in account.settings.values()):
            raise Refusal(-4167)
        raise Refusal(-1020)

    def commission(self, account: Account, asked: Parameters) -> Reply:
        """`GET commissionRate` of a symbol."""
        symbol = asked.text("symbol")
        rules_of(self._trading.venue, symbol)
        return Reply(commission_row(account, symbol), weight=20)

    def income(self, account: Account, asked: Parameters) -> Reply:
        """`GET income`: ascending; the last seven days unless times are given."""
        start, end = asked.time_range()
        limit, symbol, kind = asked.limit(100, 1000), asked.optional("symbol"), asked.optional("incomeType")
        since = self._trading.venue.now_ms - LONGEST_SPAN_MS if start is None else start
        found = [
            income
            for income in account.income
            if since <= income.time_ms
            and (end is None or income.time_ms <= end)
            and symbol in (None, income.symbol)
            and kind in (None, income.kind)
        ]
        chosen = found[-limit:] if start is None else found[:limit]
        return Reply([income_row(income) for income in chosen], weight=30)

    def rate_limit(self, account: Account, asked: Parameters) -> Reply:
        """`GET rateLimit/order`."""
        rows = [
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": ORDERS_10S},
            {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": ORDERS_1M},
        ]
        return Reply(rows)

    def trading_status(self, account: Account, asked: Parameters) -> Reply:
        """`GET apiTradingStatus`: nobody is locked."""
        return Reply(
            {"updateTime": self._trading.venue.now_ms, "indicators": {}}, weight=1 if "symbol" in asked else 10
        )
