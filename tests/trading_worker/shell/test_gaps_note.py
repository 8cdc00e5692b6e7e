"""A worker says which of its series are not warm again since a gap, and stops saying so when they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from features.decision import DecisionState
from tests.features.series import make_bars
from trading_worker.shell.conductor import MOST_GAPS, Conductor
from trading_worker.shell.metrics import Board
from trading_worker.shell.page import render

SYMBOLS = tuple(f"S{index}USDT" for index in range(MOST_GAPS + 2))
GONE = list(range(2002, 2068))
"""Fourteen bars of 5m, more than are bridged; six of 15m and two hours are."""


def noted(state: DecisionState, board: Board) -> str | None:
    conductor: Any = SimpleNamespace(engine=SimpleNamespace(state=state), _board=board)
    Conductor._show_gaps(conductor)
    return board.notes.get("gaps")


def test_a_gap_is_told_of_until_the_series_is_warm_again() -> None:
    board, state = Board("worker"), DecisionState(("BTCUSDT",))
    bars = make_bars(5 * 1440, interval="1m", missing=GONE)
    state.catch_up({"BTCUSDT": bars[:2000]})
    assert noted(state, board) is None
    state.catch_up({"BTCUSDT": bars[2000:2600]})
    said = noted(state, board)
    assert said == "BTCUSDT 5m has 119 of 320 bars since 2026-01-06T10:30:00Z, before which 14 bars were missing"
    assert said in render(board)
    state.catch_up({"BTCUSDT": bars[2600:]})
    assert noted(state, board) is None


def test_of_many_the_first_are_named() -> None:
    state = DecisionState(SYMBOLS)
    bars = make_bars(2600, interval="1m", missing=GONE)
    state.catch_up(dict.fromkeys(SYMBOLS, bars))
    said = noted(state, Board("worker"))
    assert said is not None
    assert said.count("14 bars were missing") == MOST_GAPS
    assert said.endswith("; and 2 more")
