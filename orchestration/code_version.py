"""What a bundle's manifest calls the code that trained it."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from models_registry.code_digest import code_digest

PACKAGES = ("market", "features", "models_registry", "trading_worker", "orchestration")


@cache
def code_version() -> str:
    """Release, commit where the code is a checkout (`dirty` with changes in it), and digest of the packages' files.

    The release alone is the same at every commit; the digest is there without git too, as in an image.
    """
    return "+".join(
        [version("perpforge"), ".".join([*commit_of(Path(__file__).parents[1]), code_digest(PACKAGES)[:12]])]
    )


def commit_of(checkout: Path) -> list[str]:
    """The commit of a git checkout, followed by `dirty` when its files differ from it; empty where there is none."""
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return []
    asked = [git, "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip().split("-") if done.returncode == 0 else []
