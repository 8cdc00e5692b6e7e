"""How the properties are searched: the same examples in every run, and no clock."""

from __future__ import annotations

from hypothesis import settings

steady = settings(deadline=None, derandomize=True)
