"""What a challenger must show before it is champion, as the assets and sensors are configured with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from models_registry.demotion import DemotionRules
    from models_registry.gate_rules import GateRules
    from orchestration.resources import TrainingSettings
    from trading_worker.settings import EngineSettings


class GateSettings(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What a challenger must show, and how its replay trades."""

    evidence: str = Field(
        default="better",
        description="better: shown to be better than the champion, and worse in nothing. not_worse: worse in nothing.",
        pattern="^(better|not_worse)$",
    )
    fewest_positions: int = Field(default=300, description="Closed positions of the challenger's replay.", ge=1)
    fewest_days: float = Field(default=5.0, description="Days in which they were decided.", gt=0)
    fewest_rows: int = Field(default=100, description="Held-out labelled rows.", ge=1)
    log_loss_tolerance: float = Field(default=0.0, description="Nats a row by which log loss may be higher.", ge=0)
    calibration_tolerance: float = Field(default=0.02, description="By which the calibration error may be.", ge=0)
    drawdown_ratio: float = Field(default=1.5, description="Times the champion's drawdown.", ge=1)
    drawdown_floor_r: float = Field(default=10.0, description="Drawdown (R) that is always allowed.", ge=0)
    turnover_ratio: float = Field(default=2.0, description="Times as many, or as few, positions a day.", ge=1)
    latency_budget_ms: float = Field(default=15.0, description="For a wave of 200 rows.", gt=0)
    demotion_positions: int = Field(default=100, description="Closed live positions before a champion falls.", ge=1)
    strategy_mode: str = Field(default="hybrid", description="Strategy of the replay; as the worker's.")
    min_quality: float = Field(default=0.0, description="Least quality in the replay; as the worker's.", ge=0, le=1)
    max_open_per_symbol: int = Field(default=1, description="Open positions in the replay; as the worker's.", ge=1)

    def rules(self, seed: int) -> GateRules:
        """The gate's rules."""
        from models_registry.gate_rules import GateRules

        return GateRules(
            evidence="not_worse" if self.evidence == "not_worse" else "better",
            fewest_rows=self.fewest_rows,
            fewest_positions=self.fewest_positions,
            fewest_days=self.fewest_days,
            tolerance=self.log_loss_tolerance,
            calibration_tolerance=self.calibration_tolerance,
            drawdown_ratio=self.drawdown_ratio,
            drawdown_floor_r=self.drawdown_floor_r,
            turnover_ratio=self.turnover_ratio,
            latency_budget_ms=self.latency_budget_ms,
            seed=seed,
        )

    def demotion(self, seed: int) -> DemotionRules:
        """When a live record speaks against its champion."""
        from models_registry.demotion import DemotionRules

        return DemotionRules(fewest_positions=self.demotion_positions, seed=seed)

    def engine(self, training: TrainingSettings) -> EngineSettings:
        """How the replay trades: as a worker with the same variables, at the same costs for every bundle."""
        from trading_worker.settings import EngineSettings

        return EngineSettings(
            strategy_mode=self.strategy_mode,
            min_confidence=training.min_confidence,
            min_quality=self.min_quality,
            max_open_per_symbol=self.max_open_per_symbol,
            costs=training.costs(),
            regime_prediction=training.market_regime_prediction,
            regime_threshold=training.regime_prediction_threshold,
            regime_lookback=training.regime_prediction_lookback,
            dynamic_features=training.dynamic_features,
            hunting=training.hunting(),
        )
