"""When it is built: Dagster assets, checks, sensors and resources.

Files that hold assets, checks or sensors do not import annotations from `__future__`: Dagster looks at the type of
`context` itself, and takes a text for a type that it does not know.
"""

import warnings

# Single-run backfills are what makes a range of days affordable. They are pinned with Dagster; the notice that they
# may change in a later version would be printed once an asset in every process.
warnings.filterwarnings("ignore", message=".*`(backfill_policy|allow_nonexistent_upstream_partitions)`.*beta")
