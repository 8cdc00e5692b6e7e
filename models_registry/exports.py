"""Choosing the file that is served: every exported format measured in the live runtime against the original."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from models_registry.convert import FP32, INT8
from models_registry.manifest import FormatReport

LATENCY_ROWS = 200
"""The live batch: one wave of the whole universe."""


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def best_latency_us(call: Callable[[], object], repeats: int = 30) -> float:
    """The shortest of `repeats` calls in microseconds: what the code needs when nothing else disturbs it."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def report(path: Path, latency_us: float, errors: dict[str, float], limits: dict[str, float]) -> FormatReport:
    """The report of a format that exists: it passes when every error is within its limit (NaN is not)."""
    over = [
        f"{name} {errors[name]:.3g} exceeds {limit:g}" for name, limit in limits.items() if not errors[name] <= limit
    ]
    return FormatReport(
        passed=not over,
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        latency_us=latency_us,
        latency_rows=LATENCY_ROWS,
        max_error=errors.get("max_error"),
        errors=errors,
        failed="; ".join(over) or None,
    )


def with_speedups(formats: dict[str, FormatReport]) -> dict[str, FormatReport]:
    """The reports with each format's speed against fp32 of the same runtime."""
    base = formats[FP32].latency_us if FP32 in formats else None
    if base is None:
        return formats
    return {
        name: msgspec.structs.replace(found, speedup=base / found.latency_us) if found.latency_us else found
        for name, found in formats.items()
    }


def choose(formats: dict[str, FormatReport], quantise: bool) -> tuple[str | None, str]:
    """The format to serve and why: INT8 if it passes and is faster, else fp32, else none.

    >>> ok, slow = FormatReport(passed=True, latency_us=10.0), FormatReport(passed=True, latency_us=30.0)
    >>> choose({"tflite_int8": ok, "tflite_fp32": slow}, quantise=True)
    ('tflite_int8', 'it passes parity and takes 10 us, fp32 takes 30 us')
    >>> choose({"tflite_int8": ok, "tflite_fp32": slow}, quantise=False)
    ('tflite_fp32', 'quantisation is switched off')
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
    times = f"{int8.latency_us or 0:.0f} us, fp32 takes {fp32.latency_us or 0:.0f} us"
    if (int8.latency_us or 0) < (fp32.latency_us or 0):
        return INT8, f"it passes parity and takes {times}"
    return FP32, f"INT8 is not faster: it takes {times}"


def _why(found: FormatReport | None) -> str:
    return "was not made" if found is None else found.failed or "did not pass"
