"""The ledger: its chain, what breaks it, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.errors import LedgerBroken
from models_registry.ledger import CHALLENGER, CHAMPION, Action, Entry, Ledger, Move


def enter(
    ledger: Ledger, action: Action, version: str | None, time_ms: int, alias: str = CHAMPION, **details: object
) -> Entry:
    move = Move(
        action=action,
        alias=alias,
        version=version,
        previous=ledger.last(alias),
        reason="why",
        by="test",
        details=details,
    )
    return ledger.append(move, time_ms=time_ms)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "registry" / "ledger.jsonl")


def test_an_absent_ledger_is_empty(ledger: Ledger) -> None:
    assert ledger.verify() == 0
    assert ledger.who_was_champion(10**15) is None
    assert ledger.before("3") is None


def test_entries_come_back_as_they_were_entered(ledger: Ledger) -> None:
    first = enter(ledger, "promote", "1", 10, numbers={"mean_r": 0.25, "count": 3, "text": "ü"})
    second = enter(ledger, "promote", "2", 20)
    assert Ledger(ledger.path).entries() == [first, second]
    assert second.previous_hash == first.hash
    assert second.previous == "1"


def test_it_says_who_was_champion_at_any_time(ledger: Ledger) -> None:
    enter(ledger, "promote", "1", 100)
    enter(ledger, "challenge", "2", 150, alias=CHALLENGER)
    enter(ledger, "promote", "2", 200)
    enter(ledger, "rollback", "1", 300)
    assert [ledger.who_was_champion(t) for t in (99, 100, 199, 200, 299, 300, 10**15)] == [
        None, "1", "1", "2", "2", "1", "1",
    ]  # fmt: skip
    assert ledger.at(CHALLENGER, 160) == "2"


def test_every_rollback_takes_one_step_off_the_history(ledger: Ledger) -> None:
    for time_ms, version in enumerate(("1", "2", "3")):
        enter(ledger, "promote", version, time_ms)
    assert ledger.before("3") == "2"
    enter(ledger, "rollback", "2", 10)
    assert ledger.before("2") == "1"
    enter(ledger, "rollback", "1", 11)
    assert ledger.before("1") is None
    enter(ledger, "promote", "3", 12)
    assert ledger.before("3") == "1"


def test_a_champion_moved_by_hand_is_part_of_the_history(ledger: Ledger) -> None:
    enter(ledger, "promote", "1", 1)
    enter(ledger, "found", "4", 2)
    assert ledger.before("4") == "1"
    enter(ledger, "found", None, 3)
    assert ledger.before(None) == "4"
    enter(ledger, "found", "1", 4)
    assert ledger.before("1") is None, "somebody gave it back"


def test_a_torn_last_line_is_cut_off_by_the_next_append(ledger: Ledger) -> None:
    enter(ledger, "promote", "1", 1)
    with ledger.path.open("ab") as file:
        file.write(b'{"action": "promote", "ver')
    assert ledger.verify() == 1
    enter(ledger, "promote", "2", 2)
    assert [entry.version for entry in ledger.entries()] == ["1", "2"]


def test_nothing_is_appended_to_a_broken_chain(ledger: Ledger) -> None:
    enter(ledger, "promote", "1", 1)
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"reason":"why"', b'"reason":"who"'))
    with pytest.raises(LedgerBroken, match="line 1"):
        enter(ledger, "promote", "2", 2)


@settings(deadline=None)  # every entry waits for the disk
@given(line=st.integers(0, 4), change=st.sampled_from(["edit", "remove", "repeat", "swap", "garbage", "rehash"]))
def test_any_change_names_the_first_broken_line(
    tmp_path_factory: pytest.TempPathFactory, line: int, change: str
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.jsonl")
    for number in range(6):
        enter(ledger, "promote", str(number), number)
    lines = ledger.path.read_text().splitlines()
    if change == "edit":
        lines[line] = lines[line].replace('"reason":"why"', '"reason":"because"')
    elif change == "remove":
        del lines[line]
    elif change == "repeat":
        lines.insert(line + 1, lines[line])
    elif change == "swap":
        lines[line], lines[line + 1] = lines[line + 1], lines[line]
    elif change == "garbage":
        lines[line] = "{}"
    else:  # a forger who knows the format still breaks the line after it
        fields = json.loads(lines[line]) | {"version": "9"}
        other = Ledger(ledger.path.with_name("other.jsonl"))
        for entry in ledger.entries()[:line]:
            enter(other, "promote", entry.version, entry.time_ms)
        enter(other, "promote", "9", fields["time_ms"])
        lines[line] = other.path.read_text().splitlines()[line]
    ledger.path.write_text("\n".join(lines) + "\n")
    expected = line + 2 if change in ("repeat", "rehash") else line + 1
    with pytest.raises(LedgerBroken) as caught:
        ledger.verify()
    assert caught.value.line == expected


def test_two_processes_do_not_fork_the_chain(ledger: Ledger) -> None:
    """Two writers that lock around their entry make one chain."""
    import subprocess
    import sys

    program = (
        "import sys; from models_registry.ledger import Ledger, Move\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for n in range(20):\n"
        "    with ledger.lock():\n"
        "        fields = dict(alias='champion', previous=None, reason='', by=sys.argv[2])\n"
        "        ledger.append(Move(action='promote', version=str(n), **fields), time_ms=n)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(ledger.path), name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert ledger.verify() == 40
