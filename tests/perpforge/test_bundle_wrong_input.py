"""`perpforge bundle` with versions that are not there and bundles that are not whole: what it says, and how it ends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from models_registry import registry as registry_module
from models_registry.errors import BundleRejected, LedgerBroken
from models_registry.ledger import Ledger
from models_registry.manifest import MANIFEST_FILE
from perpforge.cli import app

WORDS = ("show", "verify", "promote", "reproduce")


class Registry:
    """Two bundles whose manifests cannot be read, and no challenger."""

    def __init__(self, *_: object, **__: object) -> None:
        self.ledger = Ledger(Path("nowhere") / "ledger.jsonl")

    def champion(self) -> str | None:
        """The second."""
        return "2"

    def challenger(self) -> str | None:
        """None."""
        return None

    def list(self) -> list[SimpleNamespace]:
        """The newest first."""
        return [SimpleNamespace(version="2"), SimpleNamespace(version="1")]

    def download(self, version: str, folder: Path) -> Path:
        """With a changed byte."""
        folder.mkdir()
        (folder / MANIFEST_FILE).write_text('{"schema": 2, A')
        return folder

    def promote(self, version: str, reason: str, by: str) -> None:
        """The ledger is broken."""
        raise LedgerBroken(Path("ledger.jsonl"), 3, "its content does not match its hash")


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(folder: Path) -> None:
        raise BundleRejected(folder, "win_classifier.onnx is missing")

    monkeypatch.setattr(registry_module, "Registry", Registry)
    monkeypatch.setattr(registry_module, "verify_bundle", verify)


def run(*words: str) -> Result:
    reason = ("--reason", "x") if words[0] == "promote" else ()
    # Wide, so that no message is broken in two.
    given = ["bundle", *words, *reason, "--mlflow", "http://127.0.0.1:9"]
    return CliRunner().invoke(app, given, env={"COLUMNS": "200"})


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("99", "there is no bundle 99; registered: 1, 2"),
        ("newest", "'newest' is no version: give a number, champion or challenger"),
        ("challenger", "there is no challenger"),
    ],
)
def test_a_version_that_is_not_there_is_named(word: str, version: str, said: str) -> None:
    result = run(word, version)
    assert result.exit_code == 2
    assert said in result.output


def test_both_versions_of_a_comparison_are_looked_for() -> None:
    result = run("diff", "1", "99")
    assert (result.exit_code, "there is no bundle 99" in result.output) == (2, True)


@pytest.mark.parametrize("words", [("show",), ("show", "2", "--json"), ("diff", "2", "1")])
def test_a_manifest_that_cannot_be_read_is_told_by_its_version(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert f"bundle 2 cannot be read: its {MANIFEST_FILE} cannot be read: " in result.output
    assert "/tmp" not in result.output, "a folder that is gone helps nobody"


def test_a_bundle_that_is_not_whole_is_told_by_its_version() -> None:
    result = run("verify")
    assert result.exit_code == 1
    assert "bundle 2 is not whole: win_classifier.onnx is missing" in result.output


def test_a_broken_ledger_moves_nothing_and_is_named() -> None:
    result = run("promote", "1")
    assert result.exit_code == 1
    assert "ledger.jsonl is broken at line 3" in result.output
