"""The status pages: readiness, JSON, metrics, and that nothing unescaped reaches the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from html.parser import HTMLParser

import aiohttp
import pytest

from market.binance.breaker import State
from trading_worker.shell.exchange import ExchangeReport, SymbolReport
from trading_worker.shell.metrics import Board, Refusal, Samples, Swap
from trading_worker.shell.status import StatusServer

EVIL = "<script>alert('x')</script>\"&"


@pytest.fixture
def board() -> Board:
    """A board on which every text came from somebody hostile."""
    board = Board(worker=EVIL, symbols=("BTCUSDT",), bundle="7", bundle_from=EVIL, decision_spec=EVIL, origin=EVIL)
    board.waiting = {"bundle": EVIL}
    board.rejected[EVIL] += 3
    board.fallbacks = {EVIL: EVIL}
    board.rejections.append({"time_ms": 1, "symbol": EVIL, "reason": EVIL})
    board.signals.append({"time_ms": 1, "symbol": EVIL})
    board.positions = [{"symbol": EVIL, "direction": 1}]
    board.refused.append(Refusal(1, EVIL, EVIL))
    board.swaps.append(Swap(1, EVIL, EVIL, 1.0, 0.001))
    board.outcomes.update(target=2, void=1)
    board.r_sum = 3.0
    board.since_ms = 1_768_003_200_000
    board.commits.add(0.002)
    board.bars_absent[EVIL] += 2
    board.reconnects[EVIL] += 1
    report = ExchangeReport(
        connections=2,
        circuits={EVIL: State.HALF_OPEN.value},
        weight=120,
        weight_limit=2400,
        moved=2,
        refusals=1,
        refusal=f"the venue refused {EVIL}",
        symbols=(SymbolReport(EVIL, 2.5, 40.0, True, 3, EVIL), SymbolReport("BTCUSDT", None, 0.5, False, 0)),
    )
    report.venue_delay.add(2.5)
    board.exchange = lambda: report
    return board


@pytest.fixture
async def server(board: Board) -> AsyncIterator[StatusServer]:
    """That board, served."""
    server = StatusServer(board, 0)
    await server.start()
    yield server
    await server.stop()


class _Tags(HTMLParser):
    """Collects what a browser would see as tags and as addresses to load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href"}]


async def test_the_page_escapes_everything_and_loads_nothing(server: StatusServer) -> None:
    async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
        text = await answer.text()
        assert answer.content_type == "text/html"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    seen = _Tags()
    seen.feed(text)
    assert "counted since 2026-01-10 00:00:00" in text
    assert "half open" in text
    assert "120 of 2,400" in text
    assert "the venue refused &lt;script" in text
    assert text.index("40.0 s") < text.index("0.5 s"), "who is silent for longest comes first"
    assert "script" not in seen.tags
    assert seen.loads == ["status.json", "metrics"]
    assert "&lt;script&gt;" in text


async def test_readyz_says_why_not_and_turns_when_nothing_is_left(server: StatusServer, board: Board) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(server.url + "/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["waiting"] == {"bundle": EVIL}
        async with session.get(server.url + "/healthz") as answer:
            assert answer.status == 200
        board.waiting.clear()
        async with session.get(server.url + "/readyz") as answer:
            assert answer.status == 200


async def test_json_and_metrics_tell_the_same(server: StatusServer) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(server.url + "/status.json") as answer:
            told = await answer.json()
        async with session.get(server.url + "/metrics") as answer:
            text = await answer.text()
    assert told["mean_r"] == 1.5
    assert told["commits"]["p99_ms"] == 2.0
    assert told["refused"] == [{"time_ms": 1, "version": EVIL, "reason": EVIL}]
    assert 'perpforge_positions_closed_total{outcome="target"} 2.0' in text
    assert 'perpforge_journal_commit_seconds{quantile="0.5"} 0.002' in text
    assert "perpforge_ready 0.0" in text
    exchange = told["exchange"]
    assert (exchange["weight"], exchange["resubscribed"], exchange["venue_delay"]["last_ms"]) == (120, 3, 2500.0)
    assert exchange["own_delay"] == {"count": 0, "last_ms": None, "p50_ms": None, "p99_ms": None}
    quiet = {"delay_s": None, "silence_s": 0.5, "asking": False, "resubscribed": 0, "refused": None}
    assert exchange["symbols"]["BTCUSDT"] == quiet
    assert (exchange["moved"], exchange["refusals"], exchange["refusal"]) == (2, 1, f"the venue refused {EVIL}")
    assert exchange["symbols"][EVIL]["refused"] == EVIL
    for line in (
        "perpforge_weight 120.0",
        "perpforge_streams_resubscribed_total 3.0",
        "perpforge_streams_moved_total 2.0",
        "perpforge_subscriptions_refused_total 1.0",
        "perpforge_venue_delay_seconds_count 1.0",
        'perpforge_symbol_silence_seconds{symbol="BTCUSDT"} 0.5',
    ):
        assert line in text
    assert 'state="half_open"} 1.0' in text
    assert "perpforge_venue_weight" not in text, "what is not known is not told"


def test_an_empty_board_has_no_mean_and_no_quantiles() -> None:
    assert Board(worker="w").mean_r is None
    assert Samples().quantile(0.5) is None
    assert Samples().summary() == {"count": 0, "last_ms": None, "p50_ms": None, "p99_ms": None}
