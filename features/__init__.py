"""What the market looks like, and how a trade would have ended: pure numeric code.

The names below are loaded when they are asked for: what a program needs of this package without its compiled kernels
(the live runtime of models does) must not cost it a compiler's memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from features.compilation import compile_all
    from features.decision_spec import DECISION_SPEC, DecisionSpec
    from features.default import SPEC
    from features.engine import FeatureEngine, compute
    from features.spec import FeatureSpec

__all__ = ["DECISION_SPEC", "SPEC", "DecisionSpec", "FeatureEngine", "FeatureSpec", "compile_all", "compute"]

_HOME = {
    "DECISION_SPEC": "decision_spec",
    "SPEC": "default",
    "DecisionSpec": "decision_spec",
    "FeatureEngine": "engine",
    "FeatureSpec": "spec",
    "compile_all": "compilation",
    "compute": "engine",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"features.{_HOME[name]}"), name)
