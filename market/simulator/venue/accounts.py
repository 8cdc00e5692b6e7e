"""An account: its wallet, positions, settings, orders, and the record of everything that changed its wallet."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct, field

from market.simulator.venue.orders import AlgoOrder, Income, Order, Trade
from market.simulator.venue.positions import Position, PositionSide

ZERO = Decimal(0)
DEFAULT_LEVERAGE = 20
MAKER_FEE, TAKER_FEE = Decimal("0.0002"), Decimal("0.0005")


class SymbolSettings(Struct):
    """Leverage and margin type of one symbol."""

    leverage: int = DEFAULT_LEVERAGE
    isolated: bool = False


class MarginFlows(Struct):
    """What has gone into the isolated margin of one position, and out of it, USDT."""

    set_aside: Decimal = ZERO
    """By fills that opened."""
    freed: Decimal = ZERO
    """By fills that closed."""
    moved: Decimal = ZERO
    """By the account's owner; taken away is negative."""
    funded: Decimal = ZERO
    """By fundings; paid is negative."""

    liquidated: Decimal = ZERO
    """By liquidations of a part: what they realised, which stays behind the rest, less their fees."""

    @property
    def left(self) -> Decimal:
        """What there has to be."""
        return self.set_aside - self.freed + self.moved + self.funded + self.liquidated


class Totals(Struct):
    """Sums over the account's life, kept apart from what they explain, so that one can be held against the other."""

    deposits: Decimal = ZERO
    traded: Decimal = ZERO
    """Σ signed quantity × price of all fills."""
    commission: Decimal = ZERO
    funding: Decimal = ZERO
    """Received; paid is negative."""
    insurance: Decimal = ZERO
    """Received from the insurance fund; paid to it is negative."""
    income: Decimal = ZERO
    """Σ of the income record."""
    margins: dict[str, MarginFlows] = field(default_factory=dict)
    """Of each position that ever had isolated margin."""

    def margin_of(self, position: Position) -> MarginFlows:
        """The flows of a position, made when they are first asked for."""
        return self.margins.setdefault(f"{position.symbol}|{position.side}", MarginFlows())


class Account(Struct):
    """One account, named by its API key. Money in USDT."""

    key: str
    secret: str
    """The secret of an HMAC key, or an Ed25519 public key in PEM."""
    wallet: Decimal = ZERO
    hedge: bool = False
    maker_fee: Decimal = MAKER_FEE
    taker_fee: Decimal = TAKER_FEE
    settings: dict[str, SymbolSettings] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    open_orders: dict[int, Order] = field(default_factory=dict)
    past_orders: dict[int, Order] = field(default_factory=dict)
    open_algos: dict[int, AlgoOrder] = field(default_factory=dict)
    past_algos: dict[int, AlgoOrder] = field(default_factory=dict)
    trades: list[Trade] = field(default_factory=list)
    income: list[Income] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    held: dict[str, Decimal] = field(default_factory=dict)
    """Σ signed quantity of the fills of each position, to hold positions against."""
    countdowns: dict[str, int] = field(default_factory=dict)
    """When the open orders of a symbol are cancelled unless the countdown is renewed, ms UTC."""
    margin_called: bool = False

    def position(self, symbol: str, side: PositionSide) -> Position:
        """The position, made when it is first asked for."""
        name = f"{symbol}|{side}"
        if name not in self.positions:
            self.positions[name] = Position(symbol, side)
        return self.positions[name]

    def sides(self, symbol: str) -> list[Position]:
        """The positions that the position mode has in a symbol."""
        sides: tuple[PositionSide, ...] = ("LONG", "SHORT") if self.hedge else ("BOTH",)
        return [self.position(symbol, side) for side in sides]

    def held_positions(self) -> list[Position]:
        """The positions that are not zero."""
        return [position for position in self.positions.values() if position.quantity]

    def settings_of(self, symbol: str) -> SymbolSettings:
        """Settings of a symbol, made when they are first asked for."""
        return self.settings.setdefault(symbol, SymbolSettings())

    def is_isolated(self, symbol: str) -> bool:
        """Whether the symbol's margin type is isolated."""
        found = self.settings.get(symbol)
        return found is not None and found.isolated

    @property
    def cross_wallet(self) -> Decimal:
        """The wallet without what is set aside for isolated positions."""
        return self.wallet - sum((position.isolated_wallet for position in self.positions.values()), ZERO)

    def active_symbols(self) -> set[str]:
        """Symbols with a position, an order or a conditional order: their prices matter to this account."""
        found = {position.symbol for position in self.held_positions()}
        found |= {order.symbol for order in self.open_orders.values()}
        return found | {algo.symbol for algo in self.open_algos.values()}
