"""The README's configuration: what it says of a variable is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from orchestration.gate_settings import GateSettings
from orchestration.resources import TrainingSettings
from perpforge.demo.building import SMALLER_GATE
from trading_worker.settings import table

ROOT = Path(__file__).resolve().parents[2]
MODULES_AND_STORE = {
    "ENABLE_MEMORY_MAPPED_STORAGE",
    "ENABLE_INCREMENTAL_CACHE",
    "SNAPSHOT_MINUTES",
    "ENABLE_MARKET_REGIME_PREDICTION",
    "REGIME_PREDICTION_THRESHOLD",
    "REGIME_PREDICTION_LOOKBACK",
    "ENABLE_DYNAMIC_FEATURES",
    "DYNAMIC_FEATURE_MIN_SHARPE",
    "DYNAMIC_FEATURE_MAX_COUNT",
    "ENABLE_LIQUIDITY_HUNTING",
    "LIQUIDITY_HUNT_CONFIDENCE_THRESHOLD",
    "LIQUIDITY_SLIPPAGE_TOLERANCE",
}
ELSEWHERE = {"LAKE_URI", "MARKET_SOURCE", "BINANCE_BASE_URL", "BINANCE_WS_URL"}
"""Whose default is a place that the README shortens or calls by another name."""


def shown() -> dict[str, str]:
    """Each variable of the table and its default."""
    part = (ROOT / "README.md").read_text().split("## Configuration")[1].split("\n## ")[0]
    rows = [
        (re.findall(r"`([^`]*)`", names), re.findall(r"`([^`]*)`", defaults))
        for names, defaults in re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", part, flags=re.MULTILINE)
    ]
    # A row without a literal default names it in words.
    return {name: value for names, values in rows if values for name, value in zip(names, values, strict=True)}


def test_every_setting_of_the_modules_and_of_the_store_is_there() -> None:
    assert shown().keys() >= MODULES_AND_STORE


def test_defaults_are_those_of_the_worker() -> None:
    worker = {row.variable: row.default for row in table()}
    common = shown().keys() & worker.keys() - ELSEWHERE
    assert len(common) > 15
    assert {name: shown()[name] for name in common} == {name: worker[name] for name in common}


def test_and_of_the_assets() -> None:
    fields = {name.upper(): field.default for name, field in TrainingSettings.model_fields.items()}
    for name in ("DYNAMIC_FEATURE_MIN_SHARPE", "DYNAMIC_FEATURE_MAX_COUNT"):
        assert shown()[name] == str(fields[name])
    for row in table():
        name = row.variable.removeprefix("ENABLE_")
        if row.variable in MODULES_AND_STORE and name in fields:
            assert row.default == str(fields[name]).lower(), f"{row.variable} differs between assets and worker"


def test_and_of_the_gate() -> None:
    fields = {f"GATE_{name.upper()}": field.default for name, field in GateSettings.model_fields.items()}
    named = shown().keys() & fields.keys()
    assert len(named) == 5
    for name in named:
        assert shown()[name] == (f"{fields[name]:g}" if isinstance(fields[name], float) else str(fields[name]))
    assert float(shown()["TRAINING_HOLDOUT_HOURS"]) == TrainingSettings().holdout_hours
    every = set(re.findall(r"`(GATE_\w+)`", (ROOT / "docs" / "architecture.md").read_text()))
    assert every == {
        name for name in fields if name not in ("GATE_STRATEGY_MODE", "GATE_MIN_QUALITY", "GATE_MAX_OPEN_PER_SYMBOL")
    }


def test_what_the_demo_asks_less_of_the_gate_is_told() -> None:
    text = (ROOT / "README.md").read_text()
    assert SMALLER_GATE == {"evidence": "not_worse", "fewest_positions": 60, "fewest_days": 0.75}
    assert "60 closed positions in 0.75 days in place of 300 in 5, and `not_worse` in place of `better`" in text


def test_the_pages_that_it_links_are_there() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]*)", (ROOT / "README.md").read_text()))
    assert "docs/optional_modules.md" in linked
    assert linked <= {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")}
