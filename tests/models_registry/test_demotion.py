"""Demotion is a pure function of the ledger and the live record, stated here at its edges."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry.demotion import LIVE_UNTIL, DemotionRules, Tenure, demoted_until, judge_live, tenure
from models_registry.ledger import CHALLENGER, CHAMPION, Action, Ledger, Move
from tests.models_registry.test_gate import trades

PROMISED = (0.05, 0.25)


def live(low: float, high: float, positions: int = 100):  # type: ignore[no-untyped-def]
    return trades(positions=positions // 20, blocks=20, expectancy=(low + high) / 2, expectancy_interval=(low, high))


def test_a_live_record_wholly_below_the_promise_demotes_with_its_numbers() -> None:
    found = judge_live(PROMISED, live(-0.3, 0.0499))
    assert found.demote
    assert found.reason.endswith("100 closed live positions against the gate's +0.050 to +0.250: wholly below it")
    assert found.numbers == {
        "live_positions": 100.0,
        "live_expectancy": pytest.approx(-0.12505),
        "live_expectancy_low": -0.3,
        "live_expectancy_high": 0.0499,
        "promised_low": 0.05,
        "promised_high": 0.25,
    }


@pytest.mark.parametrize(
    ("promised", "record", "words"),
    [
        (PROMISED, live(-0.3, 0.05), "not wholly below it"),  # they touch
        (PROMISED, live(0.3, 0.5), "not wholly below it"),  # better than promised
        (PROMISED, live(-0.9, -0.5, positions=80), "80 closed live positions, 100 needed"),
        (PROMISED, None, "0 closed live positions, 100 needed"),
        (None, live(-0.9, -0.5), "the gate gave no interval"),
        (PROMISED, trades(expectancy_interval=None), "too few blocks of time for an interval"),
    ],
)
def test_otherwise_it_stays(promised, record, words: str) -> None:  # type: ignore[no-untyped-def]
    found = judge_live(promised, record)
    assert not found.demote
    assert words in found.reason


def test_how_many_positions_speak_is_a_setting() -> None:
    assert judge_live(PROMISED, live(-0.9, -0.5, positions=80), DemotionRules(fewest_positions=80)).demote


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.floats(0, 1), st.integers(0, 20), st.integers(1, 20))
def test_it_demotes_exactly_when_the_intervals_are_apart_in_the_wrong_order(
    promised: float, width: float, low: float, span: float, positions: int, needed: int
) -> None:
    record = trades(positions=positions, blocks=1, expectancy=low + span / 2, expectancy_interval=(low, low + span))
    found = judge_live((promised, promised + width), record, DemotionRules(fewest_positions=needed))
    assert found.demote == (positions >= needed and low + span < promised)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def enter(ledger: Ledger, action: Action, version: str | None, alias: str = CHAMPION, **details: object) -> None:
    move = Move(
        action=action, alias=alias, version=version, previous=ledger.last(alias), reason="why", by="t", details=details
    )
    ledger.append(move, time_ms=10 * (len(ledger.entries()) + 1))


def verdict(low: float | None, high: float | None) -> dict[str, object]:
    return {"numbers": {"expectancy": 0.1, "expectancy_low": low, "expectancy_high": high}}


def test_the_tenure_begins_with_the_move_and_its_promise_is_the_gates(ledger: Ledger) -> None:
    assert tenure(ledger.entries()) is None
    enter(ledger, "promote", "1", verdict=verdict(0.0, 0.1))
    enter(ledger, "challenge", "2", CHALLENGER, verdict=verdict(0.2, 0.3))
    assert tenure(ledger.entries()) == Tenure(version="1", since_ms=10, promised=(0.0, 0.1), counted_from_ms=None)
    enter(ledger, "promote", "2", override=True)
    assert tenure(ledger.entries()) == Tenure(version="2", since_ms=30, promised=(0.2, 0.3), counted_from_ms=None), (
        "promoted by hand against the gate: what the gate found holds all the same"
    )


def test_a_verdict_without_an_interval_promises_nothing(ledger: Ledger) -> None:
    enter(ledger, "found", "7")
    enter(ledger, "challenge", "7", CHALLENGER, verdict=verdict(None, None))
    found = tenure(ledger.entries())
    assert found is not None
    assert found.promised is None
    enter(ledger, "found", None)
    assert tenure(ledger.entries()) is None, "nobody has the alias"


def test_an_earlier_tenure_does_not_count_again(ledger: Ledger) -> None:
    enter(ledger, "promote", "1", verdict=verdict(0.0, 0.1))
    enter(ledger, "promote", "2", verdict=verdict(0.2, 0.3), **{LIVE_UNTIL: 500})
    enter(ledger, "demotion", "1", **{LIVE_UNTIL: 900})
    first = tenure(ledger.entries())
    assert first is not None
    assert (first.version, first.promised, first.counted_from_ms) == ("1", (0.0, 0.1), 900)
    assert demoted_until(ledger.entries(), "2") == 900
    assert demoted_until(ledger.entries(), "1") is None
    assert ledger.before("1") is None, "a demotion takes its step off the history"
    enter(ledger, "promote", "2", verdict=verdict(0.1, 0.2))
    again = tenure(ledger.entries())
    assert again is not None
    assert (again.promised, again.counted_from_ms) == ((0.1, 0.2), 900)
