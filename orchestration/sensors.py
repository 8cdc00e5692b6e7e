"""What starts runs by itself: new journal segments, enough new live labels, the end of a day."""

import hashlib
from typing import TYPE_CHECKING

import dagster as dg

from orchestration import environment
from orchestration.jobs import ingest, ingest_journals, retrain
from orchestration.partitions import DAYS
from orchestration.resources import LakeResource

if TYPE_CHECKING:
    from market.lake import Lake

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@dg.sensor(
    job=ingest_journals,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Workers have published journal segments that are not labels yet.",
)
def new_journal_segments(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """One run for each state of the journals in the lake: segments are immutable, so their names tell it."""
    segments = lake.open().files("journal")
    if not segments:
        return dg.SkipReason("no worker has published a journal segment")
    state = hashlib.sha256("\n".join(segments).encode()).hexdigest()[:16]
    if state == context.cursor:
        return dg.SkipReason(f"the {len(segments)} published segments are ingested")
    context.update_cursor(state)
    return dg.RunRequest(run_key=f"journals-{state}")


@dg.sensor(
    job=retrain,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="RETRAIN_AFTER_LABELS more positions have closed since the last retraining.",
)
def retrain_on_live_labels(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Counts live labels; the cursor is how many there were when retraining last began.

    The run's key is that number too: if the cursor is lost after the request, the same request comes again and
    Dagster drops it.
    """
    from orchestration.label_store import count_live

    needed = int(environment.now("RETRAIN_AFTER_LABELS", "100"))
    store = lake.open()
    learnt, count = int(context.cursor or 0), count_live(store)
    if count < learnt:
        # The lake was emptied or replaced; what it will hold is new.
        learnt = 0
        context.update_cursor("0")
    if count - learnt < needed:
        return dg.SkipReason(f"{count - learnt} of {needed} new live labels")
    days = days_to_learn(store)
    if days is None:
        return dg.SkipReason("the live labels are from days outside the partitions: set KLINES_START_DATE")
    context.update_cursor(str(count))
    return dg.RunRequest(
        run_key=f"live-labels-{learnt}-{count // needed}", tags={RANGE_START: days[0], RANGE_END: days[1]}
    )


def days_to_learn(lake: "Lake") -> tuple[str, str] | None:
    """The first and last day of klines that a retraining brings up to date, or None when no partition is among them.

    From the newest day that is stored, which may have been unfinished, to the day of the last outcome.
    """
    from market.klines_store import date_of, stored_dates
    from orchestration.label_store import live_span

    span = live_span(lake)
    if span is None:
        return None
    first, last = date_of(span[0]), date_of(span[1])
    stored = [date for date in stored_dates(lake) if date <= last]
    keys = [key for key in DAYS.get_partition_keys() if (stored[-1] if stored else first) <= key <= last]
    return (keys[0], keys[-1]) if keys else None


every_day = dg.build_schedule_from_partitioned_job(
    ingest,
    name="every_day",
    hour_of_day=0,
    minute_of_hour=10,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Yesterday's data, ten minutes after midnight UTC. Switch it on where MARKET_SOURCE is an exchange; "
    "the synthetic market's days are all there from the start.",
)

SENSORS = (new_journal_segments, retrain_on_live_labels)
SCHEDULES = (every_day,)
