"""What a manifest says of trading: the plan that labels were made with, and the costs.

A worker trades by these numbers, so they are built and checked before a bundle decides, not at its first decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

from features.hunt_settings import HuntSettings
from features.positions import CostModel, TradePlan

MOST_HORIZON_MINUTES = 366 * 1440
"""A year: what lies beyond is a unit taken for another."""

WHOLE_PRICE_BPS = 10_000.0


def trade_plan(values: Mapping[str, float]) -> TradePlan:
    """The plan of a manifest, all of it or none: an empty one is the default plan.

    Raises `ValueError` unless both distances are positive and the horizon is whole minutes of at most a year.

    >>> trade_plan({"stop_atr": 1.0, "target_atr": 3.0, "horizon_minutes": 60.0})
    TradePlan(stop_atr=1.0, target_atr=3.0, horizon_minutes=60)
    """
    if not values:
        return TradePlan()
    names = set(asdict(TradePlan()))
    if set(values) != names:
        raise ValueError(f"its plan says {', '.join(sorted(values))}; a plan is {', '.join(sorted(names))}")
    stop, target, horizon = values["stop_atr"], values["target_atr"], values["horizon_minutes"]
    for name, distance in (("stop_atr", stop), ("target_atr", target)):
        if not (math.isfinite(distance) and distance > 0):
            raise ValueError(f"its plan has {name} {distance:g}, which is no distance")
    if not (1 <= horizon <= MOST_HORIZON_MINUTES and float(horizon).is_integer()):
        raise ValueError(f"its plan has a horizon of {horizon:g} minutes, not whole ones from 1 to a year")
    return TradePlan(stop_atr=float(stop), target_atr=float(target), horizon_minutes=int(horizon))


def cost_model(values: Mapping[str, float]) -> CostModel:
    """The costs of a manifest; one that it does not name has its default.

    Raises `ValueError` for a name that is no cost, and unless each is at least 0 and less than the whole price.

    >>> cost_model({"fee_bps": 4.0})
    CostModel(fee_bps=4.0, spread_bps=1.0, slippage_bps=1.0)
    """
    names = set(asdict(CostModel()))
    unknown = sorted(set(values) - names)
    if unknown:
        raise ValueError(f"its costs name {', '.join(unknown)}; costs are {', '.join(sorted(names))}")
    for name, value in values.items():
        if not 0 <= value < WHOLE_PRICE_BPS:
            raise ValueError(f"its costs have {name} {value:g}, which is no share of a price")
    return CostModel(**values)


def hunting_terms(settings: HuntSettings | None) -> dict[str, float]:
    """What a training says of how its candidates hunt liquidity; empty when they do not.

    >>> hunting_terms(HuntSettings()) | {"version": 0}
    {'threshold': 0.6, 'tolerance': 0.003, 'version': 0}
    """
    if settings is None:
        return {}
    # Its kernels are loaded with it: who only reads a manifest does without.
    from features.liquidity import VERSION

    return {**asdict(settings), "version": float(VERSION)}


def hunting_differs(values: Mapping[str, float], settings: HuntSettings) -> str | None:
    """Why a bundle whose manifest says `values` of hunting has not learnt from hunts by `settings`; None if it has.

    >>> hunting_differs({}, HuntSettings())
    'its win model was trained without hunting candidates'
    """
    if not values.get("rows"):
        return "its win model was trained without hunting candidates"
    wanted = hunting_terms(settings)
    other = [f"{name} {values.get(name, math.nan):g}, not {wanted[name]:g}" for name in wanted]
    changed = [text for text, name in zip(other, wanted, strict=True) if values.get(name) != wanted[name]]
    return f"its win model was trained with other hunting candidates: {', '.join(changed)}" if changed else None


def check_hunting(values: Mapping[str, float]) -> None:
    """Raises `ValueError` unless these are what a training says of hunting."""
    unknown = sorted(set(values) - {"rows", "version", *asdict(HuntSettings())})
    if unknown:
        raise ValueError(f"its hunting names {', '.join(unknown)}, which is no part of it")
    wrong = sorted(name for name, value in values.items() if not math.isfinite(value))
    if wrong:
        raise ValueError(f"its hunting has no number for {', '.join(wrong)}")
