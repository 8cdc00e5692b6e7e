"""What the settings of a training come to for each model."""

from __future__ import annotations

import pytest

from orchestration.resources import TrainingSettings


@pytest.mark.parametrize("epochs", [1, 2, 5, 20, 40])
def test_a_training_that_continues_is_never_longer_than_one_from_scratch(epochs: int) -> None:
    config = TrainingSettings(epochs=epochs, rounds=10 * epochs).config(0)
    for model in (config.autoencoder, config.feature_network, config.liquidity):
        assert model is not None
        assert 1 <= model.continued_epochs <= max(model.epochs / 2, 1)
    assert 1 <= config.win.continued_rounds <= config.win.rounds / 2
