"""Snapshots on disk: what is stored comes back, and a damaged one is passed over."""

from __future__ import annotations

from pathlib import Path

from trading_worker.engine import Engine
from trading_worker.replay import plain_predictor
from trading_worker.shell.snapshot_store import SnapshotStore
from trading_worker.snapshots import encode

ENGINE = Engine(("A",), plain_predictor()).snapshot()


def test_the_newest_whole_one_comes_first_and_the_oldest_go(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, keep=3)
    refused: list[str] = []
    for time_ms in (1, 2, 3, 4):
        store.write(time_ms, ENGINE, (10 * time_ms,))
    found = list(store.newest_first(refused.append))
    assert [(kept.state.about.symbols, kept.charged_until) for kept in found] == [(("A",), (t,)) for t in (40, 30, 20)]
    assert [encode(kept.state) for kept in found] == [ENGINE] * 3
    assert (store.newest_ms(), refused) == (4, [])


def test_only_what_is_to_last_is_written(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    assert store.newest_ms() == -1
    store.save(Engine(("A",), plain_predictor()), (1,), lasting=False)
    assert list(tmp_path.iterdir()) == []
    store.save(Engine(("A",), plain_predictor()), (1,), lasting=True)
    assert store.newest_ms() == 0


def test_a_file_with_any_byte_changed_or_missing_is_passed_over(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.write(1, ENGINE, (10,))
    store.write(2, ENGINE, (20,))
    refused: list[str] = []
    [newest] = tmp_path.glob("*2.snapshot")
    whole = newest.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 50)):
        newest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert [kept.charged_until for kept in store.newest_first(refused.append)] == [(10,)]
        newest.write_bytes(whole[:place])
        assert [kept.charged_until for kept in store.newest_first(refused.append)] == [(10,)]
    assert set(refused) == {f"snapshot {newest.name} is damaged"}


def test_one_of_another_version_is_passed_over_with_the_reason(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.write(1, ENGINE, (10,))
    store.write(2, ENGINE[:6] + b"\x63\x00" + ENGINE[8:], (20,))
    refused: list[str] = []
    assert [kept.charged_until for kept in store.newest_first(refused.append)] == [(10,)]
    assert "its version is 99" in refused[0]
