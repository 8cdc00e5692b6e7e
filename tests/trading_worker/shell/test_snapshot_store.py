"""Snapshots on disk: what is stored comes back, and a damaged one is passed over."""

from __future__ import annotations

from pathlib import Path

from trading_worker.engine import Engine
from trading_worker.replay import plain_predictor
from trading_worker.shell.snapshot_store import SnapshotStore

ENGINE = Engine(("A",), plain_predictor()).snapshot()


def test_the_newest_whole_one_comes_first_and_the_oldest_go(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, keep=3)
    for time_ms in (1, 2, 3, 4):
        store.save(time_ms, ENGINE, (10 * time_ms,))
    found = [(body.symbols, stored.engine, stored.charged_until) for body, stored in store.newest_first()]
    assert found == [(("A",), ENGINE, (10 * time_ms,)) for time_ms in (4, 3, 2)]


def test_a_file_with_any_byte_changed_or_missing_is_passed_over(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.save(1, ENGINE, (10,))
    store.save(2, ENGINE, (20,))
    [newest] = tmp_path.glob("*2.snapshot")
    whole = newest.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 50)):
        newest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert [stored.charged_until for _, stored in store.newest_first()] == [(10,)]
        newest.write_bytes(whole[:place])
        assert [stored.charged_until for _, stored in store.newest_first()] == [(10,)]
