"""The bundles that were ever trained: each entered when it is assembled, whatever becomes of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from models_registry.manifest import Manifest, content_digest
from models_registry.trial_log import Trial, TrialLog


def entering(ledger: str | Path, run: str) -> Callable[[Manifest], int]:
    """What enters a bundle that the run trained into the log beside the `ledger`; it says how many there are then."""

    def enter(manifest: Manifest) -> int:
        settings = hashlib.sha256(msgspec.json.encode(manifest.config, order="sorted")).hexdigest()
        trial = Trial(
            run=run, content=content_digest(manifest), data_hash=manifest.training.data_hash, settings=settings
        )
        return TrialLog.beside(ledger).enter(trial, time_ms=time.time_ns() // 1_000_000)

    return enter
