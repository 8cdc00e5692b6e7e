"""The layout of a home folder, and the environment that points every part at it."""

from __future__ import annotations

from pathlib import Path


def environment(home: Path, mlflow_url: str) -> dict[str, str]:
    """The variables under which assets, worker and UI work in `home`."""
    return {
        "DAGSTER_HOME": str(home / "dagster"),
        "LAKE_URI": str(home / "lake"),
        "STATE_DIR": str(home / "worker"),
        "MLFLOW_TRACKING_URI": mlflow_url,
    }
