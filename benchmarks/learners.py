"""`python -m benchmarks learners`: all five models on a recorded (or made) market, and what they are found to know.

The final fit of a bundle and the walk-forward evaluation, as the assets do them, with the minutes that each model took
and the table of every metric beside its baseline. Everything is kept in the work folder: interrupted, the same command
goes on with the model it was at, and what is done already is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.module_skill import history_of
from market.bars import DAY_MS, Bars
from market.errors import utc
from market.funding import Fundings
from market.lake import Lake
from market.sources import BarSource, open_source
from models_registry.assembling import train_models
from models_registry.component_folder import load_component
from models_registry.evaluation_table import evaluation_markdown
from models_registry.manifest import Component, encode
from models_registry.opportunities import Opportunities
from models_registry.training_set import TrainingSet
from models_registry.walk_forward import Evaluating, FoldResult, ModelEvaluation, WalkForward, evaluation_key, walk
from orchestration.label_store import store_history_labels
from orchestration.resources import TrainingSettings
from orchestration.training_data import join

FINAL_FIT_MINUTES, EVALUATION_MINUTES = 15, 25
"""What the two may take on two cores, for six symbols and 51 days."""

TELL_EVERY_S = 10.0
MARKS = ("<!-- learners -->", "<!-- /learners -->")
"""Between them a page has the tables."""


class Spent(msgspec.Struct):
    """Seconds by the clock and by the processors."""

    clock: float = 0.0
    processors: float = 0.0


def spent_now() -> Spent:
    """So far, of this process and its subprocesses that have ended; not of conversions, which are another's."""
    used = os.times()
    return Spent(time.perf_counter(), used.user + used.system + used.children_user + used.children_system)


class Times:
    """What each model took, kept in a file, so that it outlives an interruption.

    What a model spent before it was interrupted is not in it.
    """

    def __init__(self, path: Path, now: Callable[[], Spent] = spent_now) -> None:
        self._path = path
        self._now = now
        self._since = now()
        known = path.read_bytes() if path.exists() else b"{}"
        self.spent = msgspec.json.decode(known, type=dict[str, Spent])

    def ended(self, name: str) -> None:
        """It has ended: it is due what has passed since what came before it ended."""
        now, before = self._now(), self.spent.get(name, Spent())
        self.spent[name] = Spent(
            before.clock + now.clock - self._since.clock,
            before.processors + now.processors - self._since.processors,
        )
        self._since = now
        self._path.write_bytes(msgspec.json.format(msgspec.json.encode(self.spent), indent=1))

    @property
    def together(self) -> Spent:
        """Of everything."""
        every = self.spent.values()
        return Spent(sum(each.clock for each in every), sum(each.processors for each in every))


@dataclass
class Teller:
    """Prints progress, not more often than every ten seconds while a stage goes on."""

    say: Callable[[str], None]
    clock: Callable[[], float] = time.perf_counter
    _last: tuple[str, float] = field(default=("", 0.0))

    def __call__(self, stage: str, fraction: float) -> None:
        """The progress of a training."""
        now = self.clock()
        if stage != self._last[0] or now - self._last[1] >= TELL_EVERY_S:
            self._last = stage, now
            self.say(f"{stage}: {fraction:.0%}")


@dataclass(frozen=True)
class Data:
    """What is learnt from."""

    rows: TrainingSet
    opportunities: Opportunities
    about: str


class Among:
    """The `count` symbols of a source with the longest recordings, of equals the first by name; all for None."""

    def __init__(self, source: BarSource, count: int | None) -> None:
        self._source = source
        self.name = source.name

        def days(symbol: str) -> int:
            start, end = source.coverage(symbol) or (0, 0)
            return (end - start) // DAY_MS

        self._symbols = tuple(sorted(sorted(source.symbols(), key=days, reverse=True)[:count]))

    def symbols(self) -> tuple[str, ...]:
        """Those that are left."""
        return self._symbols

    def coverage(self, symbol: str) -> tuple[int, int] | None:
        """As the source has it; so are the others."""
        return self._source.coverage(symbol)

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """1m bars."""
        return self._source.klines(symbol, start_ms, end_ms)

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """Fundings."""
        return self._source.funding(symbol, start_ms, end_ms)


def data_of(market: str, symbols: int | None, days: float, settings: TrainingSettings, work: Path) -> Data:
    """The first `days` of a market as the assets would make a training set of them; kept in `work`."""
    key = hashlib.sha256(repr((market, symbols, days, settings.model_dump_json())).encode()).hexdigest()[:12]
    folder = work / f"data-{key}"
    stored, about = (folder / "rows.npz", folder / "opportunities.npz"), folder / "about.txt"
    if not about.exists():
        history = history_of(Among(open_source(market), symbols), days)
        lake = Lake(str(folder / "lake"))
        store_history_labels(lake, history, settings)
        rows = join(
            lake, history.rows, settings.max_windows, settings.half_life(), bars=history.bars, plan=settings.plan()
        ).rows
        found = Opportunities.of(
            history.rows,
            history.bars,
            history.funding,
            settings.plan(),
            settings.costs(),
            hunting=settings.hunting(),
            most=settings.most_opportunities,
        )
        rows.save(stored[0])
        stored[1].write_bytes(found.to_bytes())
        span = f"{utc(int(rows.decided_at[0]))} to {utc(int(rows.decided_at[-1]))}"
        about.write_text(f"{len(history.bars)} symbols, {days:g} days ({span})")
    rows, found = TrainingSet.load(stored[0]), Opportunities.from_bytes(stored[1].read_bytes(), stored[1])
    counts = f"{len(rows):,} labels, {len(rows.unlabelled_at):,} windows, {len(found):,} opportunities"
    return Data(rows, found, f"{about.read_text()}, {counts}")


def final_fit(data: Data, settings: TrainingSettings, work: Path, tell: Teller) -> tuple[dict[str, Component], Times]:
    """All five fitted as for a bundle; what became of them and how long they took."""
    config = settings.config(int(data.rows.decided_at[-1]))
    key = evaluation_key(data.rows, data.opportunities, config, WalkForward())
    folder = work / f"final-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    times = Times(folder / "times.json")
    folders = train_models(
        data.rows, config, folder, tell, opportunities=data.opportunities, resume=True, on_trained=times.ended
    )
    return {name: load_component(place) for name, place in folders.items()}, times


def evaluation(
    data: Data, settings: TrainingSettings, plan: WalkForward, trials: int, work: Path, tell: Teller
) -> tuple[ModelEvaluation, Times]:
    """The walk-forward evaluation, every fold of which is kept as soon as it is judged."""
    config = settings.config(int(data.rows.decided_at[-1]))
    folder = work / f"evaluation-{evaluation_key(data.rows, data.opportunities, config, plan)}"
    folder.mkdir(parents=True, exist_ok=True)
    times = Times(folder / "times.json")
    running = Evaluating(data.rows, data.opportunities, config, plan, folder, tell, times.ended)

    def known(name: str) -> FoldResult | None:
        path = folder / f"{name}.json"
        return msgspec.json.decode(path.read_bytes(), type=FoldResult) if path.exists() else None

    def keep(name: str, result: FoldResult) -> None:
        (folder / f"{name}.json").write_bytes(encode(result))

    found = walk(running, trials, known, keep)
    (folder / "evaluation.json").write_bytes(encode(found))
    return found, times


def final_lines(components: dict[str, Component], times: Times) -> list[str]:
    """Minutes and what is served, model by model."""
    lines = ["| final fit | minutes | of two processors | served |", "|---|---|---|---|"]
    for name, part in components.items():
        served = part.served or f"its plain version: {part.fallback}"
        lines.append(f"| {name} | {_minutes(times.spent.get(name, Spent()))} | {served} |")
    return [*lines, f"| together, at most {FINAL_FIT_MINUTES} | {_minutes(times.together)} | |"]


def evaluation_lines(found: ModelEvaluation, times: Times, plan: WalkForward) -> list[str]:
    """Minutes of all folds by model, and the tables."""
    lines = [f"| evaluation, every {plan.every} decisions | minutes | of two processors |", "|---|---|---|"]
    lines += [f"| {name}, all folds | {_minutes(spent)} |" for name, spent in times.spent.items()]
    lines += [f"| together, at most {EVALUATION_MINUTES} | {_minutes(times.together)} |", ""]
    return [*lines, evaluation_markdown(found).rstrip()]


def _minutes(spent: Spent) -> str:
    """By the clock, and what two processors that had nothing else to do would need at least."""
    return f"{spent.clock / 60:.1f} | {spent.processors / 120:.1f}"


def write_markdown(path: Path, text: str) -> None:
    """Write the tables to a file: between its marks where it has them, else as the whole of it."""
    before, found, rest = path.read_text().partition(MARKS[0]) if path.exists() else ("", "", "")
    _, ended, after = rest.partition(MARKS[1])
    path.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{after}" if found and ended else text)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks learners")
    parser.add_argument("--klines", help="a folder of recorded 1m klines; without it a made market")
    parser.add_argument("--market", default="synthetic:seed=7,symbols=6,edge=none", help="instead of a recording")
    parser.add_argument("--symbols", type=int, help="those with the longest recordings; without it all")
    parser.add_argument("--days", type=float, default=51.0, help="of it, from its beginning")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--every", type=int, default=3, help="a fold learns from every so many-th decision")
    parser.add_argument("--epochs", type=int, default=20, help="most epochs of the autoencoder; the others' go with it")
    parser.add_argument(
        "--trials",
        type=int,
        help="by which scores are deflated: all designs that were tried while looking at scores of this stretch; on a "
        "made market, of which there is always more, 1",
    )
    parser.add_argument("--no-prequential", action="store_true", help="only folds from scratch")
    parser.add_argument("--only", choices=("fit", "evaluation"), help="one of the two")
    parser.add_argument("--work", type=Path, default=Path(".perpforge/learners"), help="where everything is kept")
    parser.add_argument("--markdown", type=Path, help="a file that gets the tables, between its marks if it has them")
    given = parser.parse_args(arguments)
    if given.trials is None:
        if given.klines and given.only != "fit":
            parser.error("--trials: how many designs were tried on this recording? There is no log that would know")
        given.trials = 1
    return given


def main(arguments: list[str]) -> None:
    """Train, judge and print."""
    given = parsed(arguments)
    console = Console(width=200)
    tell = Teller(lambda line: console.print(line, highlight=False, markup=False))
    settings = TrainingSettings(epochs=given.epochs)
    market = f"recorded:{given.klines}" if given.klines else given.market
    data = data_of(market, given.symbols, given.days, settings, given.work)
    console.print(data.about, highlight=False)
    lines = [data.about, ""]
    if given.only != "evaluation":
        lines += [*final_lines(*final_fit(data, settings, given.work, tell)), ""]
    if given.only != "fit":
        plan = WalkForward(folds=given.folds, every=given.every, prequential=not given.no_prequential)
        found, times = evaluation(data, settings, plan, given.trials, given.work, tell)
        lines += evaluation_lines(found, times, plan)
    text = "\n".join(lines).rstrip() + "\n"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    if given.markdown:
        write_markdown(given.markdown, text)
