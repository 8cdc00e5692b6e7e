"""Fixtures that every test may use, and the rule that nothing is skipped silently."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("perpforge", deadline=None)
hypothesis.settings.load_profile("perpforge")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NEEDS_SHARED_DATA = "needs ../shared/data, the recorded exchange data, which is not there"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded exchange data beside the project, or a skip that says what is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(NEEDS_SHARED_DATA)
    return SHARED_DATA


def undue_skips(config: pytest.Config) -> list[str]:
    """What was skipped although it could have run, when PERPFORGE_NO_SKIPS=1 (as .ci/run sets it) asks for it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("PERPFORGE_NO_SKIPS") != "1" or reporter is None:
        return []
    return [
        f"{report.nodeid}: {report.longrepr}"
        for report in reporter.stats.get("skipped", [])
        if SHARED_DATA.is_dir() or NEEDS_SHARED_DATA not in str(report.longrepr)
    ]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn an undue skip into the run's failure."""
    if exitstatus == pytest.ExitCode.OK and undue_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name every undue skip."""
    for line in undue_skips(config):
        terminalreporter.write_line(f"skipped although it should have run: {line}", red=True)
