"""The worker's configuration: environment variables, each with its unit, its default and the reason for it.

`load()` reads the environment; a value that is not allowed raises `SettingInvalid`, which names the variable, the
value and what is allowed. `EngineSettings` is the part that decisions depend on, and all that the core sees.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from features.barriers import CostModel, TradePlan
from features.liquidity import HuntSettings
from features.regime_inputs import FEWEST_BARS
from trading_worker.errors import SettingInvalid, UnknownStrategy
from trading_worker.strategies import strategy


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What decisions depend on besides bars and bundle.

    Raises `UnknownStrategy` or `SettingInvalid` for values that make no sense.
    """

    strategy_mode: str = "hybrid"
    """Name of the strategy."""
    min_confidence: float = 0.35
    """Least win probability of a signal, 0 to 1. Every signal becomes a label, so it is set low on purpose."""
    min_quality: float = 0.0
    """Least quality score of a signal, 0 to 1. 0 keeps all: the win model has the score among its inputs."""
    max_open_per_symbol: int = 1
    """Most pending and open positions per symbol and direction: more would be the same bet again, and their labels
    would overlap almost wholly."""
    abstain_when_unlike: bool = True
    """Drop candidates whose window is unlike the training data."""
    silence_grace_minutes: int = 60
    """How long after its expiry a position waits for a bar of a silent symbol before it is given up."""
    plan: TradePlan | None = None
    """Stop, target and horizon; None takes those that the bundle was trained with."""
    costs: CostModel | None = None
    """Fees, spread and slippage; None takes those that the bundle was trained with."""
    incremental_cache: bool = True
    """Whether features step on from their state; else each row is computed anew from its window of bars."""

    regime_prediction: bool = False
    """Whether the regime in force is the bundle's forecast, where it is sure enough; else that of the row."""
    regime_threshold: float = 0.70
    """Least probability of a forecast in force, 0 to 1."""
    regime_lookback: int = 10
    """Bars that the forecast looks back: a predictor that was trained with other ones is not used."""
    dynamic_features: bool = False
    """Whether the win model is given the bundle's dynamic features; else they are unknown to it."""
    hunting: HuntSettings | None = None
    """When pools of liquidity are hunted; None never."""

    def __post_init__(self) -> None:
        strategy(self.strategy_mode)
        if not 0.0 <= self.regime_threshold <= 1.0:
            raise SettingInvalid("REGIME_PREDICTION_THRESHOLD", self.regime_threshold, "a number from 0 to 1")
        if self.regime_lookback < FEWEST_BARS:
            raise SettingInvalid(
                "REGIME_PREDICTION_LOOKBACK", self.regime_lookback, f"a whole number from {FEWEST_BARS}"
            )
        for name in ("min_confidence", "min_quality"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise SettingInvalid(name.upper(), getattr(self, name), "a number from 0 to 1")
        if self.max_open_per_symbol < 1:
            raise SettingInvalid("MAX_OPEN_PER_SYMBOL", self.max_open_per_symbol, "a whole number from 1")
        if self.silence_grace_minutes < 0:
            raise SettingInvalid("silence_grace_minutes", self.silence_grace_minutes, "minutes from 0")


RESERVED: dict[str, str] = {
    "TRADING_ENABLED": "false",
    "TIMEFRAMES": "5m,15m,1h",
}
"""Names with one behaviour so far: another value than this one is refused, since it would silently do nothing."""


def _about(default: Any, unit: str, why: str, **limits: Any) -> Any:
    return Field(default=default, description=why, json_schema_extra={"unit": unit}, **limits)


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class WorkerSettings(BaseSettings):
    """Everything that the worker reads from its environment. The variable is the field's name in capitals."""

    model_config = SettingsConfigDict(frozen=True, case_sensitive=False, extra="ignore")

    worker_name: str = _about(
        "worker", "name", "names this worker's journal and its labels", pattern=r"^[A-Za-z0-9_.-]{1,64}$"
    )
    state_dir: Path = _about(Path("./.perpforge/state"), "folder", "journal, snapshots and the last good bundle")
    lake_uri: str = _about("./.perpforge/lake", "path, file:// or s3://", "where closed journal segments go")
    mlflow_tracking_uri: str = _about("http://127.0.0.1:5000", "URL", "whose champion is followed", min_length=1)
    market_source: str = _about(
        "synthetic:seed=7,symbols=12,edge=planted", "source", "history for a cold start when there is no venue"
    )
    binance_base_url: str = _about("https://fapi.binance.com", "URL", "REST of the venue or its simulator")
    binance_ws_url: str = _about("wss://fstream.binance.com", "URL", "streams of the venue or its simulator")
    universe_size: int = _about(200, "symbols", "most traded symbols to follow", ge=1, le=1000)
    strategy_mode: str = _about("hybrid", "name", "ict, self_learning or hybrid")
    min_confidence: Fraction = _about(0.35, "probability", "low, as every signal becomes a label to learn from")
    min_quality: Fraction = _about(0.0, "score", "0 keeps all: the win model has the score among its inputs")
    max_open_per_symbol: int = _about(1, "positions", "per symbol and direction; more is the same bet", ge=1, le=100)
    retrain_after_labels: int = _about(100, "labels", "live labels that start a retraining", ge=1)
    enable_memory_mapped_storage: bool = _about(
        True, "true or false", "state of every minute in a memory-mapped file: a restart re-runs only what it missed"
    )
    enable_incremental_cache: bool = _about(
        True,
        "true or false",
        "false computes every row anew from its window: the same to 1e-4, a hundred times slower",
    )
    enable_quantization: bool = _about(
        True,
        "true or false",
        "false runs the bundle's networks as fp32; best trained with false too",
    )
    enable_batch_prediction: bool = _about(
        True, "true or false", "single questions wait up to 100 ms for company of up to 32; false asks one by one"
    )
    enable_market_regime_prediction: bool = _about(
        False, "true or false", "take the regime from the bundle's forecast; without it, from ADX and Bollinger width"
    )
    regime_prediction_threshold: Fraction = _about(0.70, "probability", "a forecast below it is not in force")
    regime_prediction_lookback: int = _about(
        10, "bars", "that the forecast looks back; as the bundle was trained", ge=FEWEST_BARS, le=32
    )
    enable_dynamic_features: bool = _about(
        False, "true or false", "give the win model the bundle's dynamic features; without it, or them, it does without"
    )
    enable_liquidity_hunting: bool = _about(
        False, "true or false", "consider trades at pools of liquidity; without it these are levels of the range only"
    )
    liquidity_hunt_confidence_threshold: Fraction = _about(0.60, "score", "least score of a pool that is hunted")
    liquidity_slippage_tolerance: float = _about(
        0.003, "fraction of the price", "how near to a pool price must be", gt=0, lt=1
    )
    snapshot_minutes: int = _about(
        15, "minutes of market time", "re-run at most after a loss of power, or without mapped storage", ge=1, le=1440
    )
    segment_bytes: int = _about(
        1 << 20, "bytes", "size at which a journal segment is closed and published", ge=4096, le=1 << 30
    )
    wave_deadline_ms: int = _about(
        10_000, "ms of venue time", "the venue closes bars about 2 s late; after this REST is asked", ge=0, le=60_000
    )
    bundle_poll_s: float = _about(5.0, "seconds", "how often the champion alias is looked at", gt=0, le=3600)
    host: str = _about("127.0.0.1", "address", "the status page has no login, so loopback only")
    port: int = _about(8080, "port", "of the status page; 0 picks a free one", ge=0, le=65_535)

    @field_validator("strategy_mode")
    @classmethod
    def _known_strategy(cls, value: str) -> str:
        try:
            strategy(value)
        except UnknownStrategy as error:
            raise ValueError(f"one of {', '.join(error.known)}") from None
        return value

    def engine(self) -> EngineSettings:
        """The core's part."""
        return EngineSettings(
            strategy_mode=self.strategy_mode,
            min_confidence=self.min_confidence,
            min_quality=self.min_quality,
            max_open_per_symbol=self.max_open_per_symbol,
            incremental_cache=self.enable_incremental_cache,
            regime_prediction=self.enable_market_regime_prediction,
            regime_threshold=self.regime_prediction_threshold,
            regime_lookback=self.regime_prediction_lookback,
            dynamic_features=self.enable_dynamic_features,
            hunting=self.hunting() if self.enable_liquidity_hunting else None,
        )

    def hunting(self) -> HuntSettings:
        """When pools of liquidity are hunted, if they are."""
        return HuntSettings(self.liquidity_hunt_confidence_threshold, self.liquidity_slippage_tolerance)


def load(environment: Mapping[str, str] | None = None) -> WorkerSettings:
    """The settings of the environment (the process's when None); `SettingInvalid` for the first bad value.

    An empty variable counts as unset.

    >>> load({"MIN_CONFIDENCE": "0.5"}).min_confidence
    0.5
    >>> load({"UNIVERSE_SIZE": "all"})
    Traceback (most recent call last):
    trading_worker.errors.SettingInvalid: UNIVERSE_SIZE=all is not allowed: a valid integer, ... (symbols)
    """
    given = os.environ if environment is None else environment
    variables = {name.upper(): value for name, value in given.items() if value.strip()}
    for name, only in RESERVED.items():
        value = variables.get(name, only)
        if value.strip().lower() != only:
            raise SettingInvalid(name, value, f"only {only} in this version")
    fields = WorkerSettings.model_fields
    try:
        # Every field is passed, so that nothing is read from the process's environment behind the caller's back.
        return WorkerSettings(**{name: variables.get(name.upper(), field.default) for name, field in fields.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise SettingInvalid(name.upper(), first["input"], _allowed(name, first["msg"])) from None


def _allowed(name: str, message: str) -> str:
    unit = _unit(name)
    return f"{message.removeprefix('Value error, ').removeprefix('Input should be ')} ({unit})"


def _unit(name: str) -> str:
    extra = WorkerSettings.model_fields[name].json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""


class Row(NamedTuple):
    """One line of the configuration table."""

    variable: str
    default: str
    unit: str
    why: str


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def table() -> list[Row]:
    """The configuration table, as the README shows it."""
    rows = [
        Row(name.upper(), _shown(field.default), _unit(name), field.description or "")
        for name, field in WorkerSettings.model_fields.items()
    ]
    return rows + [Row(name, only, "", "no other value in this version") for name, only in RESERVED.items()]
