"""An archive over HTTP for tests: files with Range and ETag, its store's listing, and what goes wrong with both."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web
from aiohttp.test_utils import TestServer

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass
class ArchiveServer:
    """Serves a mirror on disk.

    cut_after: an answer with a zip breaks off after so many bytes, while `cuts` are left. etag: what marks a file:
    "strong", "weak" or "" for nothing. ranges: whether `Range` is heard. page: names in one answer of the listing.
    refuse: a status and a body in place of the listing, `refusals` times.
    """

    root: Path
    cut_after: int = 0
    cuts: int = 0
    etag: str = "strong"
    ranges: bool = True
    page: int = 2
    refuse: tuple[int, str] = (403, "<Error><Code>AccessDenied</Code></Error>")
    refusals: int = 0
    url: str = ""
    listing: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, Range and status of the requests for files."""
    listed: list[str] = field(default_factory=list)
    """Prefix and marker of the requests for listings."""

    async def file(self, request: web.Request) -> web.StreamResponse:
        path = self.root / unquote(request.path).lstrip("/")
        if not path.is_file():
            self.asked.append((path.name, "", "404"))
            raise web.HTTPNotFound
        content = path.read_bytes()
        mark = '"' + hashlib.sha256(content).hexdigest()[:32] + '"'
        headers = {"ETag": mark if self.etag == "strong" else f"W/{mark}"} if self.etag else {}
        asked = request.headers.get("Range", "") if self.ranges else ""
        start, status = 0, 200
        if asked and request.headers.get("If-Range", mark) == mark:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(content):
                self.asked.append((path.name, asked, "416"))
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.asked.append((path.name, asked, str(status)))
        body = content[start:]
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        if self.cuts > 0 and path.suffix == ".zip":
            self.cuts -= 1
            await response.write(body[: self.cut_after])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        return response

    async def bucket(self, request: web.Request) -> web.StreamResponse:
        prefix, marker = request.query["prefix"], request.query.get("marker", "")
        self.listed.append(f"{prefix.removeprefix('data/futures/um/')} {marker.removeprefix(prefix)}".rstrip())
        if self.refusals > 0:
            self.refusals -= 1
            return web.Response(status=self.refuse[0], text=self.refuse[1], content_type="application/xml")
        assert request.query["delimiter"] == "/"
        keys = sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())
        inside = [key for key in keys if key.startswith(prefix)]
        found = sorted({_shown(key, prefix) for key in inside if _shown(key, prefix) > marker})
        page = found[: self.page]
        parts = [f"<Name>data.binance.vision</Name><Prefix>{escape(prefix)}</Prefix>"]
        for name in page:
            if name.endswith("/"):
                parts.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
            else:
                parts.append(f"<Contents><Key>{escape(name)}</Key><Size>1</Size></Contents>")
        more = len(found) > len(page)
        parts.append(f"<IsTruncated>{str(more).lower()}</IsTruncated>")
        if more:
            parts.append(f"<NextMarker>{escape(page[-1])}</NextMarker>")
        body = f'<ListBucketResult xmlns="{NAMESPACE}">{"".join(parts)}</ListBucketResult>'
        return web.Response(text=f'<?xml version="1.0" encoding="UTF-8"?>\n{body}', content_type="application/xml")


def _shown(key: str, prefix: str) -> str:
    """The key, or the folder below the prefix that it lies in."""
    rest = key.removeprefix(prefix)
    return prefix + rest.partition("/")[0] + "/" if "/" in rest else key


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[ArchiveServer]:
    """The mirror at an address."""
    served = ArchiveServer(root)
    application = web.Application()
    application.router.add_get("/bucket", served.bucket)
    application.router.add_get("/{path:data/.*}", served.file)
    async with TestServer(application) as server:
        served.url = str(server.make_url("")).rstrip("/")
        served.listing = f"{served.url}/bucket"
        yield served
