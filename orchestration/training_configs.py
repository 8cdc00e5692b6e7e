"""From the few settings of a training to the configuration of every model.

Those that a person may set are in `TrainingSettings`; what goes with them (epochs of one network with those of another,
the fewest rows of a part with the fewest of all) is told here, once.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from models_registry.dqn_learner import LearnerConfig
from models_registry.dynamic_selection import DynamicConfig
from models_registry.feature_network_fitting import NetworkConfig
from models_registry.liquidity_predictor import LiquidityConfig
from models_registry.regime_predictor import RegimeConfig
from models_registry.strategy_dqn import DqnConfig
from models_registry.structure_autoencoder import AutoencoderConfig
from models_registry.terms import hunting_terms
from models_registry.training_config import TrainingConfig
from models_registry.win_classifier import WinConfig
from orchestration.code_version import code_version

if TYPE_CHECKING:
    from orchestration.resources import TrainingSettings

HOUR_MS = 3_600_000


def training_config(settings: TrainingSettings, last_decided_at: int, parent: str | None) -> TrainingConfig:
    """The configuration of one training whose newest decision was at `last_decided_at` (ms)."""
    plan = settings.plan()
    return TrainingConfig(
        seed=settings.seed,
        holdout_start_ms=last_decided_at - round(settings.holdout_hours * HOUR_MS),
        validation_fraction=settings.validation_fraction,
        embargo_ms=plan.horizon_minutes * 60_000,
        autoencoder=_autoencoder(settings),
        win=_win(settings),
        feature_network=_network(settings) if settings.feature_network else None,
        liquidity=_liquidity(settings) if settings.liquidity_predictor else None,
        dqn=_strategy(settings) if settings.strategy_dqn else None,
        regime=_regime(settings) if settings.market_regime_prediction else None,
        dynamic=_dynamic(settings) if settings.dynamic_features else None,
        hunting=hunting_terms(settings.hunting()),
        plan=asdict(plan),
        costs=asdict(settings.costs()),
        parent=parent,
        code_version=code_version(),
    )


def _share(most: int, numerator: int, denominator: int) -> int:
    """So large a share of the most epochs or rounds, rounded up: at least one."""
    return -(-numerator * most // denominator)


def _autoencoder(settings: TrainingSettings) -> AutoencoderConfig:
    return AutoencoderConfig(
        epochs=settings.epochs,
        continued_epochs=_share(settings.epochs, 3, 10),
        most_windows=settings.max_windows,
        fewest_windows=settings.fewest_rows,
        quantise=settings.quantise,
    )


def _network(settings: TrainingSettings) -> NetworkConfig:
    return NetworkConfig(
        epochs=_share(settings.epochs, 3, 2),
        continued_epochs=_share(settings.epochs, 2, 5),
        fewest_fit=settings.fewest_rows // 2,
        fewest_validation=settings.fewest_rows // 10,
        quantise=settings.quantise,
    )


def _liquidity(settings: TrainingSettings) -> LiquidityConfig:
    return LiquidityConfig(
        epochs=_share(settings.epochs, 3, 5),
        continued_epochs=_share(settings.epochs, 1, 5),
        most_rows=settings.max_windows,
        fewest_rows=settings.fewest_rows,
        quantise=settings.quantise,
    )


def _strategy(settings: TrainingSettings) -> DqnConfig:
    return DqnConfig(
        learner=LearnerConfig(passes=_share(settings.epochs, 1, 2)),
        fewest_opportunities=settings.fewest_rows,
        threshold=settings.min_confidence,
        quantise=settings.quantise,
    )


def _win(settings: TrainingSettings) -> WinConfig:
    return WinConfig(
        rounds=settings.rounds,
        continued_rounds=_share(settings.rounds, 1, 4),
        threshold=settings.min_confidence,
        fewest_fit=settings.fewest_rows,
        fewest_validation=settings.fewest_rows // 5,
        fewest_holdout=settings.fewest_rows // 5,
    )


def _regime(settings: TrainingSettings) -> RegimeConfig:
    return RegimeConfig(
        lookback=settings.regime_prediction_lookback,
        threshold=settings.regime_prediction_threshold,
        fewest_fit=settings.fewest_rows,
        fewest_validation=settings.fewest_rows // 5,
    )


def _dynamic(settings: TrainingSettings) -> DynamicConfig:
    return DynamicConfig(
        min_sharpe=settings.dynamic_feature_min_sharpe, max_count=settings.dynamic_feature_max_count, seed=settings.seed
    )
