"""What the assets work with: the lake, the market, the registry, and how large a training is.

Every field has a default under which a fresh clone works offline; a variable of the environment that is set takes its
place, by name, so that the UI shows where a value comes from.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from orchestration import environment
from orchestration.gate_settings import GateSettings

if TYPE_CHECKING:
    from features.barriers import CostModel, TradePlan
    from features.liquidity import HuntSettings
    from market.lake import Lake
    from market.sources import BarSource
    from models_registry.registry import Registry
    from models_registry.server import MlflowServer
    from models_registry.training_config import TrainingConfig
    from models_registry.walk_forward import WalkForward
    from orchestration.ingest import MarketView


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The lake."""

    uri: str = Field(default=environment.LAKE_URI, description="A path, file:// or s3:// address.")

    def open(self) -> Lake:
        """The lake itself; nothing need exist yet."""
        from market.lake import Lake

        return Lake(self.uri)


class MarketResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where bars and fundings come from."""

    source: str = Field(default=environment.MARKET_SOURCE, description="As market.sources.open_source takes it.")
    until: str = Field(
        default="",
        description="ISO 8601 time in UTC: bars that open at or after it do not exist yet. Empty: all there are.",
    )
    universe_size: int = Field(default=200, description="The most traded symbols, at most so many.", ge=1)
    most_missing: float = Field(
        default=0.05,
        description="Share of a symbol's day that may have no bars; more blocks what is built on them. A venue that "
        "was closed for hours needs more.",
        ge=0,
        le=1,
    )

    _opened: BarSource | None = PrivateAttr(default=None)

    def view(self) -> MarketView:
        """The market as it is known at `until`."""
        from market.sources import open_source
        from orchestration.ingest import MarketView

        if self._opened is None:
            self._opened = open_source(self.source)
        return MarketView(self._opened, parse_time(self.until))


class RegistryResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The MLflow registry and its ledger.

    Bundles are registered through a server. Where none is named and none answers at the default address, one is
    started over `home` when a run first needs it, and ended after the run.
    """

    tracking_uri: str = Field(default="", description=f"Empty: {environment.DEFAULT_TRACKING_URI}, or one of our own.")
    home: str = Field(default=environment.MLFLOW_HOME, description="Folder of a server that is started here.")
    ledger: str = Field(default=environment.LEDGER_PATH, description="File of the ledger of champions.")

    _server: MlflowServer | None = PrivateAttr(default=None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def open(self, lake: Lake | None = None) -> Registry:
        """The registry. Who moves the champion gives the `lake` whose live outcomes its tenure is told apart by."""
        from models_registry.registry import Registry
        from orchestration.label_store import live_until

        return Registry(self._uri(), Path(self.ledger), live_until=lambda: None if lake is None else live_until(lake))

    def address(self) -> str | None:
        """The server that answers by itself, for somebody who must not start one; None when none does."""
        from models_registry.server import answers

        if self.tracking_uri:
            return self.tracking_uri
        return environment.DEFAULT_TRACKING_URI if answers(environment.DEFAULT_TRACKING_URI) else None

    def _uri(self) -> str:
        from models_registry.server import MlflowServer, answers

        if self.tracking_uri:
            return self.tracking_uri
        with self._lock:
            if self._server is None and answers(environment.DEFAULT_TRACKING_URI):
                return environment.DEFAULT_TRACKING_URI
            if self._server is None:
                dg.get_dagster_logger().info("no MLflow server answers: starting one on %s for this run", self.home)
                self._server = MlflowServer(self.home).start()
            return self._server.url

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the server, if it was ours."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()


class TrainingSettings(dg.ConfigurableResource):  # type: ignore[type-arg]
    """How much data a training takes and how long it goes on."""

    seed: int = Field(default=7, description="Of every model.")
    history_days: int = Field(default=90, description="The newest days of klines that are learnt from.", ge=1)
    half_life_days: float = Field(
        default=45.0,
        description="A label this much older than the newest counts half of it. By default half of the history: its "
        "oldest day counts a quarter, which costs an eighth of the effective rows. 0: all ages count alike.",
        ge=0,
    )
    holdout_hours: float = Field(
        default=144.0,
        description="The last hours of decisions judge the models and are not learnt from. The gate replays them and "
        "asks for its fewest days there, after a position's horizon is taken off.",
        gt=0,
    )
    validation_fraction: float = Field(
        default=0.2, description="Share of the rows before the holdout that stops the training and calibrates."
    )
    epochs: int = Field(
        default=20,
        description="Most epochs of the autoencoder; the other networks' most go with it, and all that continue.",
        ge=1,
    )
    max_windows: int = Field(default=30_000, description="Most windows that the autoencoder is fitted to.", ge=1)
    rounds: int = Field(default=400, description="Most rounds of the win model.", ge=1)
    fewest_rows: int = Field(default=500, description="Fewer labels than this are not fitted to.", ge=10)
    min_confidence: float = Field(default=0.35, description="Win probability from which a candidate counts as traded.")
    quantise: bool = Field(default=True, description="Serve INT8 where it passes, else fp32.")
    feature_network: bool = Field(default=True, description="Train it; else its plain version stands in.")
    liquidity_predictor: bool = Field(default=True, description="Train it; else its plain version stands in.")
    strategy_dqn: bool = Field(default=True, description="Train it; else its plain version stands in.")
    most_opportunities: int = Field(
        default=24_000, description="Most opportunities that the strategy learns from and is judged on.", ge=100
    )
    market_regime_prediction: bool = Field(default=False, description="Train a predictor of the regime an hour ahead.")
    regime_prediction_threshold: float = Field(
        default=0.70, description="Least probability of a forecast in force.", ge=0, le=1
    )
    regime_prediction_lookback: int = Field(default=10, description="Bars that the forecast looks back.", ge=4, le=32)
    liquidity_hunting: bool = Field(default=False, description="Label candidates that hunt liquidity, too.")
    liquidity_hunt_confidence_threshold: float = Field(
        default=0.60, description="Least score of a pool that is hunted.", ge=0, le=1
    )
    liquidity_slippage_tolerance: float = Field(
        default=0.003, description="How near to a pool price must be, as a fraction of it.", gt=0, lt=1
    )
    dynamic_features: bool = Field(default=False, description="Search for dynamic features and learn with them.")
    dynamic_feature_min_sharpe: float = Field(
        default=1.0, description="Least information ratio of one, a year's, after the correction for all tries.", ge=0
    )
    dynamic_feature_max_count: int = Field(default=20, description="Most of them, over all regimes.", ge=1, le=200)

    evaluation_folds: int = Field(default=4, description="Folds of time that the models are judged on.", ge=4)
    evaluation_every: int = Field(
        default=3, description="A fold of the evaluation learns from every so many-th decision before it.", ge=1
    )
    evaluation_prequential: bool = Field(
        default=True, description="Judge the models that go on from a champion so, too."
    )

    def walk_forward(self) -> WalkForward:
        """How the models are evaluated."""
        from models_registry.walk_forward import WalkForward

        return WalkForward(
            folds=self.evaluation_folds, every=self.evaluation_every, prequential=self.evaluation_prequential
        )

    def half_life(self) -> float | None:
        """Days after which a label counts half, None when age does not matter."""
        return self.half_life_days or None

    def plan(self) -> TradePlan:
        """Where stop, target and expiry lie."""
        from features.barriers import TradePlan

        return TradePlan()

    def costs(self) -> CostModel:
        """What trading costs."""
        from features.barriers import CostModel

        return CostModel()

    def hunting(self) -> HuntSettings | None:
        """When pools of liquidity are hunted; None when they are not."""
        from features.liquidity import HuntSettings

        if not self.liquidity_hunting:
            return None
        return HuntSettings(self.liquidity_hunt_confidence_threshold, self.liquidity_slippage_tolerance)

    def config(self, last_decided_at: int, parent: str | None = None) -> TrainingConfig:
        """The configuration of one training whose newest decision was at `last_decided_at` (ms)."""
        from orchestration.training_configs import training_config

        return training_config(self, last_decided_at, parent)


def parse_time(time: str) -> int | None:
    """An ISO 8601 time (UTC unless it says otherwise) in milliseconds; None for an empty text.

    >>> parse_time("2026-01-05T00:01:00"), parse_time("2026-01-05"), parse_time("")
    (1767571260000, 1767571200000, None)
    """
    from datetime import UTC, datetime

    if not time:
        return None
    parsed = datetime.fromisoformat(time)
    return round((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


def from_environment() -> dict[str, object]:
    """The resources as the environment has them."""
    text, whole = environment.text, environment.whole
    return {
        "lake": LakeResource(uri=text("LAKE_URI", environment.LAKE_URI)),
        "market": MarketResource(
            source=text("MARKET_SOURCE", environment.MARKET_SOURCE),
            until=text("MARKET_UNTIL", ""),
            universe_size=whole("UNIVERSE_SIZE", 200),
            most_missing=float(environment.now("KLINES_MOST_MISSING", "0.05")),
        ),
        "registry": RegistryResource(
            tracking_uri=text("MLFLOW_TRACKING_URI", ""),
            home=text("MLFLOW_HOME", environment.MLFLOW_HOME),
            ledger=text("LEDGER_PATH", environment.LEDGER_PATH),
        ),
        "training": TrainingSettings(
            seed=whole("TRAINING_SEED", 7),
            history_days=whole("TRAINING_HISTORY_DAYS", 90),
            epochs=whole("TRAINING_EPOCHS", 20),
            max_windows=whole("TRAINING_MAX_WINDOWS", 30_000),
            half_life_days=float(environment.now("TRAINING_HALF_LIFE_DAYS", "45")),
            holdout_hours=float(environment.now("TRAINING_HOLDOUT_HOURS", "144")),
            min_confidence=float(environment.now("MIN_CONFIDENCE", "0.35")),
            quantise=environment.switch("ENABLE_QUANTIZATION", default=True),
            market_regime_prediction=environment.switch("ENABLE_MARKET_REGIME_PREDICTION"),
            regime_prediction_threshold=float(environment.now("REGIME_PREDICTION_THRESHOLD", "0.70")),
            regime_prediction_lookback=int(environment.now("REGIME_PREDICTION_LOOKBACK", "10")),
            liquidity_hunting=environment.switch("ENABLE_LIQUIDITY_HUNTING"),
            liquidity_hunt_confidence_threshold=float(environment.now("LIQUIDITY_HUNT_CONFIDENCE_THRESHOLD", "0.60")),
            liquidity_slippage_tolerance=float(environment.now("LIQUIDITY_SLIPPAGE_TOLERANCE", "0.003")),
            dynamic_features=environment.switch("ENABLE_DYNAMIC_FEATURES"),
            dynamic_feature_min_sharpe=float(environment.now("DYNAMIC_FEATURE_MIN_SHARPE", "1.0")),
            dynamic_feature_max_count=int(environment.now("DYNAMIC_FEATURE_MAX_COUNT", "20")),
        ),
        "gate": GateSettings(
            evidence=environment.now("GATE_EVIDENCE", "better"),
            fewest_positions=whole("GATE_FEWEST_POSITIONS", 300),
            fewest_days=float(environment.now("GATE_FEWEST_DAYS", "5")),
            fewest_rows=whole("GATE_FEWEST_ROWS", 100),
            log_loss_tolerance=float(environment.now("GATE_LOG_LOSS_TOLERANCE", "0")),
            calibration_tolerance=float(environment.now("GATE_CALIBRATION_TOLERANCE", "0.02")),
            drawdown_ratio=float(environment.now("GATE_DRAWDOWN_RATIO", "1.5")),
            drawdown_floor_r=float(environment.now("GATE_DRAWDOWN_FLOOR_R", "10")),
            turnover_ratio=float(environment.now("GATE_TURNOVER_RATIO", "2")),
            latency_budget_ms=float(environment.now("GATE_LATENCY_BUDGET_MS", "15")),
            demotion_positions=whole("GATE_DEMOTION_POSITIONS", 100),
            strategy_mode=text("STRATEGY_MODE", "hybrid"),
            min_quality=float(environment.now("MIN_QUALITY", "0")),
            max_open_per_symbol=whole("MAX_OPEN_PER_SYMBOL", 1),
        ),
    }
