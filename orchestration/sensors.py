"""What starts runs by itself: journal segments, enough new live labels, a champion to look after, days and weeks."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from orchestration import environment
from orchestration.gate_settings import GateSettings
from orchestration.jobs import ingest, ingest_journals, retrain, retrain_from_scratch, watch_champion
from orchestration.partitions import DAYS
from orchestration.resources import LakeResource, RegistryResource, TrainingSettings

if TYPE_CHECKING:
    from market.lake import Lake
    from models_registry.ledger import Ledger

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
STAND = "perpforge/live-labels"
"""Tag of a retraining: which labels had been learnt from when it was asked for."""
STATE = "perpforge/state"
"""Tag of a run that deals with a state of the lake or of the registry: which one."""
AGAIN_S = 300.0
"""A run for a state that another one failed at begins no sooner than so long after that one began."""

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_BEGUN = [
    *_ENDED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(
    job=ingest_journals,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Workers have published journal segments that are not labels yet.",
)
def new_journal_segments(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Runs for each state of the lake's journals until one succeeds: segments are immutable, so their names tell it.

    It keeps nothing of its own: what was ingested is what the runs say.
    """
    segments = lake.open().files("journal")
    if not segments:
        return dg.SkipReason("no worker has published a journal segment")
    state = hashlib.sha256("\n".join(segments).encode()).hexdigest()[:16]
    done = dg.RunsFilter(job_name=ingest_journals.name, tags={STATE: state}, statuses=[dg.DagsterRunStatus.SUCCESS])
    if context.instance.get_runs_count(done):
        return dg.SkipReason(f"the {len(segments)} published segments are ingested")
    return _ask(context.instance, ingest_journals.name, "journals", state)


def _ask(
    instance: dg.DagsterInstance, job: str, name: str, state: str, tags: Mapping[str, str] | None = None
) -> dg.RunRequest | dg.SkipReason:
    """A run of `job` for `state`: one, and another after each that ended, for as long as the sensor asks.

    Dagster starts no key twice, not even one whose run failed: so the key counts the runs that ended.
    """
    of_state = {STATE: state}
    last = instance.get_run_records(dg.RunsFilter(job_name=job, tags=of_state, statuses=_BEGUN), limit=1)
    if last and last[0].dagster_run.status not in _ENDED:
        return dg.SkipReason(f"the run {last[0].dagster_run.run_id} is at it")
    passed = _now() - last[0].create_timestamp.timestamp() if last else AGAIN_S
    if passed < AGAIN_S:
        run = last[0].dagster_run
        return dg.SkipReason(f"the run {run.run_id} ended as {run.status.value}: the next one after {AGAIN_S:g} s")
    ended = instance.get_runs_count(dg.RunsFilter(job_name=job, tags=of_state, statuses=_ENDED))
    return dg.RunRequest(run_key=f"{name}-{state}-{ended}", tags={**of_state, **(tags or {})})


@dg.sensor(
    job=retrain,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="RETRAIN_AFTER_LABELS more positions have closed, in days that can be ingested, than the newest bundle "
    "could learn from, and the last retraining began at least RETRAIN_MIN_INTERVAL_MINUTES (60) ago.",
)
def retrain_on_live_labels(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Compares the live labels that a retraining could learn from with those that the newest bundle could.

    It keeps nothing of its own: a retraining that failed has used up no labels and is asked for again, as soon as the
    interval is over. The interval is of wall time, since it is for the machine that trains: two trainings must not
    follow each other all day, however fast the market goes. The run's key tells the lake (by its first live label),
    what had been learnt, and how many runs ended since: the same request is one run, however often it is made.
    """
    from orchestration.label_store import count_learnable, live_span
    from orchestration.training_data import learnt

    needed = int(environment.now("RETRAIN_AFTER_LABELS", "100"))
    store = lake.open()
    span = live_span(store)
    if span is None:
        return dg.SkipReason(f"0 of {needed} new live labels")
    days = days_to_learn(store)
    if days is None:
        return dg.SkipReason("the live labels are from days outside the partitions: set KLINES_START_DATE")
    before = learnt(store)
    new = max(count_learnable(store, days) - before, 0)
    if new < needed:
        return dg.SkipReason(f"{new} of {needed} new live labels, in days up to {days[1]}")
    waiting = _waiting(context.instance)
    if waiting is not None:
        return dg.SkipReason(f"{new} new live labels, but {waiting}")
    stand = f"{span[0]}-{before}"
    ended = context.instance.get_runs_count(
        dg.RunsFilter(job_name=retrain.name, tags={STAND: stand}, statuses=_ENDED),
    )
    tags = {RANGE_START: days[0], RANGE_END: days[1], STAND: stand}
    return dg.RunRequest(run_key=f"live-labels-{stand}-{ended}", tags=tags)


def _waiting(instance: dg.DagsterInstance) -> str | None:
    """Why no retraining may begin now, if none may.

    A run that was created and never queued is left out: the daemon died in between, and takes it up when it is asked
    for again.
    """
    last = instance.get_run_records(dg.RunsFilter(job_name=retrain.name, statuses=_BEGUN), limit=1)
    if not last:
        return None
    if last[0].dagster_run.status not in _ENDED:
        return f"the retraining {last[0].dagster_run.run_id} is under way"
    pause = float(environment.now("RETRAIN_MIN_INTERVAL_MINUTES", "60"))
    passed = (_now() - last[0].create_timestamp.timestamp()) / 60
    return f"the last retraining began {passed:.0f} of {pause:g} minutes ago" if passed < pause else None


def _now() -> float:
    return datetime.now(UTC).timestamp()


def days_to_learn(lake: "Lake") -> tuple[str, str] | None:
    """The first and last day of klines that a retraining brings up to date, or None when no partition is among them.

    From the newest day that is stored, which may have been unfinished, to the day of the last outcome. With nothing
    stored, from so long before the first decision that its row is warm.
    """
    from features.decision_spec import DECISION_SPEC
    from market.klines_store import date_of, stored_dates
    from orchestration.label_store import live_span

    span = live_span(lake)
    if span is None:
        return None
    first, last = date_of(DECISION_SPEC.cold_start(span[0])), date_of(span[1])
    stored = [date for date in stored_dates(lake) if date <= last]
    keys = [key for key in DAYS.get_partition_keys() if (stored[-1] if stored else first) <= key <= last]
    return (keys[0], keys[-1]) if keys else None


@dg.sensor(
    job=watch_champion,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="The alias of champion or challenger was moved by hand, such as in the MLflow UI, or the champion's "
    "live record lies wholly below the interval that it was promoted for.",
)
def champion_to_watch(
    context: dg.SensorEvaluationContext,
    lake: LakeResource,
    registry: RegistryResource,
    training: TrainingSettings,
    gate: GateSettings,
) -> dg.RunRequest | dg.SkipReason:
    """Only looks: the alias by REST, the ledger and the live labels. No server is started for it."""
    from pathlib import Path

    from models_registry.ledger import Ledger
    from models_registry.mlflow_rest import RegistryUnreachable
    from orchestration.live_records import look

    url = registry.address()
    if url is None:
        return dg.SkipReason("no MLflow server answers")
    ledger = Ledger(Path(registry.ledger))
    try:
        moved = _moved_by_hand(url, ledger)
    except RegistryUnreachable as error:
        return dg.SkipReason(str(error))
    if moved:
        state = f"{len(ledger.entries())}-{moved}"
        return _ask(context.instance, watch_champion.name, "moved", state, {"perpforge/moved": moved})
    found = look(lake.open(), ledger, gate.demotion(training.seed), training.plan().horizon_minutes)
    if found is None:
        return dg.SkipReason("there is no champion")
    said = f"bundle {found.tenure.version}: {found.verdict.reason}"
    if not found.verdict.demote:
        return dg.SkipReason(said)
    if found.before is None:
        return dg.SkipReason(f"{said}; nobody was champion before it, so it stays")
    version = found.tenure.version
    state = f"{version}-{found.live_until_ms}"
    return _ask(context.instance, watch_champion.name, "demote", state, {"perpforge/demote": version})


def _moved_by_hand(url: str, ledger: "Ledger") -> str:
    """Which aliases are not where the ledger has them, as `champion=3`, empty when all are."""
    import asyncio

    import aiohttp

    from models_registry.ledger import CHALLENGER, CHAMPION
    from models_registry.mlflow_rest import BUNDLE_MODEL, MlflowRest

    async def versions() -> dict[str, str | None]:
        async with aiohttp.ClientSession() as session:
            client = MlflowRest(url, session)
            return {alias: await client.alias_version(BUNDLE_MODEL, alias) for alias in (CHAMPION, CHALLENGER)}

    found = asyncio.run(versions())
    return ",".join(f"{alias}={version}" for alias, version in found.items() if version != ledger.last(alias))


every_day = dg.build_schedule_from_partitioned_job(
    ingest,
    name="every_day",
    hour_of_day=0,
    minute_of_hour=10,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Yesterday's data, ten minutes after midnight UTC. Switch it on where MARKET_SOURCE is an exchange; "
    "the synthetic market's days are all there from the start.",
)


@dg.schedule(
    job=retrain_from_scratch,
    cron_schedule="30 2 * * 0",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Sundays at 02:30 UTC, once there is a bundle: the one before it continued from the champion.",
)
def every_week_from_scratch(context: dg.ScheduleEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """One run a week that begins anew; the first bundle does so anyway."""
    from orchestration.training_data import LEARNT

    if not lake.open().exists(LEARNT):
        return dg.SkipReason("there is no bundle yet: the first one begins anew anyway")
    return dg.RunRequest()


SENSORS = (new_journal_segments, retrain_on_live_labels, champion_to_watch)
SCHEDULES = (every_day, every_week_from_scratch)
