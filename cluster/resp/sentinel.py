"""The master that Sentinel names, asked by redis-py.

Rules: the sentinels are asked in turn and the first that knows the master is believed, as redis-py
does it; one that cannot be asked, whatever the reason, does not hide the next. Sentinel tells its clients
nothing by itself, and a demoted master may accept connections again, so the question is repeated every
`recheck_seconds`.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, RedisError

from cluster.config.sentinel_url import SentinelAddress
from cluster.errors import StoreDenied, StoreUnavailable
from cluster.resp.discovery import SLOTS, Master
from cluster.resp.shard import Shard

#: Of a question to a sentinel; redis-py meets the last four in an answer of another shape.
_FAILURES: Final = (RedisError, OSError, ValueError, TypeError, LookupError, AttributeError)


class _Attempts(Retry):
    """As many and as far apart as redis-py makes them, which takes a refusal for a broken connection.

    A password or a certificate that is refused would be refused again.
    """

    def __init__(self) -> None:
        super().__init__(ExponentialWithJitterBackoff(base=0.01, cap=1), retries=10)

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[Any]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> Any:
        def may_pass(error: Exception) -> bool:
            is_refusal = isinstance(error, AuthenticationError) or isinstance(
                error.__context__, ssl.SSLError
            )
            return not is_refusal and (is_retryable is None or is_retryable(error))

        return await super().call_with_retry(do, fail, may_pass, with_failure_count)


class SentinelDiscovery:
    """One master with its replicas, watched by Sentinel."""

    can_change = True

    def __init__(
        self, address: SentinelAddress, *, timeout_seconds: float, recheck_seconds: float = 1.0
    ) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self.recheck_seconds: float | None = recheck_seconds

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "socket_timeout": self._timeout_seconds,
            "socket_connect_timeout": self._timeout_seconds,
            "retry": _Attempts(),
        }
        if self._address.password:
            options["username"] = self._address.username or None
            options["password"] = self._address.password
        if self._address.master.tls:
            given = self._address.master.tls_options
            options["ssl"] = True
            options.update({n: list(v) if isinstance(v, tuple) else v for n, v in given})
        return options

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        failures: list[Exception] = []
        for number in range(len(self._address.sentinels)):
            try:
                async with self._asked(number) as sentinel:
                    host, port = await sentinel.discover_master(self._address.name)
                return [Master(self._address.master.at(str(host), int(port)), (range(SLOTS),))]
            except _FAILURES as error:
                failures.append(error)
        reasons = [await self._reason(number, error) for number, error in enumerate(failures)]
        text = "; ".join(why for why, _ in reasons)
        is_denied = all(is_denial for _, is_denial in reasons)
        raise (StoreDenied if is_denied else StoreUnavailable)(
            f"Sentinel names no master {self._address.name}: {text}"
        )

    @contextlib.asynccontextmanager
    async def _asked(self, number: int) -> AsyncIterator[Sentinel]:
        """One of the sentinels, as redis-py asks them."""
        place = self._address.sentinels[number]
        sentinel = Sentinel([place], sentinel_kwargs=self._options())  # type: ignore[no-untyped-call]
        try:
            yield sentinel
        finally:
            await sentinel.sentinels[0].aclose()

    async def _reason(self, number: int, error: Exception) -> tuple[str, bool]:
        """Why one of the sentinels has named no master, and whether it refuses the password."""
        host, port = self._address.sentinels[number]
        if isinstance(error, MasterNotFoundError):
            # Its text names redis-py's own objects, and of a failure only the class.
            try:
                async with self._asked(number) as sentinel:
                    known = await sentinel.sentinels[0].sentinel_masters()
            except _FAILURES as failure:
                error = failure
            else:
                if self._address.name in known:
                    return f"{host}:{port} says that it is down", False
                return f"{host}:{port} knows {', '.join(map(str, known)) or 'none'}", False
        return f"{host}:{port}: {_text(error)}", isinstance(error, AuthenticationError)


def _text(error: Exception) -> str:
    if isinstance(error, RedisError | OSError | UnicodeError):
        return str(error)
    return f"its answer is none of Sentinel ({error})"
