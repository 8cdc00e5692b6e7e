"""`python -m benchmarks [NAME …]`: run all benchmarks, or those named. `learners`, which takes long, runs by itself."""

import importlib
import sys

from benchmarks.report import show

NAMES = (
    "feature_history",
    "feature_wave",
    "incremental_cache",
    "features_asset",
    "inference",
    "dynamic_features",
    "journal_commit",
    "state_store",
    "simulator",
    "bundle_swap",
    "kline_messages",
    "archive_ingest",
    "demo_stages",
)


ALONE = "learners"
"""It has arguments of its own and prints tables of its own."""


def main(names: list[str]) -> None:
    """Run the named benchmarks and print one table."""
    if names[:1] == [ALONE]:
        importlib.import_module(f"benchmarks.{ALONE}").main(names[1:])
        return
    unknown = set(names) - set(NAMES)
    if unknown:
        raise SystemExit(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    show([row for name in names or NAMES for row in importlib.import_module(f"benchmarks.{name}").run()])


if __name__ == "__main__":
    main(sys.argv[1:])
