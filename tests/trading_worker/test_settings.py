"""Configuration: names, defaults, and refusals that say what is allowed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from features.liquidity import HuntSettings
from trading_worker.errors import SettingInvalid, UnknownStrategy
from trading_worker.settings import RESERVED, EngineSettings, WorkerSettings, load, table


def test_defaults_are_the_documented_ones() -> None:
    settings = load({})
    assert (settings.strategy_mode, settings.min_confidence, settings.universe_size) == ("hybrid", 0.35, 200)
    assert (settings.retrain_after_labels, settings.host, settings.port) == (100, "127.0.0.1", 8080)
    assert settings.engine() == EngineSettings()


def test_variables_are_read_by_name_whatever_their_case() -> None:
    settings = load({"MIN_CONFIDENCE": "0.5", "strategy_mode": "ict", "PORT": "0", "LAKE_URI": "s3://bucket/lake"})
    assert (settings.min_confidence, settings.strategy_mode, settings.port) == (0.5, "ict", 0)
    assert settings.lake_uri == "s3://bucket/lake"
    assert settings.engine().min_confidence == 0.5


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIVERSE_SIZE", "12")
    assert load().universe_size == 12
    assert load({}).universe_size == 200, "a given environment is the whole environment"


def test_optional_modules_are_off_until_they_are_switched_on() -> None:
    off = load({"REGIME_PREDICTION_THRESHOLD": "0.8", "LIQUIDITY_HUNT_CONFIDENCE_THRESHOLD": "0.5"}).engine()
    assert (off.regime_prediction, off.hunting) == (False, None)
    on = load(
        {
            "ENABLE_MARKET_REGIME_PREDICTION": "true",
            "REGIME_PREDICTION_LOOKBACK": "12",
            "ENABLE_LIQUIDITY_HUNTING": "True",
            "LIQUIDITY_SLIPPAGE_TOLERANCE": "0.002",
        }
    ).engine()
    assert (on.regime_prediction, on.regime_threshold, on.regime_lookback) == (True, 0.70, 12)
    assert on.hunting == HuntSettings(threshold=0.60, tolerance=0.002)


def test_an_empty_variable_is_unset() -> None:
    assert load({"MIN_CONFIDENCE": " "}).min_confidence == 0.35


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("MIN_CONFIDENCE", "1.5", "less than or equal to 1"),
        ("MIN_CONFIDENCE", "nan", "probability"),
        ("UNIVERSE_SIZE", "all", "a valid integer"),
        ("UNIVERSE_SIZE", "0", "greater than or equal to 1"),
        ("STRATEGY_MODE", "momentum", "one of ict, self_learning, hybrid"),
        ("PORT", "70000", "less than or equal to 65535"),
        ("ENABLE_LIQUIDITY_HUNTING", "perhaps", "a valid boolean"),
        ("LIQUIDITY_SLIPPAGE_TOLERANCE", "0", "greater than 0"),
        ("REGIME_PREDICTION_LOOKBACK", "3", "greater than or equal to 4"),
        ("WORKER_NAME", "a/b", "should match pattern"),
        ("TRADING_ENABLED", "true", "only false"),
        ("TIMEFRAMES", "1m", "only 5m,15m,1h"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        load({variable: value})
    assert caught.value.variable == variable
    assert str(caught.value.value) == value
    assert allowed in str(caught.value)


def test_reserved_variables_may_say_what_is_so_anyway() -> None:
    assert load(RESERVED) == load({})


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError):
        load({}).port = 1  # type: ignore[misc]


def test_the_table_explains_every_variable() -> None:
    rows = table()
    assert {row.variable for row in rows} == {name.upper() for name in WorkerSettings.model_fields} | RESERVED.keys()
    assert all(row.default and row.why for row in rows)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"strategy_mode": "momentum"}, UnknownStrategy),
        ({"min_confidence": -0.1}, SettingInvalid),
        ({"min_quality": float("nan")}, SettingInvalid),
        ({"max_open_per_symbol": 0}, SettingInvalid),
        ({"silence_grace_minutes": -1}, SettingInvalid),
        ({"regime_threshold": 1.01}, SettingInvalid),
        ({"regime_lookback": 3}, SettingInvalid),
    ],
)
def test_engine_settings_refuse_nonsense(values: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        EngineSettings(**values)  # type: ignore[arg-type]
