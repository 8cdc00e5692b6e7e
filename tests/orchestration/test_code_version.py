"""What a manifest calls the code: the commit where there is one, and a digest of the files anyway."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from models_registry.code_digest import code_digest
from orchestration.code_version import PACKAGES, code_version, commit_of
from orchestration.resources import TrainingSettings


def git(folder: Path, *arguments: str) -> str:
    named = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *named, "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout


def test_a_manifest_names_the_code() -> None:
    found = TrainingSettings().config(0).code_version
    assert found == code_version() != version("perpforge")
    assert found.startswith(f"{version('perpforge')}+")
    assert found.endswith(code_digest(PACKAGES)[:12])


def test_a_checkout_has_a_commit_and_says_when_its_files_differ(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == []
    git(tmp_path, "init")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "v9")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit_of(tmp_path) == [head]
    assert commit_of(tmp_path / "below") == [], "another checkout's"
    (tmp_path / "a.py").write_text("2")
    assert commit_of(tmp_path) == [head, "dirty"]
