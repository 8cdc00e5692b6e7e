"""What the market looks like, and how a trade would have ended: pure numeric code."""

from __future__ import annotations

from features.compilation import compile_all
from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.default import SPEC
from features.engine import FeatureEngine, compute
from features.spec import FeatureSpec

__all__ = ["DECISION_SPEC", "SPEC", "DecisionSpec", "FeatureEngine", "FeatureSpec", "compile_all", "compute"]
