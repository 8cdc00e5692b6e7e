"""A worker whose features are computed anew at every wave: decides the same, restarts from its own bars."""

from __future__ import annotations

from pathlib import Path

from tests.trading_worker.shell.conftest import cached_bundle, simulated, until, worker_environment, working
from trading_worker import journal
from trading_worker.events import Signal
from trading_worker.settings import load


async def decided(folder: Path, switch: str, restart_as: str) -> tuple[list[str], str, dict[str, str]]:
    """Positions that a worker proposed before and after a restart, where its state came from then, and its notes."""
    cached_bundle(folder / "state")
    async with simulated(stepped=True) as simulator:
        for each in (switch, restart_as):
            settings = load(worker_environment(folder, simulator.url, ENABLE_INCREMENTAL_CACHE=each))
            async with working(settings) as board:
                await until(lambda: board.ready)
                await simulator.step(60)
    events = [entry.event for entry in journal.read(folder / "state" / "journal")]
    signals = [event.position_id for event in events if isinstance(event, Signal)]
    return signals, board.origin, dict(board.notes)


async def test_it_decides_what_the_incremental_one_decides(tmp_path: Path) -> None:
    usual, _, _ = await decided(tmp_path / "usual", "true", "true")
    anew, origin, notes = await decided(tmp_path / "anew", "false", "false")
    assert usual
    assert anew == usual
    assert origin.startswith("its own mapped state of")
    assert "state" not in notes


async def test_a_state_of_the_other_kind_is_passed_over_and_bars_serve(tmp_path: Path) -> None:
    usual, _, _ = await decided(tmp_path / "usual", "true", "true")
    turned, origin, notes = await decided(tmp_path / "turned", "true", "false")
    assert turned == usual
    assert "cold backfill" in origin
    assert "5m.bars is not there" in notes["state"]
