"""`perpforge simulator`, `python -m market.simulator`: the simulated exchange as a process of its own.

Without a source it is a synthetic market. The clock runs as fast as its consumers take what it plays, and holds until
there is one; give a speed (1 is real time), or step it through its control endpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from market.bars import DAY_MS, MINUTE_MS
from market.errors import MarketError
from market.simulator.clock import SimulationFailed
from market.simulator.exchange_info import WEIGHT_LIMIT
from market.simulator.fault_plan import read_plan
from market.simulator.options import Options
from market.simulator.server import Simulator
from market.simulator.trading import AccountSpec
from market.sources import BarSource, open_source

DEFAULT_SYMBOLS = "BTCUSDT,ETHUSDT,SOLUSDT,XRPUSDT"


async def run_simulator(source: BarSource, start_ms: int, **parameters: Any) -> None:
    """Serve until SIGINT or SIGTERM; the parameters are `Simulator`'s.

    Prints one line of JSON with `url` and `ws_url` when connections are taken. The end of the recording does not
    end it: REST goes on. Raises `SimulationFailed` when the source fails.
    """
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    async with Simulator(source, start_ms, **parameters) as simulator:
        ready = {"url": simulator.url, "ws_url": simulator.ws_url}
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        interruption = asyncio.create_task(interrupted.wait())
        ended = asyncio.create_task(simulator.ended())
        await asyncio.wait([interruption, ended], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
        await interruption
        ended.cancel()


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="perpforge simulator", description=__doc__)
    market = parser.add_argument_group("the market")
    market.add_argument("--symbols", help=f"names with commas between, synthetic (default {DEFAULT_SYMBOLS})")
    market.add_argument("--klines", type=Path, metavar="DIR", help="a folder of recorded 1m bars")
    market.add_argument("--source", help="synthetic:…, recorded:DIR, archive:…, in place of the two above")
    market.add_argument("--seed", type=int, default=7, help="of the synthetic market and the listen keys")
    clock = parser.add_argument_group("its clock")
    clock.add_argument("--start-ms", type=int, help="where it begins, ms UTC, a full minute; default: after a day")
    clock.add_argument("--end-ms", type=int, help="where it ends; default: with the source")
    clock.add_argument(
        "--speed", default="", help="simulated seconds per second, or `stepped`; default: as consumers allow"
    )
    clock.add_argument("--stepped", action="store_true", help="the same as --speed stepped")
    clock.add_argument("--real-time", action="store_true", help="the time is the machine's, from this minute on")
    clock.add_argument("--consumers", type=int, default=1, help="hold the clock while fewer are subscribed")
    clock.add_argument("--updates-per-bar", type=int, default=2, help="partial updates of each bar")
    server = parser.add_argument_group("the server")
    server.add_argument("--host", default="127.0.0.1")
    server.add_argument("--port", type=int, default=0, help="0 takes a free one")
    venue = parser.add_argument_group("the venue")
    venue.add_argument(
        "--account",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY:SECRET:USDT",
        help="accounts; @FILE for a secret is the PEM of an Ed25519 public key",
    )
    venue.add_argument("--faults", type=Path, metavar="PLAN", help="a JSON file: what goes wrong, and when")
    venue.add_argument("--check", action="store_true", help="prove after every step that the books add up")
    venue.add_argument("--state", type=Path, metavar="FILE", help="go on from this state; written at the end")
    venue.add_argument("--no-limits", action="store_true", help="no 429 or 418, and connections of any age")
    return parser


def _source(given: argparse.Namespace) -> BarSource:
    chosen = [name for name in ("symbols", "klines", "source") if getattr(given, name) is not None]
    if len(chosen) > 1:
        raise SimulationFailed(f"--{' and --'.join(chosen)} say different things: give one")
    if given.klines is not None:
        return open_source(f"recorded:{given.klines}")
    if given.source is not None:
        return open_source(given.source)
    names = (given.symbols or DEFAULT_SYMBOLS).replace(",", "+")
    return open_source(f"synthetic:seed={given.seed},symbols={names}")


def _start_ms(source: BarSource) -> int:
    """A day after the first bar, so that there is a past to ask for; in a short recording in its middle."""
    covered = [each for symbol in source.symbols() if (each := source.coverage(symbol)) is not None]
    if not covered:
        raise SimulationFailed(f"{source.name} has no bars to play")
    first, last = min(start for start, _ in covered), max(end for _, end in covered)
    return min(first + DAY_MS, (first + last) // 2) // MINUTE_MS * MINUTE_MS


def _this_minute() -> int:
    return int(time.time()) // 60 * MINUTE_MS


def _account(text: str) -> AccountSpec:
    spec = AccountSpec.parse(text)
    if not spec.secret.startswith("@"):
        return spec
    return replace(spec, secret=Path(spec.secret[1:]).read_text())


def _options(given: argparse.Namespace) -> Options:
    try:
        accounts = tuple(_account(text) for text in given.account)
    except (ValueError, OSError) as error:
        raise SimulationFailed(str(error)) from error
    return Options(
        accounts=accounts,
        seed=given.seed,
        check=given.check,
        plan=read_plan(given.faults) if given.faults else None,
        weight_limit=None if given.no_limits else WEIGHT_LIMIT,
        connection_ms=None if given.no_limits else DAY_MS,
        state=given.state,
        real_time=given.real_time,
    )


def _speed(text: str) -> float | None:
    if text in ("", "stepped"):
        return None
    try:
        return float(text)
    except ValueError:
        raise SimulationFailed(
            f"--speed is a number of simulated seconds per second, or stepped, not {text!r}"
        ) from None


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 0 after a signal, 1 when the simulation cannot go on."""
    given = _arguments().parse_args(arguments)
    try:
        source = _source(given)
        start_ms = given.start_ms
        if start_ms is None:
            start_ms = _this_minute() if given.real_time else _start_ms(source)
        asyncio.run(
            run_simulator(
                source,
                start_ms,
                end_ms=given.end_ms,
                speed=_speed(given.speed),
                host=given.host,
                port=given.port,
                consumers=0 if given.real_time else given.consumers,
                updates_per_bar=given.updates_per_bar,
                stepped=given.stepped or given.speed == "stepped",
                options=_options(given),
            )
        )
    except (MarketError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
