"""The exchange behind the simulated protocol: accounts, orders, conditional orders, margin and liquidation.

Everything here is pure: time, prices and fundings come in as arguments, what happened comes out as events. There is
no clock, no randomness, no socket. `engine.Venue` puts it together; `books.check` proves that nothing was created
or lost.
"""
