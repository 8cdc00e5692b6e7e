"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded exchange data beside the project, or a skip that says what is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data, the recorded exchange data, which is not there")
    return SHARED_DATA
