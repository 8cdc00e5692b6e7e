"""Signatures, and that nothing shows a key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import pickle
import traceback
from decimal import Decimal
from urllib.parse import parse_qsl, unquote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from market.binance.errors import KeyUnusable
from market.binance.signing import Credentials, Ed25519Signer, HmacSigner, encode, signed

FUTURES = "2b5eb11e18796d12d88f13dc27dbbd02c2cc51ff7059765ed9821957d82bb4d9"
FUTURES_KEY = "dbefbc809e3e83c283a984c3a1459732ea7db1360ca80c5c2c8867408d28cc83"
SPOT = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
ORDER = (
    "symbol=BTCUSDT&side=BUY&type=LIMIT&quantity=1&price=9000&timeInForce=GTC&recvWindow=5000&timestamp=1591702613943"
)
SPOT_QUERY = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC"
SPOT_BODY = "quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
SESSION = (
    "apiKey=vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A&newOrderRespType=ACK&price=52000.00"
    "&quantity=0.01000000&recvWindow=100&side=SELL&symbol=BTCUSDT&timeInForce=GTC&timestamp=1645423376532&type=LIMIT"
)

VECTORS = [
    (FUTURES, ORDER, "", "3c661234138461fcc7a7d8746c6558c9842d4e10870d2ecbedf7777cad694af9"),
    (
        FUTURES,
        "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC",
        "quantity=1&price=9000&recvWindow=5000&timestamp=1591702613943",
        "30baaf0fab549bbeda7f5ef201898b34122da25fd23c646cac2c529aebe670a4",
    ),
    (SPOT, f"{SPOT_QUERY}&{SPOT_BODY}", "", "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
    (SPOT, SPOT_QUERY, SPOT_BODY, "0fd168b8ddb4876a0358a8d14d0c9f3da0e9b20c5d52b2a00fcf7d1c602f9a77"),
    (SPOT, SESSION, "", "cc15477742bd704c29492d96c7ead9414dfd8e0ec4a00f947bb5bb454ddbd08a"),
]


@pytest.mark.parametrize(("secret", "query", "body", "expected"), VECTORS)
def test_the_published_vectors(secret: str, query: str, body: str, expected: str) -> None:
    sent_query, sent_body = signed(query, body, HmacSigner(secret))
    if body:
        assert (sent_query, sent_body) == (query, f"{body}&signature={expected}")
    else:
        assert (sent_query, sent_body) == (f"{query}&signature={expected}", "")


def test_the_published_mixed_signature_needs_a_stray_space() -> None:
    _, query, body, true = VECTORS[1]
    stray = body.replace("timestamp=", "timestamp= ")
    published = HmacSigner(FUTURES).sign(query + stray)
    assert published.startswith("f9d0ae5e")
    assert published.endswith("36f2")
    assert published != true


names = st.text(st.sampled_from("abcdefgXYZ"), min_size=1, max_size=8)
values = st.one_of(
    st.text(min_size=0, max_size=12),
    st.sampled_from(["测试USDT", "a&b=c", "100%", "a b+c", "é"]),
    st.integers(-(10**12), 10**15),
    st.booleans(),
    st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**9), max_value=10**9),
).filter(lambda value: not isinstance(value, str) or value.isprintable())


@settings(deadline=None)
@given(st.dictionaries(names, values, max_size=8), st.randoms(use_true_random=False), st.integers(0, 8), st.booleans())
def test_what_the_server_receives_it_can_verify(
    parameters: dict[str, object], random: object, cut: int, pem: bool
) -> None:
    """Any order, any characters, any share of query and body: the signature is last and covers the bytes before it."""
    order = list(parameters.items())
    random.shuffle(order)  # type: ignore[attr-defined]
    query, body = encode(dict(order[:cut])), encode(dict(order[cut:]))  # type: ignore[arg-type]
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    signer = Ed25519Signer(_pem(key)) if pem else HmacSigner("secret")
    sent_query, sent_body = signed(query, body, signer)
    both = sent_query + sent_body
    payload, mark, signature = both.rpartition("signature=")
    assert mark
    assert "&" not in signature, "the signature is the last parameter"
    literal = payload.removesuffix("&")
    assert literal == query + body
    if pem:
        key.public_key().verify(base64.b64decode(unquote(signature)), literal.encode())
    else:
        assert signature == hmac.new(b"secret", literal.encode(), hashlib.sha256).hexdigest()
    received = dict(parse_qsl(sent_query, keep_blank_values=True) + parse_qsl(sent_body, keep_blank_values=True))
    received.pop("signature")
    assert list(received) == [name for name, _ in order]
    assert both.isascii()
    for name, value in order:
        if isinstance(value, str):
            assert received[name] == value
        elif isinstance(value, Decimal):
            assert Decimal(received[name]) == value


def test_numbers_are_written_as_they_were_rounded() -> None:
    assert (
        encode({"a": Decimal("0.00001"), "b": Decimal("1E-7"), "c": Decimal("5E+3")}) == "a=0.00001&b=0.0000001&c=5000"
    )
    with pytest.raises(TypeError, match="Decimal"):
        encode({"price": 0.1})  # type: ignore[dict-item]


def _pem(key: Ed25519PrivateKey, password: bytes | None = None) -> str:
    hidden = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden).decode()


def test_ed25519_by_the_standards_vector() -> None:
    """RFC 8032, 7.1, test 3."""
    secret = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    expected = (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    key = Ed25519PrivateKey.from_private_bytes(secret)
    for signer in (Ed25519Signer(_pem(key)), Ed25519Signer(_pem(key, b"word"), "word")):
        message = bytes.fromhex("af82").decode("latin-1").encode("latin-1")
        assert key.sign(message).hex() == expected
        assert base64.b64decode(signer.sign(ORDER)) == key.sign(ORDER.encode())


def test_a_secret_in_pem_is_an_ed25519_key() -> None:
    key = Ed25519PrivateKey.generate()
    assert isinstance(Credentials("key", _pem(key)).signer, Ed25519Signer)
    assert isinstance(Credentials("key", "secret").signer, HmacSigner)


def test_nothing_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    pem = _pem(Ed25519PrivateKey.generate())
    inner = pem.splitlines()[1]
    for secret in (FUTURES, pem):
        credentials = Credentials(FUTURES_KEY, secret)
        shown = [repr(credentials), str(credentials), repr(credentials.signer), f"{credentials.__class__.__name__}"]
        shown += [repr({"holder": credentials}), credentials.account()]
        with caplog.at_level(logging.DEBUG):
            logging.getLogger("x").info("with %s and %r", credentials, credentials.signer)
        shown.append(caplog.text)
        for each in (credentials, credentials.signer):
            assert not hasattr(each, "__dict__")
            with pytest.raises(TypeError) as caught:
                pickle.dumps(each)
            shown.append(str(caught.value))
        for text in shown:
            assert FUTURES_KEY not in text
            assert FUTURES not in text
            assert inner not in text


@pytest.mark.parametrize("wrong", ["", FUTURES + "\n", " " + FUTURES, FUTURES + "é", "a b"])
def test_a_key_that_was_copied_wrongly_is_refused_without_being_shown(wrong: str) -> None:
    for attempt in (lambda: HmacSigner(wrong), lambda: Credentials(wrong, "secret")):
        with pytest.raises(KeyUnusable) as caught:
            attempt()
        assert FUTURES not in "".join(traceback.format_exception(caught.value))


def test_a_pem_that_cannot_be_read_is_refused_without_being_shown() -> None:
    good = _pem(Ed25519PrivateKey.generate(), b"word")
    broken = good.replace(good.splitlines()[1][:12], "AAAAAAAAAAAA")
    for pem, password in ((good, None), (good, "other"), (broken, "word"), ("-----BEGIN X", None)):
        with pytest.raises(KeyUnusable) as caught:
            Ed25519Signer(pem, password)
        text = "".join(traceback.format_exception(caught.value))
        assert all(line not in text for line in pem.splitlines()[1:-1] if len(line) > 8)


def test_an_account_is_named_without_its_key() -> None:
    assert Credentials("key", "a").account() == Credentials("key", "b").account()
    assert Credentials("key", "a").account() != Credentials("other", "a").account()
