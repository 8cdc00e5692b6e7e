"""Sources of bars behind one protocol: recorded files, a synthetic market, Binance."""
