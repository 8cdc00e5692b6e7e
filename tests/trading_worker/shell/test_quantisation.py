"""ENABLE_QUANTIZATION in a live worker: which files decide, and what the worker says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from models_registry.convert import FP32, INT8
from models_registry.manifest import AUTOENCODER
from models_registry.runtime import read_manifest
from tests.trading_worker.shell.conftest import cached_bundle, simulated, until, worker_environment, working
from tests.trading_worker.shell.tiny_models import write_models
from trading_worker import journal
from trading_worker.events import Signal
from trading_worker.settings import load
from trading_worker.shell.metrics import Board
from trading_worker.shell.status import StatusServer

OFF = f"{FP32}, promoted as {INT8}: quantisation is switched off"


async def said_and_seen(folder: Path, served: str, switch: str) -> tuple[str, str, list[float]]:
    """What JSON and page say of the autoencoder, and the errors it gave the signals of an hour."""
    cached_bundle(folder / "state", write=lambda place, name: write_models(place, name, served))
    async with (
        simulated(stepped=True) as simulator,
        working(load(worker_environment(folder, simulator.url, ENABLE_QUANTIZATION=switch))) as board,
    ):
        await until(lambda: board.ready)
        await simulator.step(60)
        await until(lambda: board.waves >= 11)
        told, page = await _served(board)
    events = [entry.event for entry in journal.read(folder / "state" / "journal")]
    errors = [float(event.reconstruction_error or 0) for event in events if isinstance(event, Signal)]
    assert read_manifest(folder / "state" / "bundles" / "1").components[AUTOENCODER].format == served, "it is as it was"
    assert not board.refused
    return told["models"][AUTOENCODER], page, errors


async def _served(board: Board) -> tuple[dict[str, Any], str]:
    server = StatusServer(board, 0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.url}/status.json") as answer:
                told = await answer.json()
            async with session.get(server.url) as answer:
                return told, await answer.text()
    finally:
        await server.stop()


async def test_switched_off_a_bundle_that_serves_int8_runs_in_fp32_and_says_why(tmp_path: Path) -> None:
    off, page, errors = await said_and_seen(tmp_path / "off", INT8, "false")
    on, page_on, small = await said_and_seen(tmp_path / "on", INT8, "true")
    _, _, whole = await said_and_seen(tmp_path / "whole", FP32, "true")
    assert (off, on) == (OFF, INT8)
    assert f'<td>structure autoencoder</td><td class="long">{OFF}</td>' in page
    assert f"<td>structure autoencoder</td><td>{INT8}</td>" in page_on
    # What decides is the fp32 file: the same numbers as of a bundle that was promoted with it.
    assert len(errors) > 3
    assert errors == whole
    assert errors != small
    assert errors == pytest.approx(small, rel=0.1)
