"""The circuit breaker, as a machine that hypothesis drives."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from market.binance.breaker import Breaker, BreakerSettings, Kind, Permit, State
from market.binance.errors import CircuitOpen

SETTINGS = BreakerSettings(throttle_after=2, open_after=4, spacing_s=1.0, recover_after=2, open_s=5.0, most_open_s=20.0)
HELD = [kind for kind in Kind if kind is not Kind.RISK_REDUCING]
kinds = st.sampled_from(list(Kind))


class Circuits(RuleBasedStateMachine):
    """Any requests, outcomes and times; the invariants are those that a trader relies on."""

    @initialize()
    def begin(self) -> None:
        self.breaker = Breaker(SETTINGS)
        self.now = 0.0
        self.out: list[tuple[Permit, float]] = []
        self.probes: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self.last: dict[Kind, float] = dict.fromkeys(Kind, -100.0)

    @rule(seconds=st.floats(0.0, 8.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(kind=kinds)
    def ask(self, kind: Kind) -> None:
        state = self.breaker.state(kind, self.now)
        held_s = None
        try:
            permit = self.breaker.permit(kind, self.now)
        except CircuitOpen as error:
            held_s = error.retry_after_s
        if held_s is not None:
            assert kind is not Kind.RISK_REDUCING, "what reduces risk is never held back"
            assert state is not State.CLOSED
            assert held_s > 0
            return
        if kind is not Kind.RISK_REDUCING:
            assert state is not State.OPEN
            if state is State.THROTTLED:
                assert self.now - self.last[kind] >= SETTINGS.spacing_s or self.last[kind] < 0
            assert permit.probe == (state is State.HALF_OPEN)
        self.last[kind] = self.now
        self.out.append((permit, self.now))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), ok=st.booleans())
    def answer(self, data: st.DataObject, ok: bool) -> None:
        permit, _ = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        others = {kind: self.breaker.state(kind, self.now) for kind in Kind if kind is not permit.kind}
        self.breaker.record(permit, ok=ok, now_s=self.now)
        assert {kind: self.breaker.state(kind, self.now) for kind in others} == others, "kinds are apart"

    @rule(kind=kinds)
    def the_venue_recovers(self, kind: Kind) -> None:
        """From any state, time and good answers close a circuit."""
        self.now += SETTINGS.most_open_s + SETTINGS.probe_s
        self.breaker.state(kind, self.now)
        self.now += SETTINGS.most_open_s
        for _ in range(SETTINGS.recover_after):
            self.now += SETTINGS.spacing_s
            self.breaker.record(self.breaker.permit(kind, self.now), ok=True, now_s=self.now)
        assert self.breaker.state(kind, self.now) is State.CLOSED
        self.out = [each for each in self.out if each[0].kind is not kind]

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        if not hasattr(self, "breaker"):
            return
        for kind in HELD:
            era = self.breaker._circuits[kind].era
            live = [
                permit
                for permit, at in self.out
                if permit.kind is kind and permit.probe and permit.era == era and self.now < at + SETTINGS.probe_s
            ]
            assert len(live) <= 1


Circuits.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCircuits = Circuits.TestCase


def fail(breaker: Breaker, kind: Kind, times: int, now: float = 0.0) -> float:
    """Failures in a row, spaced as a throttled circuit wants them; the time after."""
    for _ in range(times):
        breaker.record(breaker.permit(kind, now), ok=False, now_s=now)
        now += SETTINGS.spacing_s
    return now


def test_the_way_from_closed_to_open_and_back() -> None:
    breaker, kind = Breaker(SETTINGS), Kind.ENTRY
    now = fail(breaker, kind, 2)
    assert breaker.state(kind, now) is State.THROTTLED
    breaker.permit(kind, now)
    with pytest.raises(CircuitOpen, match=r"entry are held back for 0\.5 s"):
        breaker.permit(kind, now + 0.5)
    now = fail(breaker, kind, 2, now + 1)
    opened = now - 1
    assert breaker.state(kind, now) is State.OPEN
    with pytest.raises(CircuitOpen):
        breaker.permit(kind, opened + 4.9)
    probe = breaker.permit(kind, opened + 5)
    assert probe.probe
    with pytest.raises(CircuitOpen):
        breaker.permit(kind, opened + 5)
    breaker.record(probe, ok=False, now_s=opened + 6)
    assert breaker.state(kind, opened + 15.9) is State.OPEN, "twice as long after a failed probe"
    for _ in range(2):
        breaker.record(breaker.permit(kind, opened + 16), ok=True, now_s=opened + 16)
    assert breaker.state(kind, opened + 16) is State.CLOSED


def test_what_reduces_risk_passes_whatever_has_failed() -> None:
    breaker = Breaker(SETTINGS)
    for kind in HELD:
        fail(breaker, kind, 4)
    fail(breaker, Kind.RISK_REDUCING, 50)
    assert breaker.state(Kind.RISK_REDUCING, 50.0) is not State.CLOSED
    breaker.permit(Kind.RISK_REDUCING, 50.0)


def test_an_outcome_from_before_says_nothing_of_now() -> None:
    breaker, kind = Breaker(SETTINGS), Kind.MARKET_DATA
    early = [breaker.permit(kind, 0.0) for _ in range(6)]
    for permit in early[:4]:
        breaker.record(permit, ok=False, now_s=0.0)
    assert breaker.state(kind, 0.0) is State.OPEN
    breaker.record(early[4], ok=True, now_s=6.0)
    breaker.record(early[5], ok=False, now_s=6.0)
    assert breaker.state(kind, 6.0) is State.HALF_OPEN


def test_a_probe_that_nothing_is_heard_of_fails_and_one_that_was_not_sent_does_not() -> None:
    breaker, kind = Breaker(SETTINGS), Kind.ACCOUNT
    opened = fail(breaker, kind, 4) - 1
    breaker.forget(breaker.permit(kind, opened + 5))
    breaker.permit(kind, opened + 5)
    assert breaker.state(kind, opened + 64) is State.HALF_OPEN
    assert breaker.state(kind, opened + 65) is State.OPEN
