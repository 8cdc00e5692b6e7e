"""What the market looks like, and how a trade would have ended: pure numeric code."""

from __future__ import annotations

from features.default import SPEC
from features.engine import FeatureEngine, compute

__all__ = ["SPEC", "FeatureEngine", "compute"]
