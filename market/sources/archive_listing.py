"""What the archive holds, by its store's own listing: symbols that are gone today are found there, and nowhere else.

The store answers `GET LISTING?delimiter=/&prefix=…&marker=…` with a ListBucketResult of at most a thousand names.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from itertools import count
from urllib.parse import urlencode

from market.errors import MarketError
from market.sources.archive_download import ATTEMPTS, PAUSE_S, TIMEOUT_S

ARCHIVE_LISTING = "https://s3-ap-northeast-1.amazonaws.com/data.binance.vision"
"""Where the store behind https://data.binance.vision can be listed."""
MOST_BYTES = 1 << 24


class ListingRefused(MarketError):
    """The archive could not be listed, and why: take the venue's present symbols, and know that others are missing."""


def names(listing: str, prefix: str, pause: Callable[[float], None], after: str = "") -> Iterator[str]:
    """The names right below `prefix`, folders with a slash at their end, in order; those behind the name `after`.

    Raises `ListingRefused` for an address that is not http(s), an answer that is none, and a listing without end.
    """
    if not listing.startswith(("http://", "https://")):
        raise ListingRefused(f"{listing!r} is no address of a listing")
    marker = f"{prefix}{after}" if after else ""
    while True:
        page = _page(listing, prefix, marker, pause)
        folders = [each.findtext("{*}Prefix", "") for each in page.iterfind("{*}CommonPrefixes")]
        files = [each.findtext("{*}Key", "") for each in page.iterfind("{*}Contents")]
        found = sorted({*folders, *files} - {prefix})
        yield from (each.removeprefix(prefix) for each in found if each.startswith(prefix))
        if page.findtext("{*}IsTruncated", "false") != "true":
            return
        following = page.findtext("{*}NextMarker") or max(found, default="")
        if following <= marker:
            raise ListingRefused(f"{listing} goes on at {following!r} after {marker!r}")
        marker = following


def _page(listing: str, prefix: str, marker: str, pause: Callable[[float], None]) -> ElementTree.Element:
    url = f"{listing.rstrip('/')}?{urlencode({'delimiter': '/', 'prefix': prefix, 'marker': marker})}"
    for attempt in count(1):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - http or https, see above
                content: bytes = answer.read(MOST_BYTES)
            break
        except urllib.error.HTTPError as error:
            reason = f"{listing} answered {error.code}{_said(error.read(MOST_BYTES))}"
            again = error.code >= 500 or error.code == 429
        except (OSError, http.client.HTTPException) as error:
            reason, again = f"{listing}: {str(error) or type(error).__name__}", True
        if not again or attempt >= ATTEMPTS:
            raise ListingRefused(reason)
        pause(PAUSE_S * 2 ** (attempt - 1))
    page = _parsed(content)
    if page is None or page.tag.rpartition("}")[2] != "ListBucketResult":
        raise ListingRefused(f"{listing} answered with something that is no listing{_said(content)}")
    return page


def _said(content: bytes) -> str:
    """The store's own reason, in brackets, if it gave one."""
    page = _parsed(content)
    code = page.findtext("{*}Code") if page is not None else None
    return f" ({code})" if code else ""


def _parsed(content: bytes) -> ElementTree.Element | None:
    # The parser expands no external entities and bounds the expansion of internal ones.
    try:
        return ElementTree.fromstring(content)  # noqa: S314
    except ElementTree.ParseError:
        return None
