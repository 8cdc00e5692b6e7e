"""The summary says what it does not know, and says it of every bundle."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from perpforge.demo.summary import BundleReport, ModelScore, Summary, show


def score(interval: tuple[float, float] | None) -> ModelScore:
    return ModelScore(
        metric=0.65,
        metric_name="log loss",
        baseline=0.68,
        baseline_name="the held-out base rate",
        interval=interval,
        rows=100,
        served="onnx",
    )


def summary(edge: str, intervals: list[tuple[float, float] | None]) -> Summary:
    bundles = tuple(
        BundleReport(
            version=str(number),
            promoted=number == 1,
            rule="bootstrap" if number == 1 else "not_worse",
            reasons=("because",),
            override=None if number == 1 else "demo",
            training_rows=1000,
            live_labels=0 if number == 1 else 50,
            models={"win_classifier": score(interval)},
        )
        for number, interval in enumerate(intervals, start=1)
    )
    return Summary(
        market="synthetic market",
        edge=edge,
        seed=7,
        symbols=12,
        bars=1,
        features=104,
        models=bundles[0].models,
        bundles=bundles,
        gate={"fewest_positions": "60 in place of 300"},
        signals=5,
        positions=4,
        outcomes={"stop": 3},
        mean_r=None,
        live_labels=3,
        swap_ms=1.0,
        waves=10,
        waves_missed=0,
        stages={"ingest": 1.0},
        pages={},
    )


def printed(what: Summary) -> str:
    text = io.StringIO()
    show(what, Console(file=text, width=200))
    return text.getvalue()


@pytest.mark.parametrize(
    ("edge", "intervals", "said"),
    [
        ("none", [(-0.1, 0.1), (-0.2, 0.1)], "the models found none"),
        ("none", [(-0.1, 0.1), (0.01, 0.1)], "win_classifier of bundle 2"),
        ("planted", [(0.01, 0.1), None], "no skill shown"),
    ],
)
def test_skill_is_what_the_interval_says(edge: str, intervals: list[tuple[float, float] | None], said: str) -> None:
    assert said in printed(summary(edge, intervals))


def test_an_override_is_shown_as_one() -> None:
    text = printed(summary("planted", [(0.01, 0.1), (-0.1, 0.1)]))
    assert "override" in text
    assert "“demo”" in text


def test_what_was_asked_less_of_the_gate_is_on_the_screen() -> None:
    assert "fewest positions 60 in place of 300" in printed(summary("planted", [None]))


def test_the_file_holds_what_is_shown(tmp_path: Path) -> None:
    summary("none", [(-0.1, 0.1)]).write(tmp_path / "summary.json")
    read = msgspec.json.decode((tmp_path / "summary.json").read_bytes())
    assert read["models"]["win_classifier"]["interval"] == [-0.1, 0.1]
    assert read["bundles"][0]["rule"] == "bootstrap"
