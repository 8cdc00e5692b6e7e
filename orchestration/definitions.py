"""Everything that Dagster shows and runs: `defs`."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from orchestration import checks, jobs, sensors
from orchestration.assets import bundle, evaluation, features, market, models, training
from orchestration.resources import from_environment


def definitions(resources: Mapping[str, object]) -> dg.Definitions:
    """The graph on these resources."""
    return dg.Definitions(
        assets=dg.load_assets_from_modules([market, features, training, models, evaluation, bundle]),
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        jobs=jobs.ALL,
        sensors=sensors.SENSORS,
        schedules=sensors.SCHEDULES,
        resources=dict(resources),
        # A process a step would import TensorFlow, mlflow and the compiled features anew for every asset: 30 s in
        # place of 2 s for the same graph. The steps are serial anyway, and what one has loaded the next one needs.
        executor=dg.in_process_executor,
    )


defs = definitions(from_environment())
"""The graph on the resources that the environment names."""
