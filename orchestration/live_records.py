"""How the champion's positions went live, from the labels of its bundle, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from features.barriers import TARGET
from market.bars import MINUTE_MS
from market.lake import Lake
from models_registry.demotion import LIVE_UNTIL, DemotionRules, LiveVerdict, Tenure, judge_live, tenure
from models_registry.ledger import Entry, Ledger
from models_registry.registry import Registry
from models_registry.trade_record import TradeRecord, Trades, trade_record
from orchestration.label_store import LIVE

BY = "live record"

_CLOSED = """
SELECT any_value(decided_at) AS decided_at, any_value(opened_at) AS opened_at, any_value(known_at) AS known_at,
       any_value(r) AS r, any_value(outcome) AS outcome, any_value(symbol) AS symbol
FROM labels WHERE source = ? AND bundle = ? AND decided_at > ? AND outcome IN (1, 2, 3)
GROUP BY position_id ORDER BY known_at, position_id
"""
"""Each position of a bundle once, however many workers followed it."""


@dataclass(frozen=True)
class Look:
    """The champion by the ledger, what it did live, and what that says."""

    tenure: Tenure
    live: TradeRecord | None
    """None before its first position could have ended."""
    verdict: LiveVerdict
    live_until_ms: int | None
    """When the newest live outcome of any bundle was known."""
    before: str | None
    """Who would be champion after a demotion."""


def look(lake: Lake, ledger: Ledger, rules: DemotionRules, horizon_minutes: int) -> Look | None:
    """What the live labels say of the champion that the ledger names; None when it names none. Nothing is moved.

    Positions count from the first that was decided after what the ledger says belongs to an earlier tenure, and up to
    a horizon before the newest outcome of any bundle: later ones are known only where they ended quickly.
    """
    entries = ledger.entries()
    champion = tenure(entries)
    if champion is None:
        return None
    newest = lake.query("SELECT max(known_at) AS newest FROM labels WHERE source = ?", (LIVE,)).to_pylist()[0]["newest"]
    live = None if newest is None else _record(lake, champion, int(newest), horizon_minutes, rules.seed)
    verdict = judge_live(champion.promised, live, rules)
    return Look(champion, live, verdict, newest, ledger.before(champion.version))


def _record(lake: Lake, champion: Tenure, newest_ms: int, horizon_minutes: int, seed: int) -> TradeRecord | None:
    after = -1 if champion.counted_from_ms is None else champion.counted_from_ms
    rows = lake.query(_CLOSED, (LIVE, champion.version, after))
    decided_until = newest_ms + 1 - horizon_minutes * MINUTE_MS
    column = {name: rows.column(name).to_numpy() for name in ("decided_at", "opened_at", "known_at", "r", "outcome")}
    if not rows.num_rows or int(column["decided_at"].min()) >= decided_until:
        return None
    trades = Trades(
        decided_at=column["decided_at"],
        opened_at=column["opened_at"],
        known_at=column["known_at"],
        r=column["r"],
        won=np.asarray(column["outcome"] == TARGET),
    )
    return trade_record(
        trades,
        start_ms=int(column["decided_at"].min()),
        decided_until_ms=decided_until,
        symbols=len(set(rows.column("symbol").to_pylist())),
        seed=seed,
    )


def act(registry: Registry, found: Look) -> Entry | None:
    """Demote the champion if its live record asks for it; returns the ledger's entry, None when nothing moved.

    It stays where nobody was champion before it, and where somebody else is champion by now.
    """
    if not found.verdict.demote or found.before is None:
        return None
    details: dict[str, object] = {
        "live": msgspec.to_builtins(found.verdict),
        LIVE_UNTIL: found.live_until_ms,
    }
    return registry.demote(found.tenure.version, f"live record: {found.verdict.reason}", BY, details)
