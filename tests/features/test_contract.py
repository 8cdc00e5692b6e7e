"""The contract that every feature inherits, and that each of its rules can be broken."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features import SPEC, compute, contract
from features.engine import new_state
from features.families.shared import SHARED
from features.kernels_cache import njit
from features.origins import counts, possible, stretches, with_holes
from features.spec import Family, Feature, FeatureSpec
from market.bars import Bars, read, resample
from tests.features import goldens
from tests.features.series import make_bars

BARS = 5000


@pytest.fixture(scope="module")
def synthetic() -> list[contract.Breach]:
    return contract.breaches(SPEC, make_bars(BARS, seed=3))


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> list[contract.Breach]:
    minutes = read(shared_data / "klines/vision2026-02/LTCUSDT-1m-vision2026-02.parquet")
    return contract.breaches(SPEC, resample(minutes[: BARS * 5], "5m"))


@pytest.mark.parametrize("market", ["synthetic", "recorded"])
@pytest.mark.parametrize("rule", contract.RULES)
@pytest.mark.parametrize("feature", SPEC.names)
def test_a_feature_keeps_to(feature: str, rule: str, market: str, request: pytest.FixtureRequest) -> None:
    broken: list[contract.Breach] = request.getfixturevalue(market)
    assert [each.reason for each in broken if (each.feature, each.rule) == (feature, rule)] == []


@pytest.mark.parametrize("market", ["synthetic", "recorded"])
def test_memory_is_bounded(market: str, request: pytest.FixtureRequest) -> None:
    broken: list[contract.Breach] = request.getfixturevalue(market)
    assert [each.reason for each in broken if each.feature == ""] == []


def test_a_hundred_thousand_bars_take_no_more_memory_than_one() -> None:
    state = new_state()
    compute(make_bars(1, seed=8), SPEC, state)
    before = state.nbytes
    compute(make_bars(100_000, seed=8)[1:], SPEC, state)
    assert state.nbytes == before == SPEC.state_size * 8 < contract.MOST_STATE_BYTES
    assert not np.isnan(state).any()
    assert state[0] == 100_000


@pytest.mark.parametrize("family", SPEC.families, ids=lambda family: family.name)
def test_the_numbers_are_those_of_their_versions(family: Family) -> None:
    """A change of numbers: raise the version of each feature named, then .venv/bin/python -m tests.features.goldens."""
    said = goldens.complaint(family.name, goldens.load().get(family.name), goldens.golden(family))
    assert not said, said


def test_no_golden_is_left_of_a_family_that_is_gone() -> None:
    assert sorted(goldens.load()) == sorted(family.name for family in SPEC.families)


@pytest.mark.deep
@pytest.mark.parametrize("family", SPEC.families, ids=lambda family: family.name)
def test_a_family_alone_gives_what_it_gives_among_the_others(family: Family) -> None:
    alone = goldens.golden(family, FeatureSpec((family,), SPEC.shared))
    assert alone == goldens.golden(family)


class TestGoldens:
    def stored(self) -> dict[str, object]:
        return {"digest": "a", "features": {"x": {"version": 1, "digest": "a"}, "y": {"version": 1, "digest": "b"}}}

    def test_what_is_the_same_is_not_complained_of(self) -> None:
        assert goldens.complaint("f", self.stored(), self.stored()) == ""

    def test_numbers_that_change_under_their_version_are_named(self) -> None:
        found = {"digest": "b", "features": {"x": {"version": 1, "digest": "z"}, "y": {"version": 1, "digest": "b"}}}
        said = goldens.complaint("f", self.stored(), found)
        assert "the numbers of x changed: raise the version" in said
        assert goldens.REGENERATE in said

    def test_a_raised_version_only_needs_writing(self) -> None:
        found = {"digest": "b", "features": {"x": {"version": 2, "digest": "z"}, "z": {"version": 1, "digest": "b"}}}
        said = goldens.complaint("f", self.stored(), found)
        assert "the version of x was raised" in said
        assert "new: z" in said
        assert "gone: y" in said
        assert "raise the version" not in said

    def test_writing_refuses_silent_changes(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        tiny = FeatureSpec((BREAKER,), SHARED)
        monkeypatch.setattr(goldens, "SPEC", tiny)
        monkeypatch.setattr(goldens, "golden", lambda family: golden_of(tiny, family))
        monkeypatch.setattr(goldens, "FILE", tmp_path / "goldens.json")
        true = goldens.golden

        def golden_of(spec: FeatureSpec, family: Family) -> object:
            return {"digest": "1", "features": {f.name: {"version": f.version, "digest": "1"} for f in family.features}}

        assert goldens.main([]) == 0
        written = goldens.load()
        assert list(written) == [BREAKER.name]
        assert goldens.main([]) == 0

        def changed(family: Family) -> object:
            entry = copy.deepcopy(true(family))
            entry["features"]["breaks_range"]["digest"] = "2"
            return entry

        monkeypatch.setattr(goldens, "golden", changed)
        assert goldens.main([]) == 1
        assert goldens.load() == written
        assert goldens.main(["--unreleased"]) == 0
        assert goldens.load() != written


@njit
def _break_every_rule(
    state: NDArray[np.float64], out: NDArray[np.float64], close: float, taker_buy_base: float
) -> None:
    """One column for each rule that a step can break."""
    out[0] = 2.0
    out[1] = close
    out[2] = np.nan
    out[3] = np.inf
    state[0] = np.nan if np.isnan(state[0]) or np.isnan(taker_buy_base) else 1.0
    out[4] = state[0]
    state[1] = np.nan


def _feature(name: str, *, nan: bool = False) -> Feature:
    return Feature(name, 2, "x", "x", 0.0, 1.0, nan=nan, source="own")


BREAKER = Family(
    "breaker",
    (
        _feature("breaks_range"),
        replace(_feature("breaks_scale"), high=1e9),
        _feature("breaks_finite_by_nan"),
        replace(_feature("breaks_finite"), high=np.inf),
        _feature("breaks_recovers", nan=True),
    ),
    2,
    _break_every_rule,
)


@pytest.fixture(scope="module")
def broken() -> list[contract.Breach]:
    return contract.breaches(FeatureSpec((BREAKER,), SHARED), make_bars(400, seed=3))


class TestEveryRuleCanBeBroken:
    def test_each_is_named_with_its_rule(self, broken: list[contract.Breach]) -> None:
        found = {(each.feature, each.rule) for each in broken}
        assert {
            ("breaks_range", "in_range"),
            ("breaks_scale", "scale_free"),
            ("breaks_finite_by_nan", "warm_up"),
            ("breaks_finite", "finite"),
            ("breaks_recovers", "recovers"),
            ("breaks_range", "documented"),
            ("", "memory"),
        } <= found
        assert ("breaks_range", "scale_free") not in found
        assert ("breaks_scale", "in_range") not in found
        assert "breaks_range breaks 'in_range': it goes from 2.0 to 2.0, not 0.0 to 1.0" in map(str, broken)
        assert "the specification breaks 'memory'" in " ".join(map(str, broken))

    def test_a_claim_that_is_not_made_is_not_held_against_it(self) -> None:
        honest = replace(BREAKER, features=tuple(replace(feature, scale_free=False) for feature in BREAKER.features))
        broken = contract.breaches(FeatureSpec((honest,), SHARED), make_bars(400, seed=3))
        assert "scale_free" not in {each.rule for each in broken}

    def test_a_state_that_is_too_large(self) -> None:
        vast = replace(BREAKER, state_size=contract.MOST_STATE_BYTES // 8)
        evidence = contract.Evidence(FeatureSpec((vast,), SHARED), make_bars(3, seed=3))
        assert "bytes" in contract.memory(evidence)[0].reason

    def test_what_is_not_documented(self) -> None:
        bare = Feature("Bare", 0, "", "", 1.0, 1.0, version=0)
        evidence = contract.Evidence(
            FeatureSpec((Family("bare", (bare,), 0, _break_every_rule),), SHARED), make_bars(3)
        )
        said = Counter(contract.RULES["documented"](evidence, 0))
        assert len(said) == 5


class TestOrigins:
    def test_counts_are_those_of_the_compiled_step(self) -> None:
        spec = FeatureSpec((BREAKER,), SHARED)
        bars = with_holes(make_bars(400, seed=5), spec.max_gap)
        state = new_state(spec)
        found = []
        for at in range(bars.size):
            compute(bars[at : at + 1], spec, state)
            found.append(int(state[0]))
        expected = counts(bars, spec.max_gap)
        assert [count for count, can in zip(found, possible(bars), strict=True) if can] == [
            count for count in expected.tolist() if count
        ]

    def test_holes_are_a_bridged_one_an_impossible_bar_and_a_new_origin(self) -> None:
        bars = with_holes(make_bars(1000, seed=5), 12)
        assert bars.size == 1000 - 12 - 13
        assert int((~possible(bars)).sum()) == 1
        assert stretches(bars, 12) == [(0, 588), (588, 975)]
        assert counts(bars, 12)[[400, 587, 588]].tolist() == [401, 587, 1]

    def test_too_few_bars_stay_whole(self) -> None:
        bars: Bars = make_bars(50)
        assert with_holes(bars, 12).tobytes() == bars.tobytes()
