"""`python -m market.simulator`: the simulated exchange as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import msgspec

from market.errors import MarketError
from market.simulator.server import Simulator
from market.sources import BarSource, open_source


async def run_simulator(
    source: BarSource,
    start_ms: int,
    *,
    end_ms: int | None = None,
    speed: float | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    consumers: int = 0,
    updates_per_bar: int = 2,
    stepped: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM; the parameters are `Simulator`'s.

    Prints one line of JSON with `url` and `ws_url` when connections are taken. The end of the recording does not
    end it: REST goes on. Raises `SimulationFailed` when the source fails.
    """
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    simulator = Simulator(
        source,
        start_ms,
        end_ms=end_ms,
        speed=speed,
        host=host,
        port=port,
        consumers=consumers,
        updates_per_bar=updates_per_bar,
        stepped=stepped,
    )
    async with simulator:
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
    parser = argparse.ArgumentParser(prog="python -m market.simulator", description=__doc__)
    parser.add_argument("--source", required=True, help="synthetic:…, recorded:DIR, …")
    parser.add_argument("--start-ms", type=int, required=True, help="where the clock begins, ms UTC, a full minute")
    parser.add_argument("--end-ms", type=int, help="where it ends; default: with the source")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--speed", type=float, help="simulated seconds per second; default: as consumers allow")
    parser.add_argument("--stepped", action="store_true", help="stand still until told to step")
    parser.add_argument("--consumers", type=int, default=1, help="hold the clock while fewer are subscribed")
    parser.add_argument("--updates-per-bar", type=int, default=2, help="partial updates of each bar")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 0 after a signal, 1 when the simulation cannot go on."""
    given = vars(_arguments().parse_args(arguments))
    try:
        asyncio.run(run_simulator(open_source(given.pop("source")), given.pop("start_ms"), **given))
    except (MarketError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
