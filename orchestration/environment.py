"""Settings from the environment, with defaults under which everything works offline in a fresh clone."""

from __future__ import annotations

import os

import dagster as dg

LAKE_URI = "./.perpforge/lake"
MLFLOW_HOME = "./.perpforge/mlflow"
LEDGER_PATH = "./.perpforge/registry/ledger.jsonl"
DEFAULT_TRACKING_URI = "http://127.0.0.1:5000"
MARKET_SOURCE = "synthetic:seed=7,symbols=12,edge=planted,start=2026-01-05"
KLINES_START_DATE = "2026-01-05"
KLINES_END_DATE = "2026-02-16"


def text(name: str, default: str) -> str:
    """The variable as Dagster shows it (by name, not value) where it is set, else the default.

    `EnvVar` alone has no default: a run would fail on a variable that nobody set.
    """
    return dg.EnvVar(name) if os.environ.get(name) else default


def whole(name: str, default: int) -> int:
    """The variable as a whole number; `ValueError` when it is none.

    Its value and not its name: a field with limits would be held to them by the name.

    >>> whole("PERPFORGE_NOBODY_SETS_THIS", 3)
    3
    """
    return int(now(name, str(default)))


def switch(name: str, default: bool = False) -> bool:
    """Whether the variable is true at this moment; `ValueError` unless it says true or false, or nothing.

    >>> switch("PERPFORGE_NOBODY_SETS_THIS"), switch("PERPFORGE_NOBODY_SETS_THIS", default=True)
    (False, True)
    """
    value = now(name, str(default)).strip().lower()
    if value not in ("true", "false"):
        raise ValueError(f"{name}={value} is not allowed: true or false")
    return value == "true"


def now(name: str, default: str) -> str:
    """The variable's value at this moment, for what must be known when the definitions are made."""
    return os.environ.get(name) or default
