"""The families of one series' own indicators: SPEC without structure, profile and regime, which are tested apart."""

from __future__ import annotations

from features.default import SPEC
from features.spec import FeatureSpec

MODULES = ("trend", "volatility", "oscillators", "volume", "candle", "event")

KERNELS = FeatureSpec(
    tuple(family for family in SPEC.families if family.step.__module__.rpartition(".")[2] in MODULES), SPEC.shared
)
"""Smaller than SPEC, so compiled sooner; the numbers are the same."""
