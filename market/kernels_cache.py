"""Where compiled kernels are kept, so that a cached kernel is never stale.

numba checks the file of the kernel itself before it trusts its cache, but not the files of what
that kernel calls or reads. So every kernel here is compiled into a folder named by a key: a SHA-256
over the text of all kernel sources, the processor and the compiler's versions. An edit anywhere
gives another folder, and the old machine code is not found again. A kernel from outside the packages
(a user's own, a test's) has the text of its own file in the name of its folder besides.

The base folder is `PERPFORGE_CACHE_DIR`, else `~/.cache/perpforge/kernels`. Nothing global is set:
each kernel is given its folder when it is decorated, whichever package is imported first.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import llvmlite  # type: ignore[import-untyped]
import numba
import numpy
from llvmlite import binding

P = ParamSpec("P")
R = TypeVar("R")

ENVIRONMENT_NAME = "PERPFORGE_CACHE_DIR"
ROOT = Path(__file__).resolve().parent.parent
"""The folder in which the packages lie side by side."""
KEPT = 12
"""How many keys are kept when a new one is made; the least recently made go first."""


class Compiler(Protocol):
    """A decorator that leaves the signature as it is."""

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]:
        """The compiled `function`."""


def base_folder() -> Path:
    """The folder that holds one folder per key."""
    chosen = os.environ.get(ENVIRONMENT_NAME)
    if chosen:
        return Path(chosen)
    # In a checkout everything that is written lies under one folder; an installed package has no such folder.
    checkout = (ROOT / "pyproject.toml").is_file()
    return ROOT / ".perpforge" / "kernels" if checkout else Path.home() / ".cache" / "perpforge" / "kernels"


def _imported(source: str, packages: tuple[str, ...], root: Path) -> Iterator[Path]:
    """The files that a module of `packages` imports when it is itself imported."""
    for node in ast.parse(source).body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.partition(".")[0] in packages:
                path = root.joinpath(*name.split("."))
                yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file())


def kernel_sources(packages: tuple[str, ...], root: Path = ROOT) -> tuple[Path, ...]:
    """Every file of `packages` that mentions njit, and what those import from them, transitively.

    That is all that a kernel can call or read: a global that a kernel sees came with its module's
    own imports. Relative imports and imports inside functions are not followed, so kernels use neither.
    """
    texts: dict[Path, str] = {}
    pending = [
        file
        for package in packages
        for file in sorted((root / package).rglob("*.py"))
        if "njit" in file.read_text(encoding="utf-8")
    ]
    while pending:
        file = pending.pop()
        if file not in texts:
            texts[file] = file.read_text(encoding="utf-8")
            pending.extend(_imported(texts[file], packages, root))
    return tuple(sorted(texts))


def key(packages: tuple[str, ...], root: Path = ROOT) -> str:
    """The name of the cache folder for kernels of the last of `packages`, which may call the others' kernels."""
    digest = hashlib.sha256()
    for part in (
        platform.machine(),
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        sys.implementation.cache_tag,
        numba.__version__,
        llvmlite.__version__,
        numpy.__version__,
    ):
        digest.update(f"{part}\n".encode())
    for file in kernel_sources(packages, root):
        digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return f"{packages[-1]}-{digest.hexdigest()[:24]}"


def _prune(base: Path, package: str, keep: Path) -> None:
    """Remove the oldest keys of `package` beyond `KEPT`. Losing one only costs its compilation."""
    folders = [path for path in base.glob(f"{package}-*") if path.is_dir() and path != keep]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in folders[KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


@cache
def folder(*packages: str) -> Path | None:
    """The cache folder of these packages' kernels, created; None when it cannot be written."""
    path = base_folder() / key(packages)
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            _prune(path.parent, packages[-1], path)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError:
        return None


def outside(function: Callable[..., Any], packages: tuple[str, ...]) -> str:
    """What a key lacks about a function that no file of `packages` defines: a digest of its file; empty if one does."""
    if function.__module__.partition(".")[0] in packages:
        return ""
    # Of a compiled function this is the file too; without one, as at a prompt, numba caches nothing.
    file = Path(inspect.unwrap(getattr(function, "py_func", function)).__code__.co_filename)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:24] if file.is_file() else ""


@contextmanager
def _numba_folder(path: Path) -> Iterator[None]:
    """While inside, numba gives newly decorated functions `path` as their cache."""
    settings: Any = numba.config
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(path)
    try:
        yield
    finally:
        settings.CACHE_DIR = before


def compiler(*packages: str, allocates: bool = True, inlined: bool = False) -> Compiler:
    """The `njit` of the last of `packages`; the others are the packages whose kernels it may call.

    Kernels divide as IEEE 754 says (x/0 is an infinity or NaN, not an exception), keep every
    operation in the order written (no fast-math: history and live must agree to the bit), and are
    compiled when first called. Without a writable cache folder they are compiled in every process.

    Kernels that neither make nor return arrays are better off with `allocates=False`: numba then counts
    no references, and a slice handed to a callee costs nothing instead of two atomic operations.
    `inlined=True` makes them part of every kernel that calls them, also where the compiler would not.
    """
    path = folder(*packages)

    def decorate(function: Callable[P, R], /) -> Callable[P, R]:
        options: dict[str, Any] = {"error_model": "numpy", "cache": path is not None, "_nrt": allocates}
        if inlined:
            options["forceinline"] = True
        if path is None:
            return numba.njit(**options)(function)  # type: ignore[no-any-return]
        with _numba_folder(path / outside(function, packages)):
            return numba.njit(**options)(function)  # type: ignore[no-any-return]

    return decorate


njit = compiler("market")
"""The `njit` of the kernels of `market`."""
