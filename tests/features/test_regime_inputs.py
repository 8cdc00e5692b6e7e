"""What is read of the last bars: the path in today's ATR, whatever the price and however a batch is split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.decision_spec import WINDOW_NAMES
from features.regime_inputs import CLOSE, HIGH, INPUTS, LOW, STATES, regime_inputs, regime_states
from tests.features.steady import steady

NAMES = ("15m.regime", *(f"5m.{name}" for name in reversed(STATES)))


def prices(seed: int, bars: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """High, low and close of a walk."""
    random = np.random.default_rng(seed)
    close = 100.0 + np.cumsum(random.normal(0, 0.3, bars))
    opened = np.concatenate(([100.0], close[:-1]))
    high = np.maximum(opened, close) + random.exponential(0.2, bars)
    low = np.minimum(opened, close) - random.exponential(0.2, bars)
    return high, low, close


def window_of(
    high: NDArray[np.float64], low: NDArray[np.float64], close: NDArray[np.float64], width: int
) -> tuple[NDArray[np.float32], float]:
    """The last `width` bars as moves in the ATR of each, and the last ATR."""
    before = np.concatenate((close[:1], close[:-1]))
    true_range = np.maximum(high, before) - np.minimum(low, before)
    atr = np.empty(len(close))
    atr[0] = true_range[0]
    for at in range(1, len(close)):
        atr[at] = atr[at - 1] + (true_range[at] - atr[at - 1]) / 14
    window = np.zeros((len(close), len(WINDOW_NAMES)), dtype=np.float32)
    for place, values in ((HIGH, high), (LOW, low), (CLOSE, close)):
        window[:, place] = (values - before) / atr
    return window[None, -width:], float(atr[-1])


def state(**values: float) -> NDArray[np.float32]:
    known = {"regime": 1.0, "regime_bars": 9.0, "adx_14": 30.0, "plus_di_14": 30.0, "minus_di_14": 10.0}
    known |= {"bollinger_width_20": 0.02, "atr_14_fraction": 0.004, "volatility_ratio": 1.3}
    return np.array([[(known | values)[name] for name in STATES]], dtype=np.float32)


def named(row: NDArray[np.float32]) -> dict[str, float]:
    return dict(zip(INPUTS, row.tolist(), strict=True))


def test_the_window_has_the_moves_where_they_are_read() -> None:
    assert [WINDOW_NAMES[place] for place in (HIGH, LOW, CLOSE)] == ["bar_high_move", "bar_low_move", "bar_close_move"]


@steady
@given(st.integers(0, 2**32), st.integers(4, 32))
def test_the_path_of_the_last_bars_is_found_again_from_their_moves(seed: int, lookback: int) -> None:
    high, low, close = prices(seed, 80)
    windows, atr = window_of(high, low, close, 32)
    found = named(regime_inputs(state(), windows, lookback)[0])
    last, moves = slice(-lookback, None), np.diff(close[-lookback - 1 :])
    assert found["efficiency"] == pytest.approx(abs(moves.sum()) / np.abs(moves).sum(), abs=1e-3)
    assert found["span"] == pytest.approx(np.log(0.1 + (high[last].max() - low[last].min()) / atr), abs=1e-3)
    assert found["spread"] == pytest.approx(np.log(0.1 + close[last].std() / atr), abs=1e-3)
    up, down = np.diff(high[last]), -np.diff(low[last])
    plus, minus = up[(up > down) & (up > 0)].sum(), down[(down > up) & (down > 0)].sum()
    directed = abs(plus - minus) / (plus + minus) if plus + minus else 0.0
    assert found["directedness"] == pytest.approx(directed, abs=2e-3)


def test_the_state_stands_in_the_inputs_of_its_regime() -> None:
    windows, _ = window_of(*prices(1, 80), 32)
    found = named(regime_inputs(state(), windows, 10)[0])
    assert [found[f"is_{name}"] for name in ("ranging", "trending", "volatile")] == [0, 1, 0]
    assert found["trending_bars"] == pytest.approx(np.log(10.0))
    assert found["trending_adx"] == pytest.approx(1.2)
    assert found["trending_directed"] == pytest.approx(0.5)
    assert found["trending_width"] == pytest.approx(np.log(5.0))
    assert all(value == 0 for name, value in found.items() if name.startswith(("ranging_", "volatile_")))
    assert found["volatility_ratio"] == pytest.approx(1.3)


@pytest.mark.parametrize("name", STATES)
def test_a_row_of_which_anything_is_unknown_is_unknown(name: str) -> None:
    windows, _ = window_of(*prices(1, 80), 32)
    assert np.isnan(regime_inputs(state(**{name: np.nan}), windows, 10)).all()


@pytest.mark.parametrize("place", [HIGH, LOW, CLOSE])
def test_so_is_one_with_a_hole_in_the_bars_that_count(place: int) -> None:
    windows, _ = window_of(*prices(1, 80), 32)
    windows[0, 25, place] = np.nan
    assert np.isnan(regime_inputs(state(), windows, 10)).all()
    windows[0, 25, place], windows[0, 21, place] = 0.0, np.nan
    assert np.isfinite(regime_inputs(state(), windows, 10)).all(), "it lies before the last ten"


def test_a_market_that_does_not_move_has_inputs() -> None:
    still = state(bollinger_width_20=0.0, atr_14_fraction=0.0, plus_di_14=0.0, minus_di_14=0.0, volatility_ratio=0.0)
    assert np.isfinite(regime_inputs(still, np.zeros((1, 32, 5), dtype=np.float32), 10)).all()


@steady
@given(st.integers(0, 2**32), st.integers(0, 30))
def test_a_batch_can_be_split_anyhow(seed: int, cut: int) -> None:
    random = np.random.default_rng(seed)
    states = np.abs(random.normal(1, 1, (30, len(STATES)))).astype(np.float32)
    states[:, 0] = random.integers(0, 3, 30)
    windows = np.concatenate([window_of(*prices(int(row), 40), 32)[0] for row in random.integers(0, 1000, 30)])
    whole = regime_inputs(states, windows, 10)
    assert whole.shape == (30, len(INPUTS))
    parts = [regime_inputs(states[part], windows[part], 10) for part in (slice(0, cut), slice(cut, 30))]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_states_are_read_by_name() -> None:
    decision = np.arange(2 * len(NAMES), dtype=np.float32).reshape(2, -1)
    assert regime_states(decision, NAMES)[0].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
    assert np.isnan(regime_states(decision, NAMES[:-1])).all(), "a specification without a regime"


@pytest.mark.parametrize("lookback", [3, 33])
def test_the_window_bounds_how_far_back_is_looked(lookback: int) -> None:
    with pytest.raises(ValueError, match="from 4 to the window's 32"):
        regime_inputs(state(), np.zeros((1, 32, 5), dtype=np.float32), lookback)
