"""Single questions about a symbol: the engine's own answers, through swaps and to the end."""

from __future__ import annotations

import asyncio
import math
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from models_registry.front import FrontClosed
from models_registry.manifest import DQN, FEATURE_NETWORK, LIQUIDITY, WIN
from models_registry.runtime import Predictor
from tests.trading_worker.markets import EAGER, live_waves, warm_engine
from tests.trading_worker.shell.conftest import cached_bundle, simulated, until, worker_environment, working
from tests.trading_worker.shell.tiny_models import write_models
from trading_worker.engine import Engine
from trading_worker.errors import NothingToAsk
from trading_worker.events import Signal
from trading_worker.settings import load
from trading_worker.shell.consultation import Consultation, NotFollowed
from trading_worker.shell.metrics import Board
from trading_worker.shell.status import StatusServer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles of real files."""
    home = tmp_path_factory.mktemp("bundles")
    return write_models(home / "one", "one"), write_models(home / "two", "two")


def decided(predictor: Predictor, waves: int = 120) -> tuple[Engine, list[Signal]]:
    """An engine that stands at a decision wave with signals, and those."""
    engine = warm_engine(EAGER, predictor)
    for wave in live_waves(waves):
        events = engine.on_wave(wave)
        signals = [event for event in events if isinstance(event, Signal)]
        if signals:
            return engine, signals
    raise AssertionError("no wave has a signal")


@pytest.mark.parametrize("batched", [True, False])
async def test_an_answer_is_what_was_decided_with(batched: bool, folders: tuple[Path, Path]) -> None:
    with Predictor.load(folders[0]) as predictor:
        engine, signals = decided(predictor)
        consultation = Consultation(engine, batched=batched)
        found = await asyncio.gather(*(consultation.about(symbol) for symbol in engine.symbols))
        await consultation.aclose()
    told = dict(zip(engine.symbols, found, strict=True))
    for signal in signals:
        side = told[signal.symbol]["long" if signal.direction > 0 else "short"]
        assert side["win_probability"] == signal.confidence
        assert side["quality"] == signal.quality
        assert side["candidate"] is not None
        assert told[signal.symbol]["reconstruction_error"] == signal.reconstruction_error
        assert told[signal.symbol]["time_ms"] == signal.time_ms
        assert told[signal.symbol]["close"] == signal.reference
    one = told[engine.symbols[0]]
    assert one["bundle"] == "one"
    assert set(one["fallbacks"]) == {FEATURE_NETWORK, LIQUIDITY, DQN}
    assert one["models"][WIN] == "onnx"
    assert one["strategy"] == {"action": None, "value_r": {}}
    assert one["unlike_training"] is False
    assert all(value is None for value in one["reach_atr"]["below"])
    assert consultation.answered == len(engine.symbols)
    assert consultation.batches <= (4 if batched else 8)
    assert batched or consultation.batches == 8


async def test_a_swap_leaves_nobody_waiting_and_answers_are_of_one_bundle(folders: tuple[Path, Path]) -> None:
    predictors = [Predictor.load(folder) for folder in folders]
    engine, _ = decided(predictors[0])
    consultation = Consultation(engine, batched=True)
    expected = {symbol: await consultation.about(symbol) for symbol in engine.symbols}
    asking = [asyncio.create_task(consultation.about(engine.symbols[i % 4])) for i in range(60)]
    for turn in range(1, 7):
        await asyncio.sleep(0)
        async with consultation.swapped():
            engine.swap(predictors[turn % 2])
        asking += [asyncio.create_task(consultation.about(engine.symbols[i % 4])) for i in range(10)]
    found = await asyncio.wait_for(asyncio.gather(*asking), 60)
    # Both bundles hold the same models, so nothing but the name may differ.
    for answer in found:
        assert answer["bundle"] in {"one", "two"}
        assert answer | {"bundle": "one"} == expected[answer["symbol"]]
    assert found[-1]["bundle"] == "one"
    await consultation.aclose()
    for predictor in predictors:
        predictor.close()


async def test_a_swap_that_fails_leaves_the_bundle_before_to_answer(folders: tuple[Path, Path]) -> None:
    with Predictor.load(folders[0]) as predictor:
        engine, _ = decided(predictor)
        consultation = Consultation(engine, batched=True)

        async def fails() -> None:
            async with consultation.swapped():
                raise RuntimeError("not this one")

        with pytest.raises(RuntimeError, match="not this one"):
            await fails()
        assert (await consultation.about(engine.symbols[0]))["bundle"] == "one"
        await consultation.aclose()


async def test_the_end_leaves_nobody_waiting(folders: tuple[Path, Path]) -> None:
    with Predictor.load(folders[0]) as predictor:
        engine, _ = decided(predictor)
        consultation = Consultation(engine, batched=True)
        entered, leave = asyncio.Event(), asyncio.Event()

        async def swap() -> None:
            async with consultation.swapped():
                entered.set()
                await leave.wait()

        swapping = asyncio.create_task(swap())
        await entered.wait()
        asking = [asyncio.create_task(consultation.about(symbol)) for symbol in engine.symbols]
        await asyncio.sleep(0)
        await consultation.aclose()
        found = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 30)
        assert [type(each) for each in found] == [FrontClosed] * 4
        leave.set()
        await swapping
        with pytest.raises(FrontClosed):
            await consultation.about(engine.symbols[0])


async def test_what_cannot_be_asked_is_told(folders: tuple[Path, Path]) -> None:
    with Predictor.load(folders[0]) as predictor:
        engine = warm_engine(EAGER, predictor)
        consultation = Consultation(engine, batched=True)
        with pytest.raises(NothingToAsk, match="no decision wave"):
            await consultation.about(engine.symbols[0])
        with pytest.raises(NotFollowed, match="'NONE'"):
            await consultation.about("NONE")
        cold = Consultation(Engine(engine.symbols, predictor, EAGER), batched=True)
        for wave in live_waves(120)[:10]:
            cold._engine.on_wave(wave)
        with pytest.raises(NothingToAsk, match="not warm"):
            await cold.about(engine.symbols[0])
        await consultation.aclose()
        await cold.aclose()


async def test_over_http(folders: tuple[Path, Path]) -> None:
    with Predictor.load(folders[0]) as predictor:
        engine, signals = decided(predictor)
        consultation = Consultation(engine, batched=True)
        server = StatusServer(Board("w"), 0, about=consultation.about)
        await server.start()
        symbol = signals[0].symbol
        async with aiohttp.ClientSession() as session:
            assert (await _get(session, server, symbol))[0] == 200
            assert await _get(session, server, symbol) == (200, _as_json(await consultation.about(symbol)))
            assert (await _get(session, server, "NONE"))[0] == 404
            assert (await _get(session, server, ""))[0] == 400
            await consultation.aclose()
            assert (await _get(session, server, symbol))[0] == 503
        await server.stop()


async def test_a_page_without_a_worker_answers_nothing() -> None:
    server = StatusServer(Board("w"), 0)
    await server.start()
    async with aiohttp.ClientSession() as session:
        status, told = await _get(session, server, "BTCUSDT")
    await server.stop()
    assert (status, "no bundle is asked" in told["reason"]) == (503, True)


@pytest.mark.parametrize("quantised", ["true", "false"])
async def test_a_worker_answers(quantised: str, tmp_path: Path) -> None:
    cached_bundle(tmp_path / "state", write=write_models)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with simulated(stepped=True) as simulator:
        environment = worker_environment(
            tmp_path, simulator.url, PORT=str(port), ENABLE_QUANTIZATION=quantised, ENABLE_BATCH_PREDICTION=quantised
        )
        async with working(load(environment)) as board, aiohttp.ClientSession() as session:
            await until(lambda: board.ready)
            await simulator.step(10)
            await until(lambda: board.waves > 0)
            url = f"http://127.0.0.1:{port}/predict"
            async with session.get(url, params={"symbol": board.symbols[0]}) as answer:
                assert answer.status == 200, await answer.text()
                told = await answer.json()
    assert 0 < told["long"]["win_probability"] < 1
    assert told["bundle"] == board.bundle_name
    assert told["models"] == board.models
    assert set(board.fallbacks) == {FEATURE_NETWORK, LIQUIDITY, DQN}


async def _get(session: aiohttp.ClientSession, server: StatusServer, symbol: str) -> tuple[int, Any]:
    async with session.get(f"{server.url}/predict", params={"symbol": symbol}) as answer:
        return answer.status, await answer.json()


def _as_json(told: dict[str, Any]) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told))
    assert not any(isinstance(value, float) and math.isnan(value) for value in plain.values())
    return plain
