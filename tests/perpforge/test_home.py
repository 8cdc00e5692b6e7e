"""The home folder: replaced whole by the next demo, never shared, never somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from perpforge.home import MARKER, HomeBusy, HomeForeign, holding, start_clean


def test_a_second_demo_starts_clean(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    start_clean(home)
    (home / "lake").mkdir()
    (home / "lake" / "old.parquet").write_text("old")
    start_clean(home)
    assert sorted(path.name for path in home.iterdir()) == [MARKER, "logs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo"]


def test_a_run_that_was_interrupted_between_two_renames_is_no_obstacle(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    start_clean(home)
    home.rename(tmp_path / "demo.old")
    (tmp_path / "demo.new").mkdir()
    start_clean(home)
    assert (home / MARKER).exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(HomeForeign, match="holds files that no demo made"):
        start_clean(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_two_commands_do_not_share_a_home(tmp_path: Path) -> None:
    with holding(tmp_path / "demo"), pytest.raises(HomeBusy), holding(tmp_path / "demo"):
        pass
    with holding(tmp_path / "demo"):
        pass
