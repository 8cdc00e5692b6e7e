"""What a simulated exchange may have besides its market: accounts, limits, faults, a state to go on from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from market.simulator.clock import SimulationFailed
from market.simulator.fault_plan import FaultPlan
from market.simulator.listen_keys import LIFETIME_MS
from market.simulator.trading import AccountSpec
from market.simulator.venue.engine import State


@dataclass(frozen=True)
class Options:
    """Accounts, limits and faults; the defaults are those of an exchange that only shows its market.

    accounts: to open. seed: of the listen keys. check: prove after every step that the books add up. plan: what goes
    wrong. weight_limit: request weight per IP and wall minute; None counts without refusing. connection_ms: the age
    (simulated) at which a stream connection is closed; None for never; the venue has 24 hours. listen_key_ms: how long
    (simulated) a listen key lives. state: a file that the venue's state is read from, if it is there, and written to
    at the end. real_time: the simulated time follows the machine's clock, at a speed of one.
    """

    accounts: tuple[AccountSpec, ...] = ()
    seed: int = 0
    check: bool = False
    plan: FaultPlan | None = None
    weight_limit: int | None = None
    connection_ms: int | None = None
    listen_key_ms: int | None = LIFETIME_MS
    state: Path | None = None
    real_time: bool = False


def read_state(path: Path | None) -> State | None:
    """The state in a file, None if there is no file; `SimulationFailed` if it is not one."""
    if path is None or not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except msgspec.DecodeError as error:
        raise SimulationFailed(f"cannot read the state {path}: {error}") from error


def write_state(path: Path, state: State) -> None:
    """Write the state, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(state))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
