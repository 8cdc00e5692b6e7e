"""The page `docs/features.md`, written from the specifications and from the docstrings of their modules."""

from __future__ import annotations

import re
import sys
from types import ModuleType

from features import contract, decision_spec
from features.checking import WARM_BARS
from features.contract import MOST_STATE_BYTES
from features.decision_controls import CONTROLS
from features.decision_spec import DecisionSpec
from features.proofs import TOLERANCE
from features.spec import Family, FeatureSpec
from perpforge.feature_oracles import ORACLES
from perpforge.feature_report import range_text

REGENERATE = ".venv/bin/perpforge features list --markdown > docs/features.md"

INTRODUCTION = """\
# Features

<!-- Written by `{regenerate}`; a test holds it to the specifications. -->

What perpforge sees of a market: {count} features of each series (a symbol on a timeframe), named `{spec}`, and the
{columns} columns of a decision row, named `{decision}`, that models are trained on. `perpforge features list`
prints the same from the installed version, `perpforge features check --klines FILE` proves them on your own klines.

## The rules that all of them keep

- **A row is known at its bar's close.** Every feature is a compiled recurrence `step(state, bar)`: it is given one
  closed bar and its own state, so it cannot look ahead. What needs later bars to be confirmed (a swing, an order
  block) is reported at the bar that confirms it, never at the bar where it began. History is the same step in a
  loop, live is the same step once: the numbers are the same to the bit, through restarts and checkpoints too.
- **Warm-up.** A series begins at its *origin*, its first bar. A feature is NaN until its warm-up, counted in bars
  from the origin, that one included. From then on two series that began at different origins agree to
  {tolerance:g}, relative to the larger of the value and the feature's usual size: so nothing depends on how far
  back the klines go. The longest warm-up is {warmup:,} bars.
- **Gaps.** Up to {max_gap} missing bars are bridged: the next bar follows the last one as if nothing were between.
  A longer gap makes the next bar a new origin, and everything is NaN until it is warm again. An impossible bar (a
  price that is not finite or not positive, an open or close outside low to high, a negative volume) has no row and
  leaves no trace. Longer timeframes are resampled from one-minute bars, and a bar with a missing minute is absent.
  All this holds in history and live alike.
- **NaN.** When warm, a value is finite and within its range; only a feature marked *or NaN* may have none, by the
  rule that its family states: the klines lack a column, or there is nothing to measure. A division by nothing has a
  declared value.
- **Scale.** Prices, or volumes, 1024 times as large change no bit of any feature unless it says so: what is
  measured is a ratio, a count, or a distance in ATR. So symbols can be pooled.
- **Memory.** The state of a series has a fixed size: {state_bytes:,} bytes, of at most {most_bytes:,}.
- **Versions.** A feature's version goes up whenever the same bars would give other numbers, and with it the name of
  the specification, which bundles pin. A digest of what each family makes of a fixed market is kept in the tests:
  numbers that change under an unchanged version fail them.
"""

PROOFS = """\
## How they are proven

For every feature, in the tests on recorded and synthetic markets, and by `perpforge features check` on yours:

1. **Prefix**: computed on the first bars alone, rows equal the first rows of the whole series, bit for bit, at 200
   cut points.
2. **Poison**: garbage after a bar (extreme, reversed, impossible or late bars) changes no row up to it.
3. **Live**: bar by bar, beside another series, with restarts from a stored state and through gaps, rows equal
   history's, bit for bit.
4. **Forgetting**: from different origins, rows agree after the warm-up.

A feature that reads one bar ahead goes through 1 and 2 with the others, and both must catch it. The check takes a
feature for proven only when it was warm for {warm_bars} bars of an unbroken stretch; otherwise it says how many
bars that takes, and ends with code 3. It ends with 0 when all is proven, 1 when a feature failed, 2 when the klines
cannot be used.

**Whole decision rows** go through the same four (`features/decision_proofs.py`): several symbols with absentees, all
timeframes, the window, the cross-section, beta, calendar and funding, cut at any minute; garbage also lets symbols
vanish, swaps their bars and spoils fundings. {controls} ways to cheat are the positive controls, and prefix and poison
must catch each: {cheats}. A rank or a breadth that hangs on less than the tolerance may come out either way from
another origin and is left out there. `perpforge features check --klines FILE --decision` runs them on yours.

Beyond the proofs every feature inherits a contract (`features/contract.py`):

{contract}
"""

ADDING = """\
## Adding a feature

1. Write the step in a module of `features/families`: `@njit`, no allocation, constant time a bar, and only what it
   asks for by parameter name (see `features/spec.py`). Anything it remembers lives in its slice of the state, in a
   window or a ring.
2. Reduce prices to ratios or to distances in ATR. Let decisions hang on what a finite window holds: a comparison
   with an average that never quite forgets can go either way after two origins.
3. Give every division a value for nothing to divide by, and the feature a rule if it may be NaN.
4. Declare it: a `Feature` with name, warm-up, formula, unit, range, usual size and version, in a `Family`; a line
   in the table of the module's docstring with its source. Put the family into `features/default.py`.
5. Compare it with its textbook, or with a library that has it, in the tests.
6. Run `.venv/bin/python -m pytest tests/features/test_contract.py tests/features/test_proofs.py`: the feature is in
   every proof and contract check without being named there.
7. Write its golden digest with `.venv/bin/python -m tests.features.goldens`, and this page with `{regenerate}`.

To change one: raise its version, then steps 5 to 7. A new name for the specification means that models are trained
anew.
"""


def _cell(text: str) -> str:
    """Text in a table's cell; a bar would end it."""
    return text.replace("|", "\\|") or "–"


def _table(families: list[Family]) -> str:
    lines = ["| feature | formula | unit | range | warm-up | version | source |", "|---|---|---|---|---|---|---|"]
    for family in families:
        for f in family.features:
            span = range_text(f.low, f.high) + (" or NaN" if f.nan else "")
            cells = (f.formula, f.unit, span, f"{f.warmup:,}", str(f.version), f.source)
            lines.append(f"| `{f.name}` | " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _prose(module: ModuleType) -> tuple[str, str, str]:
    """Title, first sentence, and what follows in a module's docstring, without its table of features."""
    summary, _, rest = (module.__doc__ or "").strip().partition("\n\n")
    title, _, sentence = " ".join(summary.split()).partition(": ")
    if not sentence:
        title, sentence = module.__name__.rpartition(".")[2].replace("_", " ").capitalize(), title
    # A constant means something in its module alone, its value does here.
    rest = re.sub(r"`([A-Z][A-Z_]+)`", lambda found: str(getattr(module, found[1], found[0])), rest)
    paragraphs = [part for part in rest.split("\n\n") if not part.startswith("| feature |")]
    return title, sentence[:1].upper() + sentence[1:], "\n\n".join(part.rstrip() for part in paragraphs).strip()


def _section(families: list[Family], module: ModuleType) -> str:
    title, sentence, rest = _prose(module)
    return "\n\n".join(part for part in (f"## {title}", sentence, _table(families), rest) if part)


def _tables(docstring: str) -> str:
    """The tables of a docstring alone."""
    return "\n\n".join(part.strip() for part in docstring.split("\n\n") if part.lstrip().startswith("|"))


def sections(spec: FeatureSpec) -> list[str]:
    """One section a module, in the order of the specification's columns."""
    modules: dict[str, list[Family]] = {}
    for family in spec.families:
        modules.setdefault(family.step.__module__, []).append(family)
    return [_section(families, sys.modules[name]) for name, families in modules.items()]


def _decision_section(spec: DecisionSpec) -> str:
    docstring = (decision_spec.__doc__ or "").strip()
    _, _, rest = docstring.partition("\n\n")
    window = ", ".join(f"`{name}`" for name in spec.window_names)
    opening = (
        f"{len(spec.names)} columns from {', '.join(spec.timeframes)}, beside a window of the last {spec.window} bars "
        f"of {spec.timeframes[0]} ({window})."
    )
    return f"## Decision rows\n\n{opening}\n\n{rest.strip()}"


def page(decision: DecisionSpec) -> str:
    """The whole page for a decision specification and the features under it."""
    spec = decision.base
    introduction = INTRODUCTION.format(
        regenerate=REGENERATE,
        count=len(spec.names),
        spec=spec.id,
        columns=len(decision.names),
        decision=decision.id,
        tolerance=TOLERANCE,
        warmup=spec.warmup,
        max_gap=spec.max_gap,
        state_bytes=spec.state_size * 8,
        most_bytes=MOST_STATE_BYTES,
    )
    proven = PROOFS.format(
        warm_bars=WARM_BARS,
        contract=_tables(contract.__doc__ or ""),
        controls=len(CONTROLS),
        cheats="; ".join(CONTROLS),
    )
    adding = ADDING.format(regenerate=REGENERATE)
    parts = [introduction, *sections(spec), _decision_section(decision), proven, ORACLES, adding]
    return "\n\n".join(part.strip() for part in parts) + "\n"
