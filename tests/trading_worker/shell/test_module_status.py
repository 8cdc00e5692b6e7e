"""What a worker says of its optional modules: on the status page, in its JSON, and in the signals of its journal."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from models_registry.manifest import DYNAMIC, REGIME, WIN
from tests.trading_worker.shell.conftest import (
    cached_bundle,
    simulated,
    until,
    worker_environment,
    working,
    write_bundle,
)
from tests.trading_worker.test_module_switches import written
from trading_worker import journal
from trading_worker.events import Signal
from trading_worker.optional_modules import HUNTING
from trading_worker.settings import load
from trading_worker.shell.metrics import Board
from trading_worker.shell.status import StatusServer

SWITCHES = {
    "ENABLE_MARKET_REGIME_PREDICTION": "true",
    "ENABLE_DYNAMIC_FEATURES": "true",
    "ENABLE_LIQUIDITY_HUNTING": "true",
    "LIQUIDITY_HUNT_CONFIDENCE_THRESHOLD": "0.4",
    "LIQUIDITY_SLIPPAGE_TOLERANCE": "0.01",
}
MODULES = (REGIME, DYNAMIC, HUNTING)


async def said(folder: Path, environment: dict[str, str], whole: bool) -> tuple[dict[str, str], str, list[Signal]]:
    """What the JSON and the page say of the modules after an hour, and the hour's signals."""
    cached_bundle(folder / "state", write=lambda place, name: written(place) if whole else write_bundle(place, name))
    async with (
        simulated(stepped=True) as simulator,
        working(load(worker_environment(folder, simulator.url, **environment))) as board,
    ):
        await until(lambda: board.ready)
        await simulator.step(60)
        stands, page = await _served(board)
    events = [entry.event for entry in journal.read(folder / "state" / "journal")]
    return stands, page, [event for event in events if isinstance(event, Signal)]


async def _served(board: Board) -> tuple[dict[str, str], str]:
    server = StatusServer(board, 0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.url}/status.json") as answer:
                stands = (await answer.json())["modules"]
            async with session.get(server.url) as answer:
                return stands, await answer.text()
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("switches", "whole", "expected"),
    [
        (SWITCHES, True, dict.fromkeys(MODULES, "in force")),
        (
            SWITCHES,
            False,
            {
                REGIME: "on its fallback: the bundle has no such model",
                DYNAMIC: "on its fallback: the bundle has none",
                HUNTING: "in force, but its win model was trained without hunting candidates",
            },
        ),
        ({}, False, dict.fromkeys(MODULES, "off")),
    ],
    ids=["in force", "without the models", "off"],
)
async def test_each_module_says_how_it_stands(
    switches: dict[str, str], whole: bool, expected: dict[str, str], tmp_path: Path
) -> None:
    stands, page, signals = await said(tmp_path, switches, whole)
    assert stands == expected
    for name, text in expected.items():
        assert name.replace("_", " ") in page
        assert text in page
    assert signals
    named = {name for name in MODULES if expected[name] not in ("in force", "off")}
    for signal in signals:
        assert set(signal.fallbacks) & set(MODULES) == named
        assert WIN not in signal.fallbacks or not whole
