"""What can be wrong with what is given to `features`, and what the caller does about it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from market.errors import utc


class FeatureError(Exception):
    """Base of every error of `features`."""


class BarsUnusable(FeatureError):
    """An array that is not bars in ascending time: nothing was computed and no state changed; mend the caller."""

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason if index is None else f"bar {index}: {reason}")
        self.reason = reason
        self.index = index


class BarOutOfOrder(BarsUnusable):
    """A bar not later than the last one its series has seen: drop it; nothing was computed and no state changed."""

    def __init__(self, series: str, index: int, open_time: int, last_open_time: int) -> None:
        super().__init__(f"{series} at {utc(open_time)} is not after {utc(last_open_time)}", index)
        self.series = series


class StateMismatch(FeatureError):
    """A stored state of another specification or another set of series: discard it and start from bars."""

    def __init__(self, what: str, found: object, expected: object) -> None:
        super().__init__(f"stored {what} is {found}, this needs {expected}")
        self.what = what


class SpecInvalid(FeatureError):
    """A specification that cannot be composed: correct its families."""


class ExpressionInvalid(FeatureError):
    """Text that is no expression, or one that is too large: correct it at `position` of `text`."""

    def __init__(self, reason: str, text: str = "", position: int | None = None) -> None:
        super().__init__(reason if position is None else f"at {position}: {reason}")
        self.reason = reason
        self.text = text
        self.position = position


class ColumnUnknown(ExpressionInvalid):
    """An expression that reads a column which does not exist here: choose one of `known`."""

    def __init__(self, name: str, known: Sequence[str], text: str, position: int) -> None:
        near = get_close_matches(name, known, n=3) or list(known[:3])
        more = f" or others of {len(known)} known" if len(known) > len(near) else ""
        super().__init__(f"no column {name!r}: there is {', '.join(near) or 'none'}{more}", text, position)
        self.name = name
        self.known = tuple(known)


class PositionsUnusable(FeatureError):
    """An array that cannot hold positions: mend the caller, nothing was changed."""


class SplitImpossible(FeatureError):
    """Times or an embargo by which labels cannot be split: the caller is wrong."""


class SettingsUnusable(FeatureError):
    """A setting outside of what makes sense: correct it; `allowed` says what does."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} is {value}: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed
