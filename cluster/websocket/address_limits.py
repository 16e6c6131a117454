"""How many connections one address has, and how fast it opens them; IPv6 counts by /64.

Behind the embedded nginx this counts what one worker sees; nginx counts for all workers together.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from cluster.addresses import Network, address_key, client_address
from cluster.config import ClientConfig

#: Attempts are counted per second for so many addresses; beyond, the oldest are forgotten.
_MOST_ADDRESSES: Final = 65_536


class Refusal(NamedTuple):
    """Why a handshake is refused: the HTTP status, the reason in the metric, and a sentence."""

    status: HTTPStatus
    reason: str
    text: str


class AddressLimits:
    """Counts the connections of each address.

    Args:
        trusted: proxies whose X-Forwarded-For is believed.

    Attributes:
        is_on: whether there is a limit; if not, no address is looked at.
    """

    def __init__(self, options: ClientConfig, trusted: Sequence[Network]) -> None:
        self._limit = options.connection_limit_per_address
        self._rate = options.connection_rate_limit_per_address
        self._trusted = trusted
        self._connections: dict[str, int] = {}
        self._attempts: dict[str, tuple[int, int]] = {}
        self.is_on = bool(self._limit or self._rate)

    def key(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """What the address of a client is counted by."""
        return address_key(client_address(peer, forwarded_for, self._trusted))

    def refusal(self, key: str, now: float) -> Refusal | None:
        """Count an attempt; returns why it must be refused, or None."""
        if self._rate and not self._may_try(key, int(now)):
            text = f"an address may open {self._rate} connections per second"
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "connection_rate_limit_per_address", text)
        if self._limit and self._connections.get(key, 0) >= self._limit:
            text = f"an address may have {self._limit} connections"
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "connection_limit_per_address", text)
        return None

    def _may_try(self, key: str, second: int) -> bool:
        attempts = self._attempts
        since, count = attempts.pop(key, (second, 0))
        if since != second:
            count = 0
        if len(attempts) >= _MOST_ADDRESSES:
            del attempts[next(iter(attempts))]
        # At the end, so that the first is the one that was quiet for longest.
        attempts[key] = (second, count + 1)
        return count < self._rate

    def opened(self, key: str) -> None:
        """Count a connection."""
        if self._limit:
            self._connections[key] = self._connections.get(key, 0) + 1

    def closed(self, key: str) -> None:
        """A connection that was counted has ended."""
        left = self._connections.get(key, 0) - 1
        if left > 0:
            self._connections[key] = left
        else:
            self._connections.pop(key, None)
