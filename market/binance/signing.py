"""How a request is signed, and who signs it.

The venue signs the literal bytes that it receives: the raw query string followed by the raw body, nothing in between.
So parameters are percent-encoded first (UTF-8, since some symbols are not ASCII), signed as they will be sent, and the
signature comes last. Nothing here shows a key: not in a `repr`, not in an error.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from decimal import Decimal
from typing import NoReturn, Protocol
from urllib.parse import quote, urlencode

from market.binance.errors import KeyUnusable

Value = str | int | bool | Decimal
Parameters = Mapping[str, Value]
"""What a request says, in the order in which it is sent. Numbers that are not whole are `Decimal` or text, never
float: a quantity must reach the venue as it was rounded."""

_PEM = "-----BEGIN"


class Signer(Protocol):
    """Signs payloads with a key that it shows to nobody."""

    def sign(self, payload: str) -> str:
        """The signature of `payload` as the venue expects it, before percent-encoding."""


class _Silent:
    """Whoever holds a secret: it cannot be printed, and not be written to a file either."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret and is not to be pickled")


class HmacSigner(_Silent):
    """HMAC-SHA256 in hexadecimal, for keys that came with a secret.

    >>> HmacSigner("secret")
    <HmacSigner>
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        _check("secret", secret)
        self._secret = secret.encode()

    def sign(self, payload: str) -> str:
        """64 hexadecimal digits."""
        return hmac.new(self._secret, payload.encode(), hashlib.sha256).hexdigest()


class Ed25519Signer(_Silent):
    """Ed25519 in base64, for keys that were made by their owner.

    The venue documents this for its other interfaces and its own SDK uses it here too.

    Parameters
    ----------
    pem: the private key, PKCS#8 in PEM.
    password: what the PEM is encrypted with, if it is.

    Raises `KeyUnusable` for anything else, and when the package `cryptography` is not installed.
    """

    __slots__ = ("_key",)

    def __init__(self, pem: str, password: str | None = None) -> None:
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            from cryptography.hazmat.primitives.serialization import load_pem_private_key
        except ImportError:
            raise KeyUnusable("an Ed25519 key needs the package cryptography, which is not installed") from None
        try:
            key = load_pem_private_key(pem.encode(), None if password is None else password.encode())
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The library's message may say what it read, so it is not passed on.
            raise KeyUnusable("the private key is no PEM that can be read, or its password is wrong") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable("the private key is not an Ed25519 key")
        self._key = key

    def sign(self, payload: str) -> str:
        """88 characters of base64."""
        return base64.b64encode(self._key.sign(payload.encode())).decode()


class Credentials(_Silent):
    """A key and who signs for it.

    Parameters
    ----------
    api_key: the venue's name for the key.
    secret: the HMAC secret, or an Ed25519 private key in PEM, which is told by its first line.
    """

    __slots__ = ("_api_key", "signer")

    def __init__(self, api_key: str, secret: str) -> None:
        _check("key", api_key)
        self._api_key = api_key
        self.signer: Signer = Ed25519Signer(secret) if secret.lstrip().startswith(_PEM) else HmacSigner(secret)

    def headers(self) -> dict[str, str]:
        """What tells the venue whose request it is. Made anew for each request, and kept nowhere."""
        return {"X-MBX-APIKEY": self._api_key}

    def account(self) -> str:
        """A name for files that belong to this key's account; the key cannot be told from it."""
        return hashlib.sha256(b"perpforge account " + self._api_key.encode()).hexdigest()[:16]


def encode(parameters: Parameters) -> str:
    """The parameters as a query string or form body, in their order.

    >>> encode({"symbol": "测试USDT", "price": Decimal("1E+2"), "reduceOnly": True})
    'symbol=%E6%B5%8B%E8%AF%95USDT&price=100&reduceOnly=true'
    """
    return urlencode([(name, text(value)) for name, value in parameters.items()], quote_via=quote, safe="")


def text(value: Value) -> str:
    """One value as the venue reads it; a `TypeError` for a float, which would not reach it as it was rounded."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, str | int):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be a parameter: use Decimal")


def signed(query: str, body: str, signer: Signer) -> tuple[str, str]:
    """Query and body, both encoded, with the signature as the last parameter of the two.

    >>> signed("symbol=A", "", HmacSigner("secret"))[0][:27]
    'symbol=A&signature=b6c1e83b'
    """
    last = "signature=" + quote(signer.sign(query + body), safe="")
    if body:
        return query, f"{body}&{last}"
    return f"{query}&{last}" if query else last, body


def _check(what: str, value: str) -> None:
    """Refuse what was copied with a blank or a line break: it would fail later, and show itself in the failure."""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise KeyUnusable(f"the {what} is empty or has characters that no {what} has (a line break at its end?)")
