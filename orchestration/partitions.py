"""The days that history is cut into.

One partition a day with all symbols inside. Symbols or timeframes as further dimensions would make tens of
thousands of partitions, under which the Dagster UI freezes.
"""

from __future__ import annotations

import dagster as dg

from orchestration import environment


def daily(start_date: str, end_date: str | None) -> dg.DailyPartitionsDefinition:
    """UTC days from `start_date` to the day before `end_date`; without an end, to yesterday."""
    return dg.DailyPartitionsDefinition(start_date=start_date, end_date=end_date or None, timezone="UTC")


def _from_environment() -> dg.DailyPartitionsDefinition:
    """`KLINES_START_DATE` to `KLINES_END_DATE`.

    The synthetic market has no end, so it is given one; other markets end where the present is.
    """
    synthetic = environment.now("MARKET_SOURCE", environment.MARKET_SOURCE).startswith("synthetic")
    return daily(
        environment.now("KLINES_START_DATE", environment.KLINES_START_DATE),
        environment.now("KLINES_END_DATE", environment.KLINES_END_DATE if synthetic else ""),
    )


DAYS = _from_environment()
"""The partitions of `universe`, `klines`, `funding` and `features`."""

IN_ONE_RUN = dg.BackfillPolicy.single_run()
"""A range of days is one run: a run's start costs more than a day's work, and features must go in order."""
