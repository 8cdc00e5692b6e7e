"""Composes the steps of a specification into one compiled step.

The composition is written as a small module into the kernels' cache folder, named by the hash of
its own text, so numba can cache its machine code like that of any other module.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from features.kernels_cache import PACKAGES, folder
from features.processor import LINE
from features.spec import Family, FeatureSpec, Shared, parameter_names
from market.bars import Bars
from market.kernels_cache import outside

TEMPLATE = '''"""The compiled step of {id}: written by features.compiler."""

import numpy as np

{imports}
from features.kernels_cache import njit
from features.processor import prefetch

WARMUPS = {warmups}


@njit
def step(state, bar, out, row, ahead):
    """One closed bar: `state` moves on, `out` receives the float32 row; `row` is scratch.

    All along, the lines of `ahead`, the state that comes next, are asked for.
    """
    # Once these are known, no slice below needs its bounds checked.
    if state.size != {state_size} or out.size != {columns} or row.size != {columns}:
        return
    open_time = bar.open_time
    interval = bar.close_time - open_time + 1
    open_ = bar.open
    high = bar.high
    low = bar.low
    close = bar.close
    volume = bar.volume
    quote_volume = bar.quote_volume
    trades = bar.trades
    taker_buy_base = bar.taker_buy_base
    taker_buy_quote = bar.taker_buy_quote
    # Written so that NaN fails. Such a bar is a gap: no row, and the state stays as it was.
    possible = 0.0 < low and low <= open_ <= high and low <= close <= high and high < np.inf and 0.0 <= volume < np.inf
    if not possible:
        out[:] = np.nan
        return
    since = open_time - int(state[1])
    if state[0] == 0.0 or since > {longest} * interval:
        missing = since // interval - 1 if state[0] > 0.0 else 0
        state[:] = 0.0
        state[2] = open_time
        state[3] = missing
    count = max(int(state[0]), 0) + 1
    state[0] = count
    state[1] = open_time
{calls}
    for i in range(out.size):
        out[i] = row[i]
    if count < {warmup}:
        for i in range(out.size):
            if count < WARMUPS[i]:
                out[i] = np.nan


@njit
def run(state, bars, out, row):
    """Consecutive bars of one series."""
    for i in range(bars.size):
        step(state, bars[i], out[i], row, state)


@njit
def wave(states, rows, bars, out, row):
    """One bar for each of several series."""
    # Many states lie in no cache, and a step would wait for every line of its own that it touches. Asked for a step
    # ahead from end to end, a few lines at a time between the work of the families, they are there when it begins.
    for i in range(rows.size):
        ahead = states[rows[min(i + 1, rows.size - 1)]]
        step(states[rows[i]], bars[i], out[i], row, ahead)
'''


class Kernels(Protocol):
    """The compiled functions of one specification."""

    def run(
        self, state: NDArray[np.float64], bars: Bars, out: NDArray[np.float32], row: NDArray[np.float64], /
    ) -> None:
        """Consecutive bars of one series."""

    def wave(
        self,
        states: NDArray[np.float64],
        rows: NDArray[np.int64],
        bars: Bars,
        out: NDArray[np.float32],
        row: NDArray[np.float64],
        /,
    ) -> None:
        """One bar for each of several series."""


def _with_prefetches(calls: list[str], state_size: int) -> list[str]:
    """The calls of a step, and evenly between them what asks for every line of a state that lies ahead."""
    lines = -(-state_size // LINE)
    mixed: list[str] = []
    for index, call in enumerate(calls):
        asked = range(lines * index // len(calls), lines * (index + 1) // len(calls))
        mixed += [f"    prefetch(ahead, {LINE * line})" for line in asked]
        mixed.append(call)
    return mixed


def source(spec: FeatureSpec) -> str:
    """The text of the module that composes `spec`."""
    imports: list[str] = []
    calls: list[str] = []
    column = 0
    for index, (user, start, stop) in enumerate(spec.layout()):
        called = f"step_{index}_{user.name}"
        imports.append(f"from {user.step.__module__} import {user.step.__name__} as {called}")
        if digest := outside(user.step, PACKAGES):
            imports.append(f"# of a file that the folder's name does not tell: {digest}")
        given: dict[str, str] = {"state": f"state[{start}:{stop}]"}
        given |= {name: repr(value) for name, value in user.parameters}
        if isinstance(user, Family):
            given["out"] = f"row[{column}:{column + len(user.features)}]"
            column += len(user.features)
        arguments = ", ".join(given.get(name, name) for name in parameter_names(user.step))
        target = f"{user.name} = " if isinstance(user, Shared) else ""
        calls.append(f"    {target}{called}({arguments})")
        if isinstance(user, Shared) and user.window:
            begin = f"{start} + {user.name}"
            calls.append(f"    {user.name} = state[{begin} : {begin} + {user.window}]")
    return TEMPLATE.format(
        id=spec.id,
        imports="\n".join(imports),
        warmups=repr(spec.warmups),
        warmup=spec.warmup,
        state_size=spec.state_size,
        columns=len(spec.names),
        longest=spec.max_gap + 1,
        calls="\n".join(_with_prefetches(calls, spec.state_size)),
    )


def _write_once(path: Path, text: str) -> None:
    """Create `path` with `text` as one visible step; an existing file, which has this text by its name, stays."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(temporary).replace(path)


def _load_module(name: str, path: Path) -> Kernels:
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    # A cached kernel finds its module by name when it is loaded again.
    sys.modules[name] = module
    found.loader.exec_module(module)
    return cast("Kernels", module)


@cache
def kernels(spec: FeatureSpec) -> Kernels:
    """The compiled functions of `spec`; they are compiled when first called, or loaded from the cache."""
    text = source(spec)
    name = f"composed_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    cache_folder = folder()
    if cache_folder is not None:
        path = cache_folder / "composed" / f"{name}.py"
        _write_once(path, text)
        return _load_module(name, path)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"{name}.py"
        _write_once(path, text)
        return _load_module(name, path)
