"""Fixtures that every test may use, and the rule that nothing is skipped silently."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NEEDS_SHARED_DATA = "needs ../shared/data, the recorded exchange data, which is not there"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded exchange data beside the project, or a skip that says what is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(NEEDS_SHARED_DATA)
    return SHARED_DATA


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """With PERPFORGE_NO_SKIPS=1 (as .ci/run sets it) a skipped test is a failure, unless its data is really absent."""
    if os.environ.get("PERPFORGE_NO_SKIPS") != "1":
        return
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if NEEDS_SHARED_DATA in reason and not SHARED_DATA.is_dir():
            continue
        terminalreporter.write_line(f"skipped although it should have run: {report.nodeid}: {reason}", red=True)
        config.stash[SKIPPED_UNDULY] = True


SKIPPED_UNDULY = pytest.StashKey[bool]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn an undue skip into the run's failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("PERPFORGE_NO_SKIPS") != "1" or reporter is None:
        return
    skipped = reporter.stats.get("skipped", [])
    undue = [r for r in skipped if not (NEEDS_SHARED_DATA in str(r.longrepr) and not SHARED_DATA.is_dir())]
    if undue and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
