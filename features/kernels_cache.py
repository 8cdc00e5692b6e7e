"""The `njit` of the kernels of `features`, cached as `market.kernels_cache` says."""

from __future__ import annotations

from pathlib import Path

from market import kernels_cache

PACKAGES = ("market", "features")
"""Whose sources make the key: kernels here call those of `market` too."""

njit = kernels_cache.compiler(*PACKAGES, allocates=False)
"""Compile a function that neither makes nor returns arrays, without fast-math, into a cache that is never stale."""

njit_inlined = kernels_cache.compiler(*PACKAGES, allocates=False, inlined=True)
"""The same for what is called once a bar: with all of a step before it, the compiler knows sizes and shares work."""


def folder() -> Path | None:
    """Where the compiled kernels are kept, or None when no folder can be written."""
    return kernels_cache.folder(*PACKAGES)
