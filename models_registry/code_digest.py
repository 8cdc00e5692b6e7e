"""Which code it was: a sha256 over the source files of packages, for what must not outlive a change of them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

LEARNING = ("features", "models_registry")
"""The packages whose code decides, with data and settings, what a training and its judging give."""


@cache
def code_digest(packages: tuple[str, ...] = LEARNING) -> str:
    """sha256 over the modules of `packages` as they are installed; read once a process.

    >>> code_digest() == code_digest(LEARNING) != code_digest(("market",))
    True
    """
    return folders_digest({name: _folder_of(name) for name in packages})


def folders_digest(folders: dict[str, Path]) -> str:
    """sha256 over the names and contents of the `.py` files in `folders`, which are known by their keys."""
    digest = hashlib.sha256()
    for name, folder in sorted(folders.items()):
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{name}/{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _folder_of(package: str) -> Path:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"there is no package {package}", name=package)
    return Path(next(iter(found.submodule_search_locations)))
