"""What the market looks like, and how a trade would have ended: pure numeric code."""

from __future__ import annotations

from features.decision_spec import DECISION_SPEC
from features.default import SPEC
from features.engine import FeatureEngine, compute

__all__ = ["DECISION_SPEC", "SPEC", "FeatureEngine", "compute"]
