"""The live half of the demo: the simulated exchange, and the worker that trades on it, as processes of their own."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from market.bars import MINUTE_MS
from models_registry.processes import free_port
from perpforge.demo.building import STRATEGY
from perpforge.demo.plan import DemoPlan
from perpforge.home import environment
from perpforge.processes import Child

POLL_S = 0.25
READY_S = 120.0
"""How long a child may take until it answers, on a machine that is busy."""


class DemoStepMissing(Exception):
    """A step that the demo is there to show did not happen: the demo ends with a failure, and says which."""


def fetch(url: str, body: object = None) -> dict[str, Any]:
    """GET `url`, or POST `body` to it, as JSON; OSError when nobody answers. A 503 is an answer."""
    data = None if body is None else msgspec.json.encode(body)
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=10.0) as response:  # noqa: S310
            content: dict[str, Any] = msgspec.json.decode(response.read())
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        content = msgspec.json.decode(error.read())
    return content


@dataclass
class LiveMarket:
    """Both processes. The exchange's clock waits for the worker, so its speed is the worker's at most."""

    plan: DemoPlan
    mlflow_url: str
    exchange_port: int = field(default_factory=free_port)
    worker_port: int = field(default_factory=free_port)
    exchange: Child | None = None
    worker: Child | None = None

    @property
    def exchange_url(self) -> str:
        """REST of the simulated exchange."""
        return f"http://127.0.0.1:{self.exchange_port}"

    @property
    def worker_url(self) -> str:
        """The worker's status page."""
        return f"http://127.0.0.1:{self.worker_port}"

    def start_exchange(self) -> None:
        """Start the simulated exchange: history over REST, the clock held until a worker listens."""
        plan = self.plan
        command = [
            *(sys.executable, "-m", "market.simulator"),
            *("--source", plan.source),
            *("--start-ms", str(plan.live_ms)),
            *("--port", str(self.exchange_port)),
            *("--consumers", "1"),
            "--no-limits",
        ]
        if plan.end_ms is not None:
            command += ["--end-ms", str(plan.end_ms)]
        self.exchange = Child.start("the simulated exchange", command, plan.home / "logs" / "exchange.log")
        self._await_answer(self.exchange, f"{self.exchange_url}/simulator/clock")

    def start_worker(self) -> None:
        """Start the worker on that exchange; returns when it decides."""
        settings = {
            **environment(self.plan.home, self.mlflow_url),
            "BINANCE_BASE_URL": self.exchange_url,
            "BINANCE_WS_URL": self.exchange_url.replace("http", "ws", 1),
            "WORKER_NAME": "demo",
            "STRATEGY_MODE": STRATEGY,
            "BUNDLE_POLL_S": "1",
            "SEGMENT_BYTES": str(64 * 1024),
            "HOST": "127.0.0.1",
            "PORT": str(self.worker_port),
        }
        command = [sys.executable, "-m", "trading_worker"]
        self.worker = Child.start("the worker", command, self.plan.home / "logs" / "worker.log", settings)
        self._await_answer(self.worker, f"{self.worker_url}/healthz")
        self._await(
            lambda: bool(self.status()["ready"]), READY_S, lambda: f"the worker waits: {self.status()['waiting']}"
        )

    def status(self) -> dict[str, Any]:
        """What the worker says of itself."""
        self.check()
        return fetch(f"{self.worker_url}/status.json")

    def clock(self) -> dict[str, Any]:
        """What the exchange's clock says."""
        self.check()
        return fetch(f"{self.exchange_url}/simulator/clock")

    def set_clock(self, *, speed: float | None, pause_at_ms: int | None) -> None:
        """`speed` in simulated seconds a second (None: as fast as the worker takes it), and where to stand still."""
        fetch(f"{self.exchange_url}/simulator/clock", {"speed": speed, "pause_at_ms": pause_at_ms})

    def run_until(self, time_ms: int, report: Callable[[float, dict[str, Any]], None]) -> None:
        """Wait until the worker has taken every minute before `time_ms`, reporting the share that is done."""
        start_ms = int(self.clock()["minute_ms"])
        latest, moved = start_ms, time.monotonic()
        while True:
            status = self.status()
            done_ms = int(status["wave_ms"]) + 1
            if done_ms >= time_ms:
                return
            if done_ms > latest:
                latest, moved = done_ms, time.monotonic()
            elif time.monotonic() - moved > READY_S:
                raise DemoStepMissing(f"no minute passed in {READY_S:.0f} s: exchange {self.clock()}, worker {status}")
            report((done_ms - start_ms) / max(time_ms - start_ms, MINUTE_MS), status)
            time.sleep(POLL_S)

    def await_bundle(self, version: str, timeout_s: float) -> dict[str, Any]:
        """Wait until the worker decides with bundle `version`; returns its status."""

        def swapped() -> bool:
            return any(swap["version"] == version for swap in self.status()["swaps"])

        self._await(swapped, timeout_s, lambda: f"the worker did not swap to {version}: {self.status()['refused']}")
        return self.status()

    def check(self) -> None:
        """Raise `ChildFailed` if either has ended."""
        for child in (self.exchange, self.worker):
            if child is not None:
                child.check()

    def stop(self) -> None:
        """End both: the worker first, so that it commits and publishes what it has."""
        for child in (self.worker, self.exchange):
            if child is not None:
                child.stop()
        self.worker = self.exchange = None

    def _await_answer(self, child: Child, url: str) -> None:
        def answers() -> bool:
            child.check()
            try:
                fetch(url)
            except OSError:
                return False
            return True

        self._await(answers, READY_S, lambda: f"{child.name} does not answer at {url}")

    def _await(self, condition: Callable[[], bool], timeout_s: float, failure: Callable[[], str]) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise DemoStepMissing(failure())
            time.sleep(POLL_S)
