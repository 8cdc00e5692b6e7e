"""A local exchange that speaks Binance's futures protocol, on an accelerated clock."""
