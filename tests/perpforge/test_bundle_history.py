"""`perpforge bundle history`: who was champion at any time, why and by whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from market.klines_store import day_start
from models_registry.ledger import CHALLENGER, CHAMPION, Ledger, Move
from perpforge.cli import app

DAY = 86_400_000
FIRST = day_start("2026-03-01")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LEDGER_PATH", raising=False)
    ledger = Ledger(tmp_path / "registry" / "ledger.jsonl")
    for day, (action, alias, version, previous, reason, by) in enumerate(
        [
            ("promote", CHAMPION, "1", None, "gate: bootstrap", "gate"),
            ("challenge", CHALLENGER, "2", None, "registered", "trading_bundle"),
            ("promote", CHAMPION, "2", "1", "I trust it", "ada"),
            ("demotion", CHAMPION, "1", "2", "live record: wholly below it", "live record"),
        ]
    ):
        move = Move(action=action, alias=alias, version=version, previous=previous, reason=reason, by=by, details={})
        ledger.append(move, time_ms=FIRST + day * DAY)
    return tmp_path


def history(home: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["bundle", "history", "--home", str(home), *more], env={"COLUMNS": "200"})


def test_every_move_is_listed_and_the_chain_is_checked(home: Path) -> None:
    result = history(home)
    assert result.exit_code == 0
    for words in ("gate: bootstrap", "I trust it", "ada", "demotion", "live record: wholly below it"):
        assert words in result.output
    assert "4 entries; the chain of hashes holds" in result.output


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("2026-02-28", "nobody was champion"),
        ("2026-03-02T12:00:00", "bundle 1, since 2026-03-01T00:00:00Z (before: None)\n  promote by gate"),
        ("2026-03-03", "bundle 2, since 2026-03-03T00:00:00Z (before: 1)\n  promote by ada: I trust it"),
        ("2026-12-31", "bundle 1, since 2026-03-04T00:00:00Z (before: 2)\n  demotion by live record: live record"),
    ],
)
def test_it_says_who_was_champion_at_any_time(home: Path, at: str, said: str) -> None:
    result = history(home, "--at", at)
    assert result.exit_code == 0
    assert said in result.output


def test_as_json_it_is_the_ledgers_own(home: Path) -> None:
    assert [entry["sequence"] for entry in json.loads(history(home, "--json").output)] == [0, 1, 2, 3]
    (entry,) = json.loads(history(home, "--json", "--at", "2026-03-03").output)
    assert (entry["version"], entry["by"], entry["reason"]) == ("2", "ada", "I trust it")


def test_a_ledger_that_was_changed_is_told_of(home: Path) -> None:
    path = home / "registry" / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"by":"ada"', b'"by":"bob"'))
    result = history(home)
    assert result.exit_code == 1
    assert "is broken at line 3" in result.output


def test_without_a_ledger_it_says_so(tmp_path: Path) -> None:
    result = history(tmp_path)
    assert result.exit_code == 2
    assert "does not exist" in result.output
