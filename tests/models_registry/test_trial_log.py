"""The log of every bundle that was ever trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.errors import LedgerBroken
from models_registry.ledger import Ledger, Move
from models_registry.trial_log import Trial, TrialLog


def trial(run: str, content: str = "c") -> Trial:
    return Trial(run=run, content=content, data_hash="d", settings="s")


def filled(folder: Path, runs: int = 3) -> TrialLog:
    log = TrialLog(folder / "trials.jsonl")
    for number in range(runs):
        log.enter(trial(f"run-{number}"), time_ms=number)
    return log


def test_equal_bundles_of_different_runs_are_different_trials(tmp_path: Path) -> None:
    log = filled(tmp_path)
    assert {entry.content for entry in log.entries()} == {"c"}
    assert log.count() == 3


def test_a_step_that_is_tried_again_is_the_same_trial(tmp_path: Path) -> None:
    log = filled(tmp_path)
    assert log.enter(trial("run-1", "another"), time_ms=9) == 3
    assert [entry.run for entry in log.entries()] == ["run-0", "run-1", "run-2"]


def test_one_is_counted_before_any_is_entered_and_what_an_older_registry_has(tmp_path: Path) -> None:
    assert TrialLog(tmp_path / "none.jsonl").count() == 1
    filled(tmp_path)
    beside = TrialLog.beside(tmp_path / "ledger.jsonl")
    assert beside.count() == 3
    move = Move(action="promote", alias="champion", version="7", previous=None, reason="older", by="gate")
    Ledger(tmp_path / "ledger.jsonl").append(move, time_ms=0)
    assert beside.count() == 7


@settings(deadline=None)  # every entry waits for the disk
@given(line=st.integers(0, 2), at=st.integers(0, 10_000), letter=st.sampled_from("0123456789abcdef"))
def test_a_changed_line_is_found(tmp_path_factory: pytest.TempPathFactory, line: int, at: int, letter: str) -> None:
    log = filled(tmp_path_factory.mktemp("log"))
    lines = log.path.read_bytes().splitlines(keepends=True)
    place = at % (len(lines[line]) - 1)
    changed = lines[line][:place] + letter.encode() + lines[line][place + 1 :]
    if changed == lines[line]:
        return
    lines[line] = changed
    log.path.write_bytes(b"".join(lines))
    with pytest.raises(LedgerBroken, match=f"line {line + 1}"):
        log.entries()


def test_a_line_that_was_taken_out_is_found_and_nothing_is_entered_after_it(tmp_path: Path) -> None:
    log = filled(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(lines[0] + lines[2])
    with pytest.raises(LedgerBroken, match="line 2"):
        log.enter(trial("run-4"), time_ms=9)
    assert len(log.path.read_bytes().splitlines()) == 2


def test_what_a_crash_left_of_a_line_is_cut_off(tmp_path: Path) -> None:
    log = filled(tmp_path)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"run":"unfin')
    assert log.count() == 3
    assert log.enter(trial("run-3"), time_ms=9) == 4
    assert log.path.read_bytes().startswith(whole)
    assert len(log.entries()) == 4
