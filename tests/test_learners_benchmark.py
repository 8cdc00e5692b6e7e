"""The benchmark of the learners, but for the training: its times, its symbols, its data and where its tables go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import learners
from benchmarks.learners import MARKS, Among, Spent, Times, data_of, parsed, write_markdown
from market.sources import open_source
from orchestration.resources import TrainingSettings


def test_times_outlive_an_interruption(tmp_path: Path) -> None:
    clock = iter([Spent(0.0, 0.0), Spent(60.0, 90.0), Spent(70.0, 91.0)])
    first = Times(tmp_path / "times.json", lambda: next(clock))
    first.ended("a")
    first.ended("b")
    later = iter([Spent(1000.0, 0.0), Spent(1005.0, 8.0)])
    second = Times(tmp_path / "times.json", lambda: next(later))
    second.ended("b")
    assert second.spent == {"a": Spent(60.0, 90.0), "b": Spent(15.0, 9.0)}
    assert second.together == Spent(75.0, 99.0)


def test_symbols_with_the_longest_recordings_are_taken(shared_data: Path) -> None:
    source = Among(open_source(f"recorded:{shared_data / 'klines' / 'um2025'}"), 6)
    assert source.symbols() == ("BNBUSDT", "BTCUSDT", "ETHUSDT", "LTCUSDT", "SOLUSDT", "XRPUSDT")


def test_data_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings(max_windows=200, most_opportunities=200)
    market = "synthetic:seed=7,symbols=3,edge=none"
    made = data_of(market, 2, 4, settings, tmp_path)
    assert made.about.startswith("2 symbols, 4 days")
    assert np.isfinite(made.rows.return_ahead).any(), "paths are followed"
    monkeypatch.setattr(learners, "history_of", lambda *given: pytest.fail("it is there already"))
    again = data_of(market, 2, 4, settings, tmp_path)
    assert again.rows.data_hash == made.rows.data_hash
    assert again.opportunities.data_hash == made.opportunities.data_hash


def test_tables_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page, alone = tmp_path / "page.md", tmp_path / "alone.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    for _ in range(2):
        write_markdown(page, "new\n")
        write_markdown(alone, "new\n")
    assert page.read_text() == f"before\n{MARKS[0]}\n\nnew\n\n{MARKS[1]}\nafter\n"
    assert alone.read_text() == "new\n"


def test_the_documentation_has_a_place_for_the_tables() -> None:
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    assert 0 < page.index(MARKS[0]) < page.index(MARKS[1])


def test_the_command_line() -> None:
    given = parsed(["--klines", "here", "--folds", "5", "--trials", "3", "--no-prequential"])
    assert (given.klines, given.folds, given.every, given.no_prequential) == ("here", 5, 3, True)
    assert (given.only, given.trials) == (None, 3)


def test_nobody_but_the_caller_knows_what_was_tried_on_a_recording(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["--klines", "here"])
    assert "--trials: how many designs" in capsys.readouterr().err
    assert parsed([]).trials == 1
    assert parsed(["--klines", "here", "--only", "fit"]).trials == 1
