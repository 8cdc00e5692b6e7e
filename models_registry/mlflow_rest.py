"""Reading the MLflow registry over its REST interface, without importing mlflow.

Importing mlflow costs a process 190 MB, and a worker needs two things from the registry only: which version an alias
names, and that version's files. Nothing here writes to the registry.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from models_registry.errors import ModelsError

BUNDLE_MODEL = "trading_bundle"
"""The registered model whose versions are bundles."""

TIMEOUT_S = 5.0
CHUNK_BYTES = 1 << 18
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MOST_FOLDERS = 100
"""Of one version; who lists more answers the same to every question."""

T = TypeVar("T")


class _Version(msgspec.Struct, frozen=True):
    version: str | int


class _Alias(msgspec.Struct, frozen=True):
    model_version: _Version


class _Uri(msgspec.Struct, frozen=True):
    artifact_uri: str


class _Item(msgspec.Struct, frozen=True):
    path: str
    is_dir: bool = False
    file_size: int | None = None


class _Listing(msgspec.Struct, frozen=True):
    files: list[_Item] = []


class _Refusal(msgspec.Struct, frozen=True):
    error_code: str = "UNKNOWN"
    message: str = ""


class RegistryError(ModelsError):
    """Base of what can go wrong between us and the registry."""


class RegistryUnreachable(RegistryError):
    """The registry does not answer: keep what is loaded and ask again later."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the registry at {url} does not answer: {reason}")
        self.url = url
        self.reason = reason


class RegistryAnswer(RegistryError):
    """The registry answered with a refusal, or with what is no answer of a registry: keep what is loaded."""

    def __init__(self, url: str, status: int, code: str, message: str) -> None:
        super().__init__(f"the registry answered {status} {code} to {url}: {message}")
        self.url = url
        self.status = status
        self.code = code
        self.message = message


class MlflowRest:
    """A read-only client for one MLflow server.

    Parameters
    ----------
    base_url : the tracking URI, such as ``http://127.0.0.1:5000``.
    session : an open aiohttp session, whose owner closes it.
    timeout_s : seconds without an answer, or without the next bytes of a file, until `RegistryUnreachable`.
    """

    def __init__(self, base_url: str, session: aiohttp.ClientSession, timeout_s: float = TIMEOUT_S) -> None:
        self.base_url = base_url.rstrip("/")
        self._session = session
        self._answer_timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._file_timeout = aiohttp.ClientTimeout(total=None, connect=timeout_s, sock_read=timeout_s)

    async def alias_version(self, model: str, alias: str) -> str | None:
        """The version of `model` that `alias` names, or None when there is no such alias or no such model."""
        try:
            answer = await self._get(f"{_API}/registered-models/alias", {"name": model, "alias": alias}, _Alias)
        except RegistryAnswer as refusal:
            if _means_absent(refusal):
                return None
            raise
        version = str(answer.model_version.version)
        if not version.isalnum():
            raise RegistryAnswer(self.base_url, 200, "BAD_VERSION", f"{alias} of {model} is version {version[:50]!r}")
        return version

    async def files(self, model: str, version: str) -> dict[str, int]:
        """The files of a version: path inside it → size in bytes."""
        root = await self._artifact_root(model, version)
        found: dict[str, int] = {}
        folders = [PurePosixPath()]
        for folder in folders:
            if len(folders) > MOST_FOLDERS:
                raise RegistryAnswer(self.base_url, 200, "BAD_PATH", f"{model} {version} has no end of folders")
            answer = await self._get(_ARTIFACTS, {"path": str(root / folder)}, _Listing)
            for item in answer.files:
                path = folder / item.path
                self._check_path(path)
                if item.is_dir:
                    folders.append(path)
                else:
                    found[str(path)] = item.file_size or 0
        return found

    async def download(self, model: str, version: str, folder: str | Path) -> Path:
        """All files of a version into `folder`, which appears complete or not at all.

        The folder is replaced when it exists. Raises `RegistryAnswer` when there is no such version or it has no
        files, `RegistryUnreachable` when the registry falls silent on the way.
        """
        target = Path(folder)
        files = await self.files(model, version)
        root = await self._artifact_root(model, version)
        if not files:
            raise RegistryAnswer(f"{self.base_url}/{root}", 200, "NO_FILES", f"{model} {version} has no files")
        incoming = _folder_beside(target)
        try:
            for path, size in files.items():
                await self._fetch(root / path, incoming / path, size)
            await asyncio.to_thread(_replace_folder, incoming, target)
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        return target

    async def _artifact_root(self, model: str, version: str) -> PurePosixPath:
        """The version's place below the server's artifact folder."""
        query = {"name": model, "version": version}
        uri = (await self._get(f"{_API}/model-versions/get-download-uri", query, _Uri)).artifact_uri
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise RegistryAnswer(self.base_url, 200, "NOT_UNDERSTOOD", f"{uri!r} is no address: {error}") from None
        root = PurePosixPath(parts.path.lstrip("/"))
        if parts.scheme != "mlflow-artifacts" or ".." in root.parts:
            reason = f"{model} {version} has its files at {uri}, which only the host that registered them can read"
            raise RegistryAnswer(self.base_url, 200, "NOT_SERVED", reason)
        return root

    async def _get(self, path: str, query: dict[str, str], kind: type[T]) -> T:
        """What the registry answers, as `kind`; any other answer is `RegistryAnswer`."""
        url = self.base_url + path
        try:
            async with self._session.get(url, params=query, timeout=self._answer_timeout) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryUnreachable(self.base_url, str(error) or type(error).__name__) from None
        if response.status >= 500:
            raise RegistryUnreachable(self.base_url, f"HTTP {response.status}")
        if response.status == 200:
            return _decoded(body, kind, url, 200)
        refusal = _decoded(body, _Refusal, url, response.status)
        raise RegistryAnswer(url, response.status, refusal.error_code, refusal.message)

    async def _fetch(self, source: PurePosixPath, target: Path, size: int) -> None:
        url = f"{self.base_url}{_ARTIFACTS}/{quote(str(source))}"
        target.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        try:
            async with self._session.get(url, timeout=self._file_timeout) as response:
                if response.status != 200:
                    raise RegistryAnswer(url, response.status, "NO_SUCH_FILE", (await response.text())[:200])
                with target.open("wb") as file:
                    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                        written += file.write(chunk)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RegistryUnreachable(self.base_url, str(error) or type(error).__name__) from None
        if size and written != size:
            raise RegistryUnreachable(self.base_url, f"{source} ended after {written} of {size} bytes")

    def _check_path(self, path: PurePosixPath) -> None:
        if path.is_absolute() or ".." in path.parts or "\0" in str(path):
            raise RegistryAnswer(self.base_url, 200, "BAD_PATH", f"a file named {path} would leave its folder")


def _decoded(body: bytes, kind: type[T], url: str, status: int) -> T:
    """The answer's JSON; a proxy's page and another server's JSON are no answers of a registry."""
    try:
        # Not strict: numbers may stand in strings, as protocol buffers write large ones.
        return msgspec.json.decode(body, type=kind, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"{error}, in {body[:200].decode(errors='replace')!r}"
        raise RegistryAnswer(url, status, "NOT_UNDERSTOOD", message) from None


def _means_absent(refusal: RegistryAnswer) -> bool:
    """MLflow answers 404 for an unknown model, and 400 for an unknown alias of a known one."""
    if refusal.code == "RESOURCE_DOES_NOT_EXIST":
        return True
    return refusal.code == "INVALID_PARAMETER_VALUE" and refusal.message.endswith("not found.")


def _folder_beside(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))


def _replace_folder(incoming: Path, target: Path) -> None:
    """Put `incoming` in the place of `target`, its files on the disk first."""
    for path in incoming.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if target.exists():
        shutil.rmtree(target)
    incoming.rename(target)
