"""What the scripts of all clients share: rows of the matrix, and the simulator's control endpoint."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from http.client import HTTPConnection
from typing import Any

KEY, SDK_KEY, OWN_KEY, POOR_KEY, SECRET = "ccxt", "sdk", "own", "poor", "secret"
DOOMED_KEY, SDK_DOOMED_KEY, OWN_DOOMED_KEY = "doomed", "sdk-doomed", "own-doomed"
"""Accounts that are liquidated."""
SYMBOL = "BTCUSDT"


class Matrix:
    """Runs operations one after the other, and prints a JSON line for each with what came of it."""

    def __init__(self, client: str, url: str) -> None:
        self.client, self.url = client, url

    async def row(self, operation: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """One operation: `call` returns what is worth telling, and raises when it is not as it should be."""
        try:
            detail = await asyncio.wait_for(call(), 45)
            result = "ok"
        except Exception as error:  # noqa: BLE001 - every failure is a row of the matrix
            detail, result = f"{type(error).__name__}: {error}"[:300], "FAILED"
        line = {"client": self.client, "operation": operation, "result": result, "detail": str(detail)[:160]}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        return detail

    def faults(self, **wish: Any) -> None:
        """Ask the simulator for something out of the ordinary."""
        body = json.dumps(wish).encode()
        connection = HTTPConnection(self.url.removeprefix("http://"))
        connection.request("POST", "/simulator/faults", body)
        answer = connection.getresponse()
        expect(answer.status == 200, answer.read())
        connection.close()


def expect(condition: object, found: object) -> None:
    """Fail with what was found."""
    if not condition:
        raise AssertionError(repr(found)[:250])
