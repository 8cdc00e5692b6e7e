"""What is considered: the signals of the rules, and CUSUM events."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from features import candidates as candidates_module
from features.candidates import EVENT, RULE, candidates
from tests.features.made_rows import RULE_COLUMNS, RULE_LONG, RULE_SHORT, drawn_rows, made_rows, made_spec

SPEC = made_spec(())


def rows(*changes: dict[str, float]) -> NDArray[np.float32]:
    return made_rows(SPEC, *changes)


class TestCandidates:
    def test_signals_and_events_without_repeating_a_direction(self) -> None:
        event = {"5m.cusum_event": -1.0}
        found = candidates(
            rows({}, RULE_LONG, event, RULE_LONG | event, RULE_SHORT | event, {"5m.cusum_event": np.nan}), SPEC
        )
        assert found.index.tolist() == [1, 2, 2, 3, 3, 4, 4]
        assert found.direction.tolist() == [1, 1, -1, 1, -1, 1, -1]
        assert found.kind.tolist() == [RULE, EVENT, EVENT, RULE, EVENT, EVENT, RULE]
        assert (found.index.dtype, found.direction.dtype, found.kind.dtype) == (np.int64, np.int8, np.uint8)

    def test_rows_that_are_not_ready_are_left_out(self) -> None:
        found = candidates(
            rows(RULE_LONG, RULE_LONG, {"5m.cusum_event": 1.0}), SPEC, ready=np.array([True, False, False])
        )
        assert found.index.tolist() == [0]

    def test_none_of_none(self) -> None:
        assert candidates(rows(), SPEC).index.size == 0


def test_the_candidates_are_those_of_their_version() -> None:
    """Other numbers: raise `candidates.VERSION`, or that of the rules they are made of, then change the digest.

    The win model is trained on these; with the version, the id that bundles pin changes too.
    """
    decision = drawn_rows(SPEC, 6000, (*RULE_COLUMNS, "cusum_event"))
    found = candidates(decision, SPEC, np.arange(6000) % 7 > 0)
    assert all((found.kind == kind).sum() > 100 for kind in (RULE, EVENT))
    joined = b"".join(array.tobytes() for array in (found.index, found.direction, found.kind))
    assert (candidates_module.VERSION, hashlib.sha256(joined).hexdigest()[:16]) == (1, "e2feb8895cd7d61d")
