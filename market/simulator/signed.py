"""Who a request comes from, and whether it is signed and fresh."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from market.simulator.parameters import Parameters
from market.simulator.venue.accounts import Account
from market.simulator.venue.refusals import Refusal, missing

DEFAULT_RECV_WINDOW_MS, MOST_RECV_WINDOW_MS, AHEAD_MS = 5_000, 60_000, 1_000
SIGNATURE = re.compile(r"(?:^|&)signature=([^&]*)$")
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----"
SYNC_HORIZON_S = 60.0
"""A client that asked for the time within the last minute is taken to know it."""


class Sent(NamedTuple):
    """A request as it came: query and body are the literal texts, bytes that are not UTF-8 as surrogates."""

    query: str
    body: str
    key: str | None

    def parameters(self) -> Parameters:
        """Query and body together; what is in both is taken from the query."""
        values = dict(parse_qsl(_readable(self.body), keep_blank_values=True))
        values.update(parse_qsl(_readable(self.query), keep_blank_values=True))
        return Parameters(values)


def _readable(text: str) -> str:
    """The text with a replacement character for each byte that is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class VenueTime:
    """Which times a client can hold for the venue's.

    A simulated clock may run faster than a client's or stand still, so a client that knows the venue's time of a
    moment ago and counts on with its own clock is not wrong. At a speed of one this is the venue's time itself.

    Parameters
    ----------
    now_ms: the simulated time.
    wall: a monotonic clock in seconds.
    """

    def __init__(self, now_ms: Callable[[], int], wall: Callable[[], float]) -> None:
        self._now_ms, self._wall = now_ms, wall
        self._told: deque[tuple[float, int]] = deque()
        self.skew_ms = 0
        """How wrong the venue's clock is, on demand."""

    def now(self) -> int:
        """The venue's time, as `GET /fapi/v1/time` tells it, which may be remembered by whoever asked."""
        wall, now = self._wall(), self._now_ms()
        while self._told and self._told[0][0] < wall - SYNC_HORIZON_S:
            self._told.popleft()
        if not self._told or wall - self._told[-1][0] > 0.02:
            self._told.append((wall, now))
        return now + self.skew_ms

    def check(self, timestamp_ms: int, window_ms: int) -> None:
        """-1021 unless timestamp < time + 1000 and time − timestamp ≤ recvWindow."""
        wall, now = self._wall(), self.now()
        believed = [told + int((wall - then) * 1000) + self.skew_ms for then, told in self._told]
        earliest, latest = min([now, *believed]), max([now, *believed])
        if timestamp_ms >= latest + AHEAD_MS:
            raise Refusal(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
        if earliest - timestamp_ms > window_ms:
            raise Refusal(-1021)


def signature_of(account: Account, payload: str) -> str:
    """The HMAC-SHA256 that an account's secret gives a payload, in hex.

    >>> secret = "2b5eb11e18796d12d88f13dc27dbbd02c2cc51ff7059765ed9821957d82bb4d9"
    >>> query = "symbol=BTCUSDT&side=BUY&type=LIMIT&quantity=1&price=9000&timeInForce=GTC"
    >>> signature_of(Account("key", secret), query + "&recvWindow=5000&timestamp=1591702613943")
    '3c661234138461fcc7a7d8746c6558c9842d4e10870d2ecbedf7777cad694af9'
    """
    literal = payload.encode("utf-8", "surrogateescape")
    return hmac.new(account.secret.encode(), literal, hashlib.sha256).hexdigest()


def owner_of(accounts: Mapping[str, Account], key: str | None) -> Account:
    """The account of an API key: -2014 without one, -2015 for one that is not known."""
    if not key:
        raise Refusal(-2014, status=401)
    account = accounts.get(key)
    if account is None:
        raise Refusal(-2015, status=401)
    return account


def authenticate(sent: Sent, accounts: Mapping[str, Account], time: VenueTime) -> tuple[Account, Parameters]:
    """Whose signed request this is, and its parameters without signature, timestamp and recvWindow.

    The signature is over the literal query and body, one after the other without a separator, and comes last.
    """
    account, parameters = owner_of(accounts, sent.key), sent.parameters()
    for name in ("timestamp", "signature"):
        parameters.text(name)
    query, body = sent.query, sent.body
    found = SIGNATURE.search(body)
    if found:
        body = body[: found.start()]
    else:
        found = SIGNATURE.search(query)
        query = query[: found.start()] if found else query
    if found is None or not _genuine(account, query + body, found[1]):
        raise Refusal(-1022)
    timestamp = parameters.integer("timestamp")
    window = parameters.integer("recvWindow")
    window = DEFAULT_RECV_WINDOW_MS if window is None else window
    if timestamp is None:
        raise missing("timestamp")
    if not 0 < window <= MOST_RECV_WINDOW_MS:
        raise Refusal(-1131, "recvWindow must be less than 60000")
    time.check(timestamp, window)
    return account, parameters


def _genuine(account: Account, payload: str, signature: str) -> bool:
    if not signature.isascii():
        return False
    if not account.secret.startswith(PUBLIC_KEY):
        return hmac.compare_digest(signature_of(account, payload), signature.lower())
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    public = load_pem_public_key(account.secret.encode())
    if not isinstance(public, Ed25519PublicKey):
        return False
    try:
        # Percent-encoded, it may still be anything: as bytes, what is not base64 is one kind of error.
        given = base64.b64decode(unquote_to_bytes(signature), validate=True)
        public.verify(given, payload.encode("utf-8", "surrogateescape"))
    except (InvalidSignature, binascii.Error):
        return False
    return True
