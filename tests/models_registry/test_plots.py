"""What is kept of a component is drawn: by MLflow's runs and the assets' metadata alike."""

from __future__ import annotations

from typing import Any

import pytest

from models_registry.assembling import TrainedBundle
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN, Component, Metric
from models_registry.plots import component_plots

CURVES = {"fit": [3.0, 2.0], "validation": [3.5, 3.0]}
BINS = [(0.2, 0.25, 10), (0.6, 0.5, 10)]


def of(parameters: dict[str, Any], **metrics: Metric) -> Component:
    return Component(version="1", served="f", format="x", parameters=parameters, metrics=metrics)


@pytest.mark.parametrize(
    ("name", "component", "wanted"),
    [
        (WIN, of({"history": CURVES, "reliability": BINS, "importance": {"a": 1.0}}),
         {"loss", "calibration", "importance"}),
        (FEATURE_NETWORK, of({"history": CURVES, "reliability": {"long": BINS, "short": BINS}}),
         {"loss", "calibration"}),
        (LIQUIDITY, of({"history": CURVES}, **{"coverage_0.25": Metric(value=0.3), "coverage_0.9": Metric(value=0.9)}),
         {"loss", "reach_coverage"}),
        (DQN, of({"history": {"fit": [None, 1.0], "validation": [2, 1], "mean_long": [0.0, 0.1], "trades": [0, 1]}}),
         {"loss", "q_values"}),
        (AUTOENCODER, of({"history": CURVES, "channel_errors": {"open": [0.9, 1.0], "close": [0.5, 0.6]},
                          "examples": [{"window": [0.0, 1.0], "reconstruction": [0.1, 0.8]}]}),
         {"loss", "reconstruction"}),
        (AUTOENCODER, of({}), set()),
        (LIQUIDITY, of({"history": {}}, **{"coverage_0.5": Metric(value=None)}), set()),
    ],
)  # fmt: skip
def test_what_is_kept_is_drawn(name: str, component: Component, wanted: set[str]) -> None:
    plots = component_plots(name, component)
    assert set(plots) == wanted
    assert all(png.startswith(b"\x89PNG") for png in plots.values())
    assert component_plots(name, component) == plots, "equal numbers are equal pictures"


def test_other_numbers_are_another_picture() -> None:
    first, second = (of({"history": {"fit": [1.0, last]}}) for last in (0.5, 0.7))
    assert component_plots(WIN, first) != component_plots(WIN, second)


def test_a_trained_bundle_keeps_what_its_plots_need(trained: TrainedBundle) -> None:
    plots = {name: set(component_plots(name, part)) for name, part in trained.manifest.components.items()}
    assert plots[AUTOENCODER] == {"loss", "reconstruction"}
    assert plots[WIN] == {"loss", "calibration", "importance"}
