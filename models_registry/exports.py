"""Choosing the file that is served: every exported format measured in the live runtime against the original."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from models_registry.convert import FP32, INT8
from models_registry.manifest import FormatReport

LATENCY_ROWS = 200
"""The live batch: one wave of the whole universe."""

SLOWER = 1.25
"""How many times as long as fp32 INT8 must take to count as slower. It is smaller, and loaded or idle the same
machine should choose the same: measured times differ by a tenth from one training to the next."""


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


def report(path: Path, errors: dict[str, float], limits: dict[str, float]) -> FormatReport:
    """The report of a format that exists: it passes when every error is within its limit (NaN is not)."""
    over = [
        f"{name} {errors[name]:.3g} exceeds {limit:g}" for name, limit in limits.items() if not errors[name] <= limit
    ]
    return FormatReport(
        passed=not over,
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        max_error=errors.get("max_error"),
        errors=errors,
        failed="; ".join(over) or None,
    )


def with_latencies(
    formats: dict[str, FormatReport], calls: Mapping[str, Callable[[], object]]
) -> dict[str, FormatReport]:
    """The reports with latency, and speed against fp32, of those in `calls`; a call runs `LATENCY_ROWS` rows."""
    found = latencies_us(calls)
    base = found.get(FP32)
    return {
        name: msgspec.structs.replace(
            known,
            latency_us=found[name],
            latency_rows=LATENCY_ROWS,
            speedup=base / found[name] if base and found[name] else None,
        )
        if name in found
        else known
        for name, known in formats.items()
    }


def choose(formats: dict[str, FormatReport], quantise: bool) -> tuple[str | None, str]:
    """The format to serve and why: INT8 if it passes and is not measurably slower, else fp32, else none.

    >>> quick, slow = FormatReport(passed=True, latency_us=10.0), FormatReport(passed=True, latency_us=30.0)
    >>> choose({"tflite_int8": quick, "tflite_fp32": slow}, quantise=True)
    ('tflite_int8', 'it passes parity and is not slower than fp32')
    >>> choose({"tflite_int8": slow, "tflite_fp32": quick}, quantise=True)
    ('tflite_fp32', 'INT8 is slower')
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
    if int8.latency_us and fp32.latency_us and int8.latency_us > SLOWER * fp32.latency_us:
        return FP32, "INT8 is slower"
    return INT8, "it passes parity and is not slower than fp32"


def _why(found: FormatReport | None) -> str:
    return "was not made" if found is None else found.failed or "did not pass"
