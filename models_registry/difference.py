"""What differs between two bundles, as their manifests tell it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from market.errors import utc
from models_registry.manifest import Component, Manifest, Metric, component_digest

ABSENT = "–"
LONG = ("importance", "history")
"""Parameters with a number for each column or round."""


@dataclass(frozen=True)
class Difference:
    """One line: where, and what stands there in each of the two."""

    where: str
    one: str
    other: str


def differences(one: Manifest, other: Manifest) -> list[Difference]:
    """Every difference that means something, from the whole to the parts.

    What training measures anew each time (latencies) and what is long (curves, weights and importance of columns) is
    left out: of the models' parameters only single numbers and texts are compared. Columns of the DecisionSpec and
    files are named where they come or go.
    """
    return [*_whole(one, other), *_components(one, other)]


def _whole(one: Manifest, other: Manifest) -> Iterator[Difference]:
    for name in ("decision_spec.id", "parent", "code_version"):
        yield from _line(name, _get(one, name), _get(other, name))
    yield from _members("decision_spec.names", one.decision_spec.names, other.decision_spec.names)
    for name in ("plan", "costs", "hunting", "training"):
        yield from _mapping(name, _plain(getattr(one, name)), _plain(getattr(other, name)))


def _components(one: Manifest, other: Manifest) -> Iterator[Difference]:
    for name in sorted({*one.components, *other.components}):
        first, second = one.components.get(name), other.components.get(name)
        if first is None or second is None:
            yield Difference(
                name, ABSENT if first is None else first.version, ABSENT if second is None else second.version
            )
        elif component_digest(first) != component_digest(second):
            yield from _component(name, first, second)


def _component(name: str, one: Component, other: Component) -> Iterator[Difference]:
    for key in ("version", "served", "format", "fallback"):
        yield from _line(f"{name}.{key}", getattr(one, key), getattr(other, key))
    if one.served and other.served and one.files.get(one.served) != other.files.get(other.served):
        yield Difference(f"{name}.sha256", one.files[one.served][:12], other.files[other.served][:12])
    for metric in sorted({*one.metrics, *other.metrics}):
        first, second = one.metrics.get(metric), other.metrics.get(metric)
        yield from _line(f"{name}.metrics.{metric}", _metric(first), _metric(second))
    for file in sorted({*one.formats, *other.formats}):
        found = (part.formats.get(file) for part in (one, other))
        words = (None if each is None else "passed" if each.passed else f"failed: {each.failed}" for each in found)
        yield from _line(f"{name}.formats.{file}", *words)
    short = ({key: value for key, value in part.parameters.items() if key not in LONG} for part in (one, other))
    yield from _mapping(f"{name}.parameters", *short)


def _metric(found: Metric | None) -> str | None:
    if found is None or found.value is None:
        return None
    span = "" if found.interval is None else f" (better by {found.interval[0]:+.4g} to {found.interval[1]:+.4g})"
    return f"{found.value:.5g}{span}"


def _mapping(where: str, one: dict[str, Any], other: dict[str, Any]) -> Iterator[Difference]:
    """Differences of single values, through mappings within mappings."""
    for key in sorted({*one, *other}):
        first, second = one.get(key), other.get(key)
        if isinstance(first, dict) or isinstance(second, dict):
            pair = (value if isinstance(value, dict) else {} for value in (first, second))
            yield from _mapping(f"{where}.{key}", *pair)
        elif not isinstance(first, list) and not isinstance(second, list):
            yield from _line(f"{where}.{key}", first, second)


def _members(where: str, one: list[str], other: list[str]) -> Iterator[Difference]:
    for name in [name for name in one if name not in set(other)]:
        yield Difference(where, name, ABSENT)
    for name in [name for name in other if name not in set(one)]:
        yield Difference(where, ABSENT, name)


def _line(where: str, one: object, other: object) -> Iterator[Difference]:
    if one != other:
        time = where.endswith(("_ms", "_at"))
        yield Difference(where, _word(one, time), _word(other, time))


def _word(value: object, time: bool) -> str:
    if value is None:
        return ABSENT
    if time and isinstance(value, int):
        return utc(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


def _get(value: object, path: str) -> object:
    for name in path.split("."):
        value = getattr(value, name)
    return value
