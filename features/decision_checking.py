"""All proofs of whole decision rows on a market of somebody's own, and what they could not say.

As in `features.checking`: a column counts as checked when at least `WARM_ROWS` rows of it were warm; what had none is
listed with the reason and never taken for proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from features import decision_proofs as proofs
from features.checking import FIRST_ORIGINS, NOTHING, RESTARTS, Progress, asks_for, counted, ignored
from features.decision_controls import CONTROLS, cheating
from features.decision_proofs import RowFailure, TableOf, cut_times
from features.decision_spec import BETA, FUNDING, DecisionSpec
from features.decision_table import Market, Table, history_table
from features.decision_warmth import Mask, warm
from market.bars import DAY_MS, MINUTE_MS, OPTIONAL

PROOFS = ("prefix", "poison", "live", "forgetting")
"""What is checked, in order."""

WARM_ROWS = 100
"""How many rows a column must be warm for."""

MORE_ORIGINS = 6
"""Origins all over the market, beside those soon after its start (`FIRST_ORIGINS`, in minutes)."""

CONTROL_DAYS = 3
"""The positive controls are tried on so much of the market's end."""


@dataclass(frozen=True)
class CheckedRows:
    """What the proofs said of one market."""

    rows: int
    waves: int
    cut_waves: int
    """Waves that some symbol is absent from."""
    cuts: int
    origins: int
    caught: tuple[RowFailure, ...]
    short: tuple[str, ...]
    """Columns that were not warm for long enough."""
    unmeasured: dict[str, str]
    """Columns that were NaN by rule throughout, with the reason."""
    uncaught: tuple[str, ...]
    """The positive controls that prefix and poison did not both catch, none where the proofs prove something."""


def uncaught(market: Market, spec: DecisionSpec, cuts: int = 28) -> tuple[str, ...]:
    """The ways to cheat that prefix or poison lets pass, on the market's last days.

    A cheat that reads nothing else than the truth there, as of fundings where there are none, is not counted, and none
    where there are hardly any rows.
    """
    last = int(market.times[-1]) if market.times.size else 0
    some = market.since(last + 1 - CONTROL_DAYS * DAY_MS)
    true = history_table(some, spec)
    if true.time.size < WARM_ROWS:
        return ()
    at = cut_times(some, cuts)
    both, passed = (proofs.prefix, proofs.poison), []
    for name in CONTROLS:
        table_of = partial(cheating, name, spec=spec)
        if proofs.differ(true, table_of(some)) and not all(_catches(proof, table_of, some, at) for proof in both):
            passed.append(name)
    return tuple(passed)


def _catches(proof: Callable[..., list[RowFailure]], table_of: TableOf, market: Market, cuts: list[int]) -> bool:
    """Whether a proof catches a cheat: a few cuts nearly always do."""
    return any(proof(table_of, market, some) for some in (cuts[:: max(len(cuts) // 3, 1)], cuts))


def check_rows(
    market: Market,
    spec: DecisionSpec,
    *,
    cuts: int = 200,
    seed: int = 1,
    table_of: TableOf | None = None,
    progress: Progress = ignored,
) -> CheckedRows:
    """All `PROOFS` for every column of the decision rows of one market. `table_of` stands in for their history."""
    table_of = table_of or partial(history_table, spec=spec)
    at, origins = cut_times(market, cuts, seed), _origins(market)
    caught = proofs.prefix(table_of, market, counted(at, "prefix", progress))
    caught += proofs.poison(table_of, market, counted(at, "poison", progress))
    progress("live", 0, 1)
    caught += proofs.live(market, cut_times(market, RESTARTS, seed), spec, table_of)
    caught += proofs.forgetting(market, counted(origins, "forgetting", progress), spec, table_of)
    table = table_of(market)
    warmth = warm(market, table, table, spec)
    unmeasured = dict(_unmeasured(market, table, warmth, spec))
    short = np.flatnonzero(warmth.sum(axis=0) < WARM_ROWS).tolist()
    _, present = np.unique(table.time, return_counts=True)
    return CheckedRows(
        rows=table.time.size,
        waves=present.size,
        cut_waves=int((present < len(market.symbols)).sum()),
        cuts=len(at),
        origins=len(origins),
        caught=tuple(caught),
        short=tuple(table.names[column] for column in short if table.names[column] not in unmeasured),
        unmeasured=unmeasured,
        uncaught=uncaught(market, spec),
    )


def _origins(market: Market) -> list[int]:
    """Where the market is begun anew, ascending: soon after its start, and all over it."""
    if not market.times.size:
        return []
    start, stop = int(market.times[0]) - MINUTE_MS + 1, int(market.times[-1])
    spread = np.linspace(start, stop, MORE_ORIGINS + 1, dtype=np.int64)[1:-1] // MINUTE_MS * MINUTE_MS
    first = (start + minutes * MINUTE_MS for minutes in FIRST_ORIGINS)
    return sorted({origin for origin in (*first, *spread.tolist()) if start < origin < stop})


def _unmeasured(market: Market, table: Table, warmth: Mask, spec: DecisionSpec) -> Iterator[tuple[str, str]]:
    """Columns without a single value where they count, each with the reason."""
    silent = (np.isnan(table.values) | ~warmth).all(axis=0) & (warmth.sum(axis=0) >= WARM_ROWS)
    lacking = {name for name in OPTIONAL if all(np.isnan(bars[name]).all() for bars in market.bars.values())}
    asked = {f.name: asks_for(spec.base, family) & lacking for family in spec.base.families for f in family.features}
    without_fundings = not any(fundings.size for fundings in market.fundings.values())
    for name, nothing in zip(table.names, silent.tolist(), strict=True):
        missing = sorted(asked.get(name.rpartition(".")[2], set()))
        if name in BETA and spec.benchmark not in market.symbols:
            yield name, f"there is no {spec.benchmark} to measure against"
        elif name in FUNDING and without_fundings:
            yield name, "no funding is known"
        elif nothing:
            yield name, f"the bars have no {', '.join(missing)}" if missing else NOTHING
