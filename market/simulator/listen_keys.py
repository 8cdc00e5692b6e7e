"""Listen keys: who may hear an account's events, and until when."""

from __future__ import annotations

import hashlib

from market.simulator.venue.refusals import Refusal

LIFETIME_MS = 60 * 60_000


class ListenKeys:
    """One key an account at a time. Times are the venue's, ms UTC.

    >>> keys = ListenKeys(seed=1)
    >>> key = keys.start("api", 0)
    >>> keys.owner(key), keys.start("api", 5) == key, keys.expired(5 + LIFETIME_MS) == [("api", key)]
    ('api', True, True)

    Parameters
    ----------
    seed: makes the keys of one exchange differ from those of another.
    lifetime_ms: how long a key lives without being kept alive; None for ever.
    """

    def __init__(self, seed: int = 0, lifetime_ms: int | None = LIFETIME_MS) -> None:
        self._seed, self._lifetime_ms = seed, lifetime_ms
        self._keys: dict[str, tuple[str, int]] = {}
        self._made = 0

    def start(self, account: str, now_ms: int) -> str:
        """The account's key, made if there is none; it lives on from now."""
        key = self._keys[account][0] if account in self._keys else self._make(account)
        self._keys[account] = (key, now_ms)
        return key

    def keep_alive(self, account: str, now_ms: int) -> str:
        """Let the account's key live on: -1125 if it has none."""
        if account not in self._keys:
            raise Refusal(-1125)
        return self.start(account, now_ms)

    def close(self, account: str) -> None:
        """Forget the account's key."""
        self._keys.pop(account, None)

    def owner(self, key: str) -> str | None:
        """The account that a key belongs to, if it lives."""
        return next((account for account, (found, _) in self._keys.items() if found == key), None)

    def expired(self, now_ms: int, *, all_of_them: bool = False) -> list[tuple[str, str]]:
        """Accounts and keys that have come to their end, which are forgotten."""
        ended = [
            (account, key)
            for account, (key, since) in self._keys.items()
            if all_of_them or (self._lifetime_ms is not None and now_ms - since >= self._lifetime_ms)
        ]
        for account, _ in ended:
            del self._keys[account]
        return ended

    def _make(self, account: str) -> str:
        self._made += 1
        digest = hashlib.sha256(f"{self._seed}|{account}|{self._made}".encode()).hexdigest()
        return digest[:64]
