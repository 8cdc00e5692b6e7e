"""Choosing the file that is served: every exported format measured in the live runtime against the original."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models_registry.convert import FP32, INT8
from models_registry.manifest import FormatReport, finite

LATENCY_ROWS = 200
"""The live batch: one wave of the whole universe."""


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def latencies_us(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """What each call takes in microseconds: the median over `rounds` of the shortest of `repeats`.

    The calls take turns within a round, so that what else the processor does falls on all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            best = float("inf")
            for _ in range(repeats):
                start = clock()
                call()
                best = min(best, clock() - start)
            found[name].append(best)
    return {name: statistics.median(times) * 1e6 for name, times in found.items()}


@dataclass(frozen=True)
class Parity:
    """How far a format is from the original, on held-out rows."""

    errors: Mapping[str, float]
    """By name; `max_error` is the largest absolute difference of an output."""
    limits: Mapping[str, float]
    """Of those errors that decide whether it passes."""
    agreement: float
    """Share of decisions that are the original's; what a decision is, each model says."""
    least_agreement: float


def report(path: Path, parity: Parity) -> FormatReport:
    """The report of a format that exists: it passes when it agrees and every error is within its limit (NaN is not)."""
    errors = dict(parity.errors)
    wrong = [
        f"{name} {errors[name]:.3g} exceeds {limit:g}"
        for name, limit in parity.limits.items()
        if not errors[name] <= limit
    ]
    if not parity.agreement >= parity.least_agreement:
        wrong.append(f"agreement {parity.agreement:.3g} is below {parity.least_agreement:g}")
    return FormatReport(
        passed=not wrong,
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        max_error=finite(errors["max_error"]),
        # JSON has no NaN; what was not finite is told in `failed`.
        errors={name: value for name, value in errors.items() if math.isfinite(value)},
        agreement=finite(parity.agreement),
        failed="; ".join(wrong) or None,
    )


def with_latencies(
    formats: dict[str, FormatReport],
    calls: Mapping[str, Callable[[], object]],
    base: str = FP32,
    original: str | None = None,
) -> dict[str, FormatReport]:
    """The reports with latency of those in `calls`, which run `LATENCY_ROWS` rows, and speed against that of `base`.

    `base` is the fp32 format of the runtime. `original` names the call of what the formats were made from, which has no
    report of its own; its latency is kept beside theirs.
    """
    found = latencies_us(calls)
    slow = found.get(base)
    return {
        name: msgspec.structs.replace(
            known,
            latency_us=found[name],
            latency_rows=LATENCY_ROWS,
            speedup=slow / found[name] if slow else None,
            original_us=None if original is None else found[original],
        )
        if name in found
        else known
        for name, known in formats.items()
    }


def choose(formats: dict[str, FormatReport], quantise: bool) -> tuple[str | None, str]:
    """The format to serve and why: INT8 if it passes and is faster, else fp32, else none.

    >>> quick, slow = FormatReport(passed=True, latency_us=10.0), FormatReport(passed=True, latency_us=30.0)
    >>> choose({"tflite_int8": quick, "tflite_fp32": slow}, quantise=True)
    ('tflite_int8', 'INT8 passes parity and is faster than fp32')
    >>> choose({"tflite_int8": slow, "tflite_fp32": quick}, quantise=True)
    ('tflite_fp32', 'INT8 is not faster')
    """
    int8, fp32 = formats.get(INT8), formats.get(FP32)
    if fp32 is None or not fp32.passed:
        if int8 is not None and int8.passed:
            return INT8, f"fp32 is not usable: {_why(fp32)}"
        return None, f"no format is usable: INT8 {_why(int8)}; fp32 {_why(fp32)}"
    if not quantise:
        return FP32, "quantisation is switched off"
    if int8 is None or not int8.passed:
        return FP32, f"INT8 is not usable: {_why(int8)}"
    # The reason holds no times: they would make equal models differ.
    if int8.latency_us is None or fp32.latency_us is None or int8.latency_us >= fp32.latency_us:
        return FP32, "INT8 is not faster"
    return INT8, "INT8 passes parity and is faster than fp32"


def _why(found: FormatReport | None) -> str:
    return "was not made" if found is None else found.failed or "did not pass"
