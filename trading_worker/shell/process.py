"""The worker as a process: signals, exit codes, and a last line that says why it ended."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from enum import IntEnum

from market.binance.errors import AccessRefused, LocationRefused
from trading_worker.errors import JournalCorrupt, JournalError, JournalLocked, SettingInvalid
from trading_worker.settings import WorkerSettings, load
from trading_worker.shell.worker import run_worker


class ExitCode(IntEnum):
    """What a supervisor may act on. Only 0 is an end that was asked for."""

    STOPPED = 0
    """SIGTERM or SIGINT: committed, stored, published."""
    FAILED = 1
    """A fault of this program or its surroundings, named on the last line: restarting may help."""
    CONFIGURATION = 2
    """A setting that is not allowed: restarting does not help."""
    VENUE_REFUSES = 3
    """The venue serves nobody here, or not with these rights: restarting does not help."""
    JOURNAL_LOCKED = 4
    """Another worker runs on this folder: restarting does not help while it does."""
    JOURNAL_DAMAGED = 5
    """The journal cannot be read or written: look at it first."""
    PORT_TAKEN = 6
    """The status page's port is in use."""


def exit_code(error: BaseException) -> ExitCode:
    """The code for what ended the worker.

    >>> exit_code(ExceptionGroup("tasks", [SettingInvalid("PORT", "x", "a number")])).name
    'CONFIGURATION'
    """
    known: tuple[tuple[type[BaseException], ExitCode], ...] = (
        (SettingInvalid, ExitCode.CONFIGURATION),
        (LocationRefused, ExitCode.VENUE_REFUSES),
        (AccessRefused, ExitCode.VENUE_REFUSES),
        (JournalLocked, ExitCode.JOURNAL_LOCKED),
        (JournalCorrupt, ExitCode.JOURNAL_DAMAGED),
        (JournalError, ExitCode.JOURNAL_DAMAGED),
    )
    for cause in causes(error):
        for kind, code in known:
            if isinstance(cause, kind):
                return code
        if isinstance(cause, OSError) and "address already in use" in str(cause).lower():
            return ExitCode.PORT_TAKEN
    return ExitCode.FAILED


def causes(error: BaseException) -> list[BaseException]:
    """What is inside an exception group, however deep; the error itself when it is none."""
    if isinstance(error, BaseExceptionGroup):
        return [inner for part in error.exceptions for inner in causes(part)]
    return [error]


async def _run(settings: WorkerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_worker(settings, stop=stop)


def main() -> int:
    """Run the worker of this environment; returns the process's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    log = logging.getLogger("trading_worker")
    try:
        asyncio.run(_run(load()))
    except Exception as error:  # The end of the process: whatever it was is named, and told by the code.
        code = exit_code(error)
        reason = "; ".join(f"{type(cause).__name__}: {cause}" for cause in causes(error))
        detail = error if code is ExitCode.FAILED else None
        log.error("ended with code %d (%s): %s", code, code.name, reason, exc_info=detail)
        return code
    log.info("stopped as asked")
    return ExitCode.STOPPED
