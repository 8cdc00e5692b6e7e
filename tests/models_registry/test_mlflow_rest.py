"""The worker's view of the registry: over plain REST, against a real server."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from models_registry.mlflow_rest import BUNDLE_MODEL, MlflowRest, RegistryAnswer, RegistryUnreachable
from models_registry.registry import Registry
from tests.mlflow_server import emptied_server

FILES = {"manifest.json": b'{"n": 1}', "models/a b.tflite": b"\x00" * 700_000, "models/deep/empty.bin": b""}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(emptied_server().url, tmp_path / "ledger.jsonl", verify=lambda folder: None)


@pytest.fixture
async def rest(registry: Registry) -> AsyncIterator[MlflowRest]:
    async with aiohttp.ClientSession() as session:
        yield MlflowRest(registry.tracking_uri, session)


def bundle(folder: Path) -> Path:
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


async def test_an_alias_names_a_version_or_nothing(registry: Registry, rest: MlflowRest, tmp_path: Path) -> None:
    assert await rest.alias_version(BUNDLE_MODEL, "champion") is None  # no such model
    version = registry.register(bundle(tmp_path / "bundle"))
    assert await rest.alias_version(BUNDLE_MODEL, "champion") is None  # no such alias
    registry.promote(version, "first", "test")
    assert await rest.alias_version(BUNDLE_MODEL, "champion") == version


async def test_a_download_has_every_file_and_replaces_what_was_there(
    registry: Registry, rest: MlflowRest, tmp_path: Path
) -> None:
    version = registry.register(bundle(tmp_path / "bundle"))
    target = tmp_path / "cache" / version
    target.mkdir(parents=True)
    (target / "stale").touch()
    assert await rest.download(BUNDLE_MODEL, version, target) == target
    assert contents(target) == FILES
    assert [path.name for path in target.parent.iterdir()] == [version]


async def test_an_unknown_version_is_an_answer(rest: MlflowRest, tmp_path: Path) -> None:
    with pytest.raises(RegistryAnswer, match="RESOURCE_DOES_NOT_EXIST"):
        await rest.download(BUNDLE_MODEL, "999", tmp_path / "cache")
    assert is_empty(tmp_path)


async def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with aiohttp.ClientSession() as session:
            rest = MlflowRest(f"http://127.0.0.1:{unused.getsockname()[1]}", session)
            with pytest.raises(RegistryUnreachable):
                await rest.alias_version(BUNDLE_MODEL, "champion")


class Scripted:
    """A server that answers what a test tells it to."""

    def __init__(self, listing: object, file: web.Response | None = None) -> None:
        self.listing = listing
        self.file = file
        self.alias = b""

    async def uri(self, request: web.Request) -> web.Response:
        return web.json_response({"artifact_uri": "mlflow-artifacts:/1/run/artifacts/files"})

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response(self.listing)

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        assert self.file is not None
        return self.file

    async def page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.alias)

    async def start(self) -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_get("/api/2.0/mlflow/registered-models/alias", self.page)
        app.router.add_get("/api/2.0/mlflow/model-versions/get-download-uri", self.uri)
        app.router.add_get("/api/2.0/mlflow-artifacts/artifacts", self.list)
        app.router.add_get("/api/2.0/mlflow-artifacts/artifacts/{path:.*}", self.fetch)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return runner, f"http://{host}:{port}"


async def download_from(server: Scripted, folder: Path) -> None:
    runner, url = await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            await MlflowRest(url, session).download(BUNDLE_MODEL, "1", folder)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil"])
async def test_no_file_leaves_its_folder(path: str, tmp_path: Path) -> None:
    listing = {"files": [{"path": path, "is_dir": False, "file_size": 1}]}
    with pytest.raises(RegistryAnswer, match="would leave its folder"):
        await download_from(Scripted(listing), tmp_path / "cache")
    assert is_empty(tmp_path)


async def test_a_short_file_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    listing = {"files": [{"path": "model", "is_dir": False, "file_size": 100}]}
    with pytest.raises(RegistryUnreachable, match="ended after 3 of 100 bytes"):
        await download_from(Scripted(listing, web.Response(body=b"abc")), tmp_path / "cache")
    assert is_empty(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>please log in</html>",
        b"{}",
        b"[]",
        b"null",
        b'{"model_version": null}',
        b'{"model_version": {"version": null}}',
        b'{"model_version": {"version": ""}}',
        b'{"model_version": {"version": "../1"}}',
        b'{"model_version": {"version": "\xff"}}',
        b'{"model_version": ' * 100_000,
    ],
)
async def test_what_is_no_answer_of_a_registry_is_said_to_be_none(body: bytes) -> None:
    server = Scripted({})
    server.alias = body
    runner, url = await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(RegistryAnswer, match="the registry answered 200"):
                await MlflowRest(url, session).alias_version(BUNDLE_MODEL, "champion")
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "listing",
    [
        "files",
        {"files": 3},
        {"files": [{"name": "model"}]},
        {"files": [{"path": "model", "file_size": "much"}]},
        {"files": [{"path": "a\0b", "file_size": 1}]},
        {"files": [{"path": "again", "is_dir": True}]},
        {"files": [{"path": "", "is_dir": True}]},
    ],
)
async def test_a_listing_of_another_shape_ends_the_download(listing: object, tmp_path: Path) -> None:
    with pytest.raises(RegistryAnswer):
        await download_from(Scripted(listing, web.Response(body=b"abc")), tmp_path / "cache")
    assert is_empty(tmp_path)


async def test_a_size_in_a_string_is_a_size(tmp_path: Path) -> None:
    listing = {"files": [{"path": "model", "file_size": "3"}]}
    await download_from(Scripted(listing, web.Response(body=b"abc")), tmp_path / "cache")
    assert contents(tmp_path / "cache") == {"model": b"abc"}


async def test_a_version_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryAnswer, match="has no files"):
        await download_from(Scripted({}), tmp_path / "cache")
