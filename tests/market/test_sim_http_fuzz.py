"""Whatever bytes come over HTTP, the venue answers or refuses: never with an error of its own."""

from __future__ import annotations

import asyncio
import base64
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from random import Random
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from market.simulator.trading import AccountSpec
from tests.market.exchange_helpers import START
from tests.market.private_helpers import KEY, SECRET, Client, exchange
from tests.market.test_sim_fuzz import NAMES, ROUTES, VALUES

PUBLIC = [
    *("v1/ping", "v1/time", "v1/exchangeInfo", "v1/klines", "v1/continuousKlines", "v1/fundingRate"),
    *("v1/premiumIndex", "v1/depth", "v1/trades", "v1/aggTrades", "v2/ticker/price", "v1/ticker/bookTicker"),
    *("v1/ticker/24hr", "v1/openInterest", "v1/fundingInfo", "v1/nosuch"),
]
PATHS = [*sorted(ROUTES), *(("GET", f"/fapi/{path}") for path in PUBLIC), ("POST", "/fapi/v1/listenKey")]
WHOLE = ("limit", "orderId", "startTime", "endTime", "countdownTime", "leverage", "timestamp", "recvWindow")
ODD = [b"\xc3\xa9", b"\xff\xfe", b"%C3%A9", b"%ff", b"%00", b"1_000", b"\xd9\xa1", b"%D9%A1", b"-0", b"9" * 5000, b"+1"]
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = PRIVATE.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
ACCOUNTS = (AccountSpec(KEY, SECRET, Decimal(100_000)), AccountSpec("curve", PEM.decode(), Decimal(100_000)))


async def raw(client: Client, method: str, target: bytes, key: bytes, body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to a request as it is written."""
    port = int(client.simulator.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heads = [b"Host: x", b"Connection: close", b"X-MBX-APIKEY: " + key, b"Content-Length: %d" % len(body)]
    writer.write(method.encode() + b" " + target + b" HTTP/1.1\r\n" + b"\r\n".join(heads) + b"\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    head, _, found = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), found


def signed(client: Client, key: bytes, payload: bytes) -> bytes:
    """What the account's key makes of the bytes."""
    if key == b"curve":
        return quote(base64.b64encode(PRIVATE.sign(payload)), safe="").encode()
    return client.sign(payload.decode("utf-8", "surrogateescape")).encode() if payload.isascii() else b"0" * 64


def requests(random: Random, client: Client) -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """Requests without end: some right, most nearly."""
    while True:
        method, path = random.choice(PATHS)
        key = random.choice([KEY.encode(), KEY.encode(), b"curve", random.choice(ODD[:4])])
        chosen = ["symbol", *random.sample(NAMES, random.randrange(6))]
        pairs = {name.encode(): quote(random.choice(VALUES[name])).encode() for name in chosen}
        pairs[b"timestamp"] = str(client.simulator.clock.now_ms).encode()
        if random.random() < 0.5:
            name = random.choice([*pairs, *(each.encode() for each in WHOLE)])
            pairs[name] = random.choice(ODD)
        payload = b"&".join(name + b"=" + value for name, value in pairs.items())
        signature = random.choice(ODD) if random.random() < 0.3 else signed(client, key, payload)
        payload += b"&signature=" + signature
        target, in_body = path.encode(), method != "GET" and random.random() < 0.5
        yield method, target if in_body else target + b"?" + payload, key, payload if in_body else b""


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.deep)])
async def test_no_bytes_break_the_venue(count: int) -> None:
    random, codes = Random(11), Counter[str]()
    async with exchange(accounts=ACCOUNTS) as client:
        await client.simulator.step(1)
        for number, (method, target, key, body) in enumerate(requests(random, client)):
            if number == count:
                break
            status, answer = await raw(client, method, target, key, body)
            assert status < 500, (method, target, key, body, answer)
            code = re.search(rb'^\{"code":(-\d+)', answer)
            codes[code[1].decode() if code else str(status)] += 1
        client.simulator.trading.venue.check()
    assert {"200", "-1022", "-1102", "-2015"} <= set(codes), codes


@pytest.mark.parametrize("key", [KEY, "curve"])
@pytest.mark.parametrize("signature", [b"\xc3\xa9", b"%C3%A9", b"\xff", b"%ff", b"AAAA", b"AAA", b"="])
async def test_a_signature_that_is_none_is_refused(key: str, signature: bytes) -> None:
    async with exchange(accounts=ACCOUNTS) as client:
        payload = f"timestamp={START}&signature=".encode() + signature
        # A request line that is not ASCII is no HTTP, and never reaches the venue.
        for target, body in ((b"?" + payload, b""), (b"", payload))[0 if payload.isascii() else 1 :]:
            status, answer = await raw(client, "POST", b"/fapi/v1/order" + target, key.encode(), body)
            assert (status, answer[:13]) == (400, b'{"code":-1022')


@pytest.mark.parametrize("text", ["1_000", "٣", " 5", "+5", "5.0", "1e3", "9" * 20, "9" * 5000, "-" + "9" * 20])
async def test_what_is_no_whole_number_of_64_bits_is_refused(text: str) -> None:
    async with exchange(accounts=ACCOUNTS) as client:
        path = "/fapi/v1/countdownCancelAll"
        assert await client.refused("POST", path, symbol="BTCUSDT", countdownTime=text) == -1102
        assert client.simulator.trading.venue.state.accounts[KEY].countdowns == {}
