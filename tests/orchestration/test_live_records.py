"""What the live labels say of the champion, and the demotion that follows, on a real MLflow server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from market.bars import MINUTE_MS
from market.lake import Lake
from models_registry import registry as registry_module
from models_registry.demotion import LIVE_UNTIL, DemotionRules, demoted_until
from models_registry.ledger import Ledger
from models_registry.mlflow_rest import BUNDLE_MODEL
from models_registry.registry import Registry
from orchestration import sensors
from orchestration.gate_settings import GateSettings
from orchestration.live_records import act, look
from orchestration.resources import LakeResource, RegistryResource, TrainingSettings
from orchestration.run import materialise, resources
from orchestration.sensors import champion_to_watch
from perpforge.cli import app
from tests.mlflow_server import emptied_server
from tests.orchestration.markets import SOURCE, START

HOUR = 60 * MINUTE_MS
HORIZON = 240
RULES = DemotionRules(fewest_positions=100)
GATE = GateSettings(demotion_positions=100)
PROMISED = {"verdict": {"numbers": {"expectancy": 0.1, "expectancy_low": 0.02, "expectancy_high": 0.18}}}


def put_labels(
    lake: Lake, bundle: str, r: Sequence[float], hours: float = 72.0, first: float = 0.0, worker: str = "w"
) -> None:
    """Live labels of `bundle`, decided evenly over `hours` from `first` on and known an hour later."""
    count = len(r)
    decided = START + ((first + np.linspace(0, hours, count)) * HOUR).astype(np.int64)
    table = pa.table(
        {
            "position_id": [f"{bundle}-{at}-{index}" for index, at in enumerate(decided)],
            "symbol": ["BTCUSDT"] * count,
            "direction": pa.array([1] * count, pa.int8()),
            "decided_at": decided,
            "opened_at": decided + 1,
            "known_at": decided + HOUR,
            "outcome": pa.array([1 if each > 0 else 2 for each in r], pa.int8()),
            "r": pa.array(r, pa.float64()),
            "bundle": [bundle] * count,
        }
    )
    lake.put("labels", table, {"source": "live"}, f"{worker}-{bundle}-{first:g}.parquet")


def losing(count: int = 240) -> list[float]:
    """About -0.3 R, with the spread of real outcomes."""
    return np.where(np.random.default_rng(1).random(count) < 0.35, 1.2, -1.05).tolist()


class Home:
    """A home folder with two bundles in the registry, 2 promoted after 1."""

    def __init__(self, home: Path) -> None:
        self.home, self.lake, self.url = home, Lake(str(home / "lake")), emptied_server().url
        self.registry = Registry(self.url, home / "registry" / "ledger.jsonl", verify=lambda folder: None)
        for name in ("one", "two"):
            folder = home / name
            folder.mkdir()
            (folder / "manifest.json").write_text(f'{{"name": "{name}", "home": "{home}"}}')
            self.registry.promote(self.registry.register(folder), "gate: better", "gate", PROMISED)

    def look(self) -> dg.RunRequest | str:
        """What the sensor says."""
        given = {
            "lake": LakeResource(uri=self.lake.uri),
            "registry": RegistryResource(tracking_uri=self.url, ledger=str(self.registry.ledger.path)),
            "training": TrainingSettings(),
            "gate": GATE,
        }
        with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance, resources=given) as context:
            found = champion_to_watch(context)
        assert isinstance(found, dg.RunRequest | dg.SkipReason)
        return str(found.skip_message) if isinstance(found, dg.SkipReason) else found

    def watch(self) -> dict[str, object]:
        """What the asset says that the sensor asks for."""
        given = resources(self.home, source=SOURCE, tracking_uri=self.url, gate=GATE)
        return dict(materialise(["live_record"], home=self.home, resources=given).metadata["live_record"])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(tmp_path)
    # The bundles of these tests are no more than their names.
    monkeypatch.setattr(registry_module.Registry.__init__, "__kwdefaults__", {
        **registry_module.Registry.__init__.__kwdefaults__, "verify": lambda folder: None,
    })  # fmt: skip
    return made


def test_a_champion_that_leaves_its_gate_gives_its_place_back(home: Home) -> None:
    assert home.look() == "bundle 2: 0 closed live positions, 100 needed"
    put_labels(home.lake, "2", losing())
    asked = home.look()
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags["perpforge/demote"] == "2"
    shown = home.watch()
    assert (shown["judged"], shown["champion"], shown["demoted"]) == ("2", "1", True)
    assert home.registry.champion() == "1"
    entry = home.registry.ledger.entries()[-1]
    assert (entry.action, entry.version, entry.previous, entry.by) == ("demotion", "1", "2", "live record")
    assert entry.reason.endswith("wholly below it")
    numbers = entry.details["live"]["numbers"]  # type: ignore[index]
    assert numbers["live_expectancy_high"] < numbers["promised_low"] == 0.02
    newest = START + 73 * HOUR
    assert entry.details[LIVE_UNTIL] == demoted_until(home.registry.ledger.entries(), "2") == newest
    assert home.registry.ledger.who_was_champion(entry.time_ms - 1) == "2"
    assert home.registry.ledger.who_was_champion(entry.time_ms) == "1"
    # The bundle before is champion now, and what the other one lost is not held against it.
    assert home.look() == "bundle 1: 0 closed live positions, 100 needed"
    assert home.watch()["demoted"] is False


def test_a_move_by_hand_is_picked_up_and_entered(home: Home) -> None:
    put_labels(home.lake, "2", [0.5])
    MlflowClient(home.url).set_registered_model_alias(BUNDLE_MODEL, "champion", "1")
    asked = home.look()
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags["perpforge/moved"] == "champion=1"
    assert home.watch()["champion"] == "1"
    entry = home.registry.ledger.entries()[-1]
    assert (entry.action, entry.version, entry.previous) == ("found", "1", "2")
    assert entry.details == {LIVE_UNTIL: START + HOUR}
    assert isinstance(home.look(), str), "it is entered: nothing more to do"


@pytest.mark.parametrize(
    ("command", "said"), [(("rollback",), "champion is 1, before 2"), (("promote", "1"), "champion is 1, before 2")]
)
def test_the_command_line_enters_the_newest_live_outcome_with_a_move(
    home: Home, command: tuple[str, ...], said: str
) -> None:
    put_labels(home.lake, "2", [0.5])
    where = ("--home", str(home.home), "--mlflow", home.url, "--reason", "why")
    done = CliRunner().invoke(app, ["bundle", *command, *where], env={"LAKE_URI": "", "LEDGER_PATH": ""})
    assert (done.exit_code, done.output.strip()) == (0, said)
    assert home.registry.ledger.entries()[-1].details == {LIVE_UNTIL: START + HOUR}


def test_who_is_champion_by_now_is_not_demoted_for_another(home: Home) -> None:
    put_labels(home.lake, "2", losing())
    found = look(home.lake, home.registry.ledger, RULES, HORIZON)
    assert found is not None
    assert found.verdict.demote
    home.registry.rollback("a person was quicker", "me")
    assert act(home.registry, found) is None
    assert home.registry.champion() == "1"


def test_without_one_before_it_the_champion_stays(home: Home) -> None:
    home.registry.rollback("back to the first", "me")
    put_labels(home.lake, "1", losing())
    assert str(home.look()).endswith("wholly below it; nobody was champion before it, so it stays")
    assert home.watch()["demoted"] is False
    assert home.registry.champion() == "1"


def test_a_silent_server_is_no_reason_to_act(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    put_labels(home.lake, "2", losing())
    home.url = "http://127.0.0.1:9"
    assert "does not answer" in str(home.look())
    monkeypatch.setattr(sensors.RegistryResource, "address", lambda self: None)
    assert home.look() == "no MLflow server answers"


@pytest.fixture
def lone(tmp_path: Path) -> tuple[Lake, Ledger]:
    """A lake, and a ledger of which bundle 2 is champion; no server."""
    from models_registry.ledger import CHAMPION, Move

    ledger = Ledger(tmp_path / "ledger.jsonl")
    for time_ms, version in enumerate(("1", "2")):
        move = Move(
            action="promote", alias=CHAMPION, version=version, previous=None, reason="", by="gate", details=PROMISED
        )
        ledger.append(move, time_ms=time_ms)
    return Lake(str(tmp_path / "lake")), ledger


def test_only_its_own_positions_count_once_and_only_those_that_must_have_ended(lone: tuple[Lake, Ledger]) -> None:
    lake, ledger = lone
    put_labels(lake, "1", [9.0] * 50)
    put_labels(lake, "2", [0.5] * 120, hours=60)
    put_labels(lake, "2", [0.5] * 120, hours=60, worker="another")
    # Decided within the last horizon: known because they ended at once.
    put_labels(lake, "2", [-1.0] * 30, hours=1, first=70)
    found = look(lake, ledger, RULES, HORIZON)
    assert found is not None
    assert found.live is not None
    assert (found.live.positions, found.live.total_r) == (120, 60.0)
    assert found.live_until_ms == START + 73 * HOUR
    assert found.before == "1"


def test_positions_of_an_earlier_tenure_do_not_count(lone: tuple[Lake, Ledger]) -> None:
    from models_registry.ledger import CHAMPION, Move

    lake, ledger = lone
    put_labels(lake, "2", losing())
    for action, version, previous, details in (
        ("demotion", "1", "2", {LIVE_UNTIL: START + 73 * HOUR}),
        ("promote", "2", "1", PROMISED),
    ):
        move = Move(
            action=action, alias=CHAMPION, version=version, previous=previous, reason="", by="t", details=details
        )
        ledger.append(move, time_ms=5)
    found = look(lake, ledger, RULES, HORIZON)
    assert found is not None
    assert found.live is None
    put_labels(lake, "2", [1.0] * 110, first=100)
    later = look(lake, ledger, RULES, HORIZON)
    assert later is not None
    assert later.live is not None
    assert later.live.expectancy == 1.0


def test_a_lake_without_labels_and_a_ledger_without_a_champion_say_nothing(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    assert look(lake, Ledger(tmp_path / "ledger.jsonl"), RULES, HORIZON) is None
