"""The Binance USDⓈ-M client."""
