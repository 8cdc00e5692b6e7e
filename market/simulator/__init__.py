"""A local exchange that speaks Binance's futures protocol, on an accelerated clock.

`server.Simulator` puts it together: `rest` answers for what has happened, `player` makes the stream messages of each
minute, `streams` sends them and waits for those who read them, `clock` keeps the time, `tape` reads the source.
"""
