"""The archive at an address: downloads that break off are gone on with, and its store can be listed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.bars import DAY_MS, Bars, resample
from market.errors import SourceUnreadable
from market.klines_store import day_start
from market.sources.archive_listing import ARCHIVE_LISTING, ListingRefused, names
from market.sources.binance_archive import BASE_URL, BinanceArchive
from market.sources.synthetic import SyntheticMarket
from market.universe import archived_daily, rank_by_day
from perpforge.commands.history import HistoryPlan, run_history
from tests.market.archive_mirror import store_klines
from tests.market.archive_server import ArchiveServer, serving

START = day_start("2026-01-30")
MONTH = "BTCUSDT-1m-2026-01.zip"
PATH = f"data/futures/um/monthly/klines/BTCUSDT/1m/{MONTH}"
MARKET = SyntheticMarket(seed=4, symbols=3, start_ms=START)
BARS = MARKET.klines("BTCUSDT", START, START + 2 * DAY_MS)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Two days of January as its month."""
    store_klines(tmp_path / "mirror", "BTCUSDT", "2026-01", BARS)
    return tmp_path / "mirror"


def archive_of(served: ArchiveServer, cache: Path, **more: Any) -> BinanceArchive:
    return BinanceArchive(served.url, cache=cache, pause=lambda _: None, **more)


async def bars_of(archive: BinanceArchive) -> Bars:
    return await asyncio.to_thread(archive.klines, "BTCUSDT", START, START + 2 * DAY_MS)


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def leave_part(cache: Path, content: bytes) -> None:
    """As an earlier run has left it."""
    part = (cache / PATH).with_name(f".{MONTH}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(content)


class Ended(Exception):
    """A run has ended."""


async def interrupted(served: ArchiveServer, cache: Path) -> None:
    """A run that ends when its first answer breaks off, if it does."""

    def end(_: float) -> None:
        raise Ended

    with suppress(Ended):
        await bars_of(BinanceArchive(served.url, cache=cache, pause=end))


DONE = [MONTH, f"{MONTH}.CHECKSUM"]


async def test_a_download_goes_on_where_it_broke_off(mirror: Path, tmp_path: Path) -> None:
    async with serving(mirror) as served:
        served.cut_after, served.cuts = 10_000, 2
        found = await bars_of(archive_of(served, tmp_path / "cache"))
        assert found.tobytes() == BARS.tobytes()
        assert served.asked[:3] == [(MONTH, "", "200"), (MONTH, "bytes=10000-", "206"), (MONTH, "bytes=20000-", "206")]
        assert kept(tmp_path / "cache") == DONE


async def test_another_run_goes_on_too(mirror: Path, tmp_path: Path) -> None:
    async with serving(mirror) as served:
        served.cut_after, served.cuts = 0, 100
        with pytest.raises(SourceUnreadable, match=MONTH):
            await bars_of(archive_of(served, tmp_path / "cache"))
        assert [status for *_, status in served.asked] == ["200"] * 4
        served.cut_after, served.cuts = 7_000, 1
        await interrupted(served, tmp_path / "cache")
        assert kept(tmp_path / "cache") == [f".{MONTH}.part", f".{MONTH}.part.etag"]
        served.asked.clear()
        assert (await bars_of(archive_of(served, tmp_path / "cache"))).tobytes() == BARS.tobytes()
        assert served.asked[0] == (MONTH, "bytes=7000-", "206")
        assert kept(tmp_path / "cache") == DONE


@pytest.mark.parametrize(("etag", "statuses"), [("strong", ["200"]), ("weak", ["206", "200"]), ("", ["206", "200"])])
async def test_a_file_that_was_replaced_meanwhile_comes_whole(
    mirror: Path, tmp_path: Path, etag: str, statuses: list[str]
) -> None:
    """With a strong mark the server says so, without one the checksum does."""
    async with serving(mirror) as served:
        served.etag, served.cut_after, served.cuts = etag, 9_000, 1
        await interrupted(served, tmp_path / "cache")
        other = BARS.copy()
        other["volume"] += 1.0
        store_klines(mirror, "BTCUSDT", "2026-01", other)
        served.asked.clear()
        found = await bars_of(archive_of(served, tmp_path / "cache"))
        assert found.tobytes() == other.tobytes()
        assert [status for name, _, status in served.asked if name == MONTH] == statuses
        assert kept(tmp_path / "cache") == DONE


async def test_a_server_that_knows_no_ranges_sends_the_whole(mirror: Path, tmp_path: Path) -> None:
    async with serving(mirror) as served:
        served.ranges, served.cut_after, served.cuts = False, 9_000, 3
        assert (await bars_of(archive_of(served, tmp_path / "cache"))).tobytes() == BARS.tobytes()
        assert [status for name, _, status in served.asked if name == MONTH] == ["200"] * 4


@pytest.mark.parametrize("excess", [0, 5])
async def test_a_part_that_is_as_long_as_the_file_or_longer(mirror: Path, tmp_path: Path, excess: int) -> None:
    """A run that ended between the last byte and the checksum; and a part that is not of this file at all."""
    leave_part(tmp_path / "cache", (mirror / PATH).read_bytes() + b"x" * excess)
    async with serving(mirror) as served:
        assert (await bars_of(archive_of(served, tmp_path / "cache"))).tobytes() == BARS.tobytes()
        statuses = [status for name, _, status in served.asked if name == MONTH]
        assert statuses == (["416", "200"] if excess else ["416"])
        assert kept(tmp_path / "cache") == DONE


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    cuts=st.lists(st.integers(0, 60_000), max_size=3),
    etag=st.sampled_from(["strong", "weak", ""]),
    ranges=st.booleans(),
    spoilt=st.binary(max_size=200),
)
def test_whatever_breaks_the_file_is_the_one_that_was_meant(
    mirror: Path, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], etag: str, ranges: bool, spoilt: bytes
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    if spoilt:
        leave_part(cache, spoilt)

    async def run() -> None:
        async with serving(mirror) as served:
            served.etag, served.ranges = etag, ranges
            for cut_after in cuts:
                served.cut_after, served.cuts = cut_after, 1
                await interrupted(served, cache)
            served.cuts = 0
            assert (await bars_of(archive_of(served, cache))).tobytes() == BARS.tobytes()
            assert kept(cache) == DONE

    asyncio.run(run())


def listed_mirror(root: Path) -> Path:
    """Three symbols that traded on one day or another; GONEUSDT only on the first, and two that are no candidates."""
    days = {"2026-01-30": ("BTCUSDT", "GONEUSDT"), "2026-01-31": ("BTCUSDT", "ETHUSDT"), "2026-02-01": ("ETHUSDT",)}
    for symbol in ("BTCUSDT", "ETHUSDT", "GONEUSDT", "测试USDT", "BTCUSDC", "BTCUSDT_260327"):
        source = symbol if symbol in MARKET.symbols() else "BTCUSDT"
        for date, traded in days.items():
            if symbol in traded or symbol.startswith("测"):
                day = MARKET.klines(source, day_start(date), day_start(date) + DAY_MS)
                store_klines(root, symbol, date, day)
                store_klines(root, symbol, date, resample(day, "1d"), "1d")
        if symbol in ("BTCUSDC", "BTCUSDT_260327"):
            store_klines(root, symbol, "2026-01-30", BARS[:1440])
    store_klines(root, "GONEUSDT", "2025-12", MARKET.klines("BTCUSDT", START, START + DAY_MS)[:0], "1d")
    return root


async def test_the_listing_has_symbols_that_are_gone(tmp_path: Path) -> None:
    async with serving(listed_mirror(tmp_path / "mirror")) as served:
        archive = archive_of(served, tmp_path / "cache", listing=served.listing)
        assert await asyncio.to_thread(archive.listed) == ("BTCUSDT", "ETHUSDT", "GONEUSDT", "测试USDT")
        pages = [asked for asked in served.listed if asked.startswith("daily/klines/")]
        assert pages == ["daily/klines/", "daily/klines/ BTCUSDT/", "daily/klines/ ETHUSDT/"]
        assert await asyncio.to_thread(archive.labels, "GONEUSDT", "1d", "2026-01-01") == {"2026-01-30"}
        assert await asyncio.to_thread(archive.labels, "GONEUSDT", "1d", "2026-01-30") == {"2026-01-30"}
        assert await asyncio.to_thread(archive.labels, "GONEUSDT", "1d", "2026-01-31") == set()
        assert await asyncio.to_thread(archive.labels, "GONEUSDT", "1d", "2025-12-01") == {"2025-12", "2026-01-30"}
        served.asked.clear()
        daily = await asyncio.to_thread(
            archived_daily, archive, ("BTCUSDT", "ETHUSDT", "GONEUSDT"), START, START + 3 * DAY_MS
        )
        ranked = rank_by_day(daily.bars, ["2026-01-31", "2026-02-01"], 5)
        assert {each.symbol for each in ranked["2026-01-31"]} == {"BTCUSDT", "GONEUSDT"}
        assert {each.symbol for each in ranked["2026-02-01"]} == {"BTCUSDT", "ETHUSDT"}
        assert {status for *_, status in served.asked} == {"200"}  # nothing was asked for that is not there


REFUSALS = [
    (403, "<Error><Code>AccessDenied</Code></Error>", "403 (AccessDenied)"),
    (200, "<html></html>", "no listing"),
    (200, "not xml", "no listing"),
    (200, "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "goes on at ''"),
    (200, "<Error><Code>PermanentRedirect</Code></Error>", "PermanentRedirect"),
]


@pytest.mark.parametrize(("status", "body", "reason"), REFUSALS)
async def test_a_listing_that_is_refused_says_why(
    mirror: Path, tmp_path: Path, status: int, body: str, reason: str
) -> None:
    async with serving(mirror) as served:
        served.refuse, served.refusals = (status, body), 99
        archive = archive_of(served, tmp_path / "cache", listing=served.listing)
        with pytest.raises(ListingRefused) as refused:
            await asyncio.to_thread(archive.listed)
        assert reason in str(refused.value)
        assert len(served.listed) == 1


async def test_a_listing_is_asked_again_when_the_server_is_at_fault(mirror: Path, tmp_path: Path) -> None:
    async with serving(mirror) as served:
        served.refuse, served.refusals = (503, "<Error><Code>SlowDown</Code></Error>"), 2
        archive = archive_of(served, tmp_path / "cache", listing=served.listing)
        assert await asyncio.to_thread(archive.listed) == ("BTCUSDT",)
        served.refusals = 99
        with pytest.raises(ListingRefused, match="SlowDown"):
            await asyncio.to_thread(archive.listed)


def test_only_the_venues_own_archive_is_listed_unasked(tmp_path: Path) -> None:
    assert BinanceArchive(BASE_URL, cache=tmp_path)._listing == ARCHIVE_LISTING
    with pytest.raises(ListingRefused, match="no listing of http://127"):
        BinanceArchive("http://127.0.0.1:9", cache=tmp_path).listed()
    with pytest.raises(ListingRefused, match="no address"):
        next(names("file:///etc", "data/", lambda _: None))
    with pytest.raises(ListingRefused, match="127"):
        next(names("http://127.0.0.1:9", "data/", lambda _: None))


async def test_history_falls_back_to_the_symbols_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The universe of a past day has the symbol that is gone, unless the listing is refused: then that is said."""
    found = {}
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    async with serving(listed_mirror(tmp_path / "mirror")) as served:
        for name, refusals in (("listed", 0), ("refused", 99)):
            served.refusals = refusals
            lake = tmp_path / name
            plan = HistoryPlan(
                *(f"file://{lake}", served.url, "", START + DAY_MS, START + 2 * DAY_MS, (), 5, False, served.listing)
            )
            await asyncio.to_thread(run_history, plan)
            found[name] = capsys.readouterr().out
    assert "universe: 3 of 4 symbols over 1 days" in found["listed"]
    assert "could not be listed" in found["refused"]
    assert "403" in found["refused"]
    assert "universe: 0 of 0 symbols" in found["refused"]
    caches = [path.name for path in (tmp_path / "home/.cache/perpforge").iterdir()]
    assert len(caches) == 1
    assert caches[0].startswith("archive-http_127.0.0.1_")  # never among the files of the venue's own archive
