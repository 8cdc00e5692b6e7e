"""`perpforge simulator` as a process: what it prints, takes and refuses."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from market.simulator.__main__ import main
from tests.market.exchange_helpers import get


async def started(*arguments: str) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    """The command, and what it printed when it was ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "market.simulator", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    return process, msgspec.json.decode(await process.stdout.readline())


async def test_it_serves_two_accounts_and_keeps_its_state(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    process, ready = await started(
        *("--symbols", "BTCUSDT,XRPUSDT", "--speed", "stepped", "--check", "--state", str(state)),
        *("--account", "a:b:1000", "c:d:2000"),
    )
    found = await get(ready["url"] + "/fapi/v1/exchangeInfo")
    assert [row["symbol"] for row in found["symbols"]] == ["BTCUSDT", "XRPUSDT"]
    headers = {"X-MBX-APIKEY": "c"}
    url = ready["url"] + "/fapi/v1/listenKey"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    kept = msgspec.json.decode(state.read_bytes())
    assert {key: account["wallet"] for key, account in kept["accounts"].items()} == {"a": "1000", "c": "2000"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--account", "a:b"], "KEY:SECRET:USDT"),
        (["--speed", "fast"], "--speed"),
        (["--speed", "-1"], "positive"),
        (["--symbols", "BTCUSDT", "--klines", "somewhere"], "give one"),
        (["--faults", "nosuchfile"], "cannot read the plan"),
        (["--source", "nonsense:"], "source"),
        (["--start-ms", "5"], "first millisecond"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    written = capsys.readouterr().err
    assert said in written
    assert written.count("\n") == 1
