"""`python -m benchmarks [NAME …]`: run all benchmarks but the long ones, or those named. `learners` runs by itself."""

import importlib
import sys

from benchmarks import report

NAMES = (
    "feature_history",
    "feature_wave",
    "incremental_cache",
    "features_asset",
    "inference",
    "front",
    "memory",
    "quantisation",
    "dynamic_features",
    "journal_commit",
    "state_store",
    "simulator",
    "bundle_swap",
    "kline_messages",
    "archive_ingest",
)
LONG = ("demo_stages",)
"""Only by name."""

ALONE = "learners"
"""It takes long, has arguments of its own and prints tables of its own."""


def main(names: list[str]) -> None:
    """Run the named benchmarks and print one table; and the reference's claims, when what they need was run."""
    if names[:1] == [ALONE]:
        importlib.import_module(f"benchmarks.{ALONE}").main(names[1:])
        return
    unknown = set(names) - {*NAMES, *LONG}
    if unknown:
        raise SystemExit(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join((*NAMES, *LONG))}")
    rows = {name: importlib.import_module(f"benchmarks.{name}").run() for name in names or NAMES}
    report.show([row for found in rows.values() for row in found])
    claims = importlib.import_module("benchmarks.reference_claims")
    if set(claims.SOURCES) <= rows.keys():
        claims.show(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
