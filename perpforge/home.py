"""The layout of a home folder, and the environment that points every part at it."""

from __future__ import annotations

from pathlib import Path

DAGSTER_PORT, MLFLOW_PORT, WORKER_PORT = 3000, 5000, 8080
"""Where `perpforge up` serves its pages, on loopback."""


def environment(home: Path, mlflow_url: str) -> dict[str, str]:
    """The variables under which assets, worker and UI work in `home`."""
    return {
        "DAGSTER_HOME": str(home / "dagster"),
        "LAKE_URI": str(home / "lake"),
        "STATE_DIR": str(home / "worker"),
        "LEDGER_PATH": str(home / "registry" / "ledger.jsonl"),
        "MLFLOW_HOME": str(home / "mlflow"),
        "MLFLOW_TRACKING_URI": mlflow_url,
    }
