"""The golden digests: what each family of SPEC makes of a fixed market, with the versions that it had.

`goldens.json` holds, per family, the sha256 of its columns and, per feature, its version and the start of the sha256
of its column. After a change of numbers: raise the `version` of each feature that the test names, then

    .venv/bin/python -m tests.features.goldens

It refuses to forget a number whose version was not raised. `--unreleased` lets it: for features that no bundle was
ever trained on.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import SPEC, compute
from features.spec import Family, FeatureSpec
from market.bars import Bars
from tests.features.series import make_bars

FILE = Path(__file__).with_name("goldens.json")
REGENERATE = ".venv/bin/python -m tests.features.goldens"


@cache
def golden_bars() -> Bars:
    """4,000 bars with a bridged gap, one that is not, and a stretch in which trades and takers are unknown."""
    bars = make_bars(4000, seed=42, missing=[400, 401, *range(900, 940)])
    for name in ("trades", "taker_buy_base", "taker_buy_quote"):
        bars[name][3000:3030] = np.nan
    bars.setflags(write=False)
    return bars


@cache
def golden_rows(spec: FeatureSpec) -> NDArray[np.float32]:
    """What `spec` makes of them, every NaN the same NaN."""
    rows = compute(golden_bars().copy(), spec)
    rows[np.isnan(rows)] = np.nan
    return rows


def _digest(columns: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(columns).tobytes()).hexdigest()


def golden(family: Family, spec: FeatureSpec = SPEC) -> dict[str, Any]:
    """The entry of one family: its columns alone, so that no other family can change it."""
    rows = golden_rows(spec)
    columns = [spec.index(feature.name) for feature in family.features]
    features = {
        feature.name: {"version": feature.version, "digest": _digest(rows[:, column])[:16]}
        for feature, column in zip(family.features, columns, strict=True)
    }
    return {"digest": _digest(rows[:, columns]), "features": features}


def complaint(name: str, stored: dict[str, Any] | None, found: dict[str, Any]) -> str:
    """What to do about a family whose entry is not the stored one; empty when it is."""
    if stored == found:
        return ""
    if stored is None:
        return f"family {name} has no golden digest yet: write it with {REGENERATE}"
    lines = [f"family {name} is not what it was:"]
    before, now = stored["features"], found["features"]
    same = {each for each in before.keys() & now.keys() if before[each] == now[each]}
    silent = [e for e in now if e in before and e not in same and now[e]["version"] <= before[e]["version"]]
    raised = [e for e in now if e in before and e not in same and e not in silent]
    if silent:
        lines.append(f"  the numbers of {', '.join(silent)} changed: raise the version of each if that is meant,")
        lines.append("  otherwise a bundle trained on the old numbers would silently get new ones")
    if raised:
        lines.append(f"  the version of {', '.join(raised)} was raised")
    for what, names in (("new", now.keys() - before.keys()), ("gone", before.keys() - now.keys())):
        if names:
            lines.append(f"  {what}: {', '.join(sorted(names))}")
    return "\n".join([*lines, f"  then write the new digests with {REGENERATE}"])


def load() -> dict[str, Any]:
    """The stored entries, by family."""
    stored: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return stored


def main(arguments: list[str]) -> int:
    """Write the entries of all families of SPEC; refused while numbers changed under the same version."""
    stored = load()
    found = {family.name: golden(family) for family in SPEC.families}
    said = [text for name in found if (text := complaint(name, stored.get(name), found[name]))]
    print("\n".join(said) or "nothing changed")
    if any("raise the version" in text for text in said) and "--unreleased" not in arguments:
        print(f"not written: raise those versions first ({FILE.name} is as it was)")
        return 1
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
