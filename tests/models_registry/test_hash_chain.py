"""What the ledger and the log of trials share: one file, chained, and on the disk before it counts."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from models_registry.ledger import CHAMPION, Ledger, Move
from models_registry.trial_log import Trial, TrialLog


def enter_move(path: Path, number: int) -> None:
    move = Move(action="promote", alias=CHAMPION, version=str(number), previous=None, reason="", by="test")
    Ledger(path).append(move, time_ms=number)


def enter_trial(path: Path, number: int) -> None:
    TrialLog(path).enter(Trial(run=str(number), content="c", data_hash="d", settings="s"), time_ms=number)


@pytest.mark.parametrize("enter", [enter_move, enter_trial])
def test_the_first_record_is_flushed_with_the_files_name(
    enter: Callable[[Path, int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_mode)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    enter(tmp_path / "file.jsonl", 1)
    assert [stat.S_ISDIR(mode) for mode in flushed] == [False, True]
    enter(tmp_path / "file.jsonl", 2)
    assert [stat.S_ISDIR(mode) for mode in flushed] == [False, True, False]


def test_a_chain_of_one_kind_is_none_of_another(tmp_path: Path) -> None:
    enter_trial(tmp_path / "file.jsonl", 1)
    with pytest.raises(Exception, match="broken at line 1: it is no record of Entry"):
        Ledger(tmp_path / "file.jsonl").entries()
