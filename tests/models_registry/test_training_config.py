"""The settings of a training, as the manifest keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from models_registry.errors import TrainingConfigUnreadable
from models_registry.training_config import TrainingConfig
from orchestration.resources import TrainingSettings

EVERYTHING = TrainingSettings(dynamic_features=True, market_regime_prediction=True, liquidity_hunting=True)


def test_the_settings_of_every_model_come_back() -> None:
    config = EVERYTHING.config(1_760_000_000_000)
    found = TrainingConfig.from_json(config.as_json())
    assert found.as_json() == config.as_json()
    assert (found.dqn, found.liquidity, found.feature_network) == (config.dqn, config.liquidity, config.feature_network)
    assert (found.autoencoder, found.win) == (config.autoencoder, config.win)
    assert found.hunting == config.hunting != {}


def test_what_is_left_out_stays_left_out() -> None:
    settings = TrainingSettings(feature_network=False, liquidity_predictor=False, strategy_dqn=False)
    found = TrainingConfig.from_json(settings.config(1_760_000_000_000).as_json())
    assert (found.feature_network, found.liquidity, found.dqn) == (None, None, None)


def changed(path: str, value: object = None) -> dict[str, Any]:
    """The settings with another value at `path`, or without it."""
    plain = EVERYTHING.config(0).as_json()
    *groups, name = path.split(".")
    group = plain
    for each in groups:
        group = group[each]
    if value is None:
        del group[name]
    else:
        group[name] = value
    return plain


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("dqn.learner.passes", None, "missing: dqn.learner.passes"),
        ("seed", None, "missing: seed"),
        ("win.leaves", 3, "unknown: win.leaves"),
        ("epochs", 3, "unknown: epochs"),
        ("win.rounds", "many", r"Expected `int`, got `str` - at `\$\.win\.rounds`"),
        ("plan.stop_atr", "near", r"Expected `float`, got `str`"),
    ],
)
def test_settings_of_another_version_are_refused_by_name(path: str, value: object, reason: str) -> None:
    with pytest.raises(TrainingConfigUnreadable, match=reason):
        TrainingConfig.from_json(changed(path, value))
