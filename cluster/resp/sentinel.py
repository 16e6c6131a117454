"""The master that Sentinel names, asked by redis-py.

Rules
- A sentinel is asked once per question, and the first answer that names the master is believed. The next
  one is asked when one has failed, or has not answered for its share of half the time. So the first of
  those that answer decides, and one that hangs, or cannot be asked, does not hide the next.
- A question takes `_QUESTION_SECONDS` at most, whatever the timeout of the store.
- Sentinel tells its clients nothing by itself, and a demoted master may accept connections again, so the
  question is repeated every `recheck_seconds`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final, cast

from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from cluster.config.sentinel_url import SentinelAddress
from cluster.errors import StoreDenied, StoreUnavailable
from cluster.resp.discovery import SLOTS, Master
from cluster.resp.shard import Shard

_QUESTION_SECONDS: Final = 2.0
#: Of a question to a sentinel; redis-py meets the last four in an answer of another shape.
_FAILURES: Final = (RedisError, OSError, ValueError, TypeError, LookupError, AttributeError)


class _NotNamedError(Exception):
    """Why a sentinel has named no master.

    Attributes:
        is_denial: whether it refuses the password.
    """

    def __init__(self, text: str, *, is_denial: bool = False) -> None:
        super().__init__(text)
        self.is_denial = is_denial


class SentinelDiscovery:
    """One master with its replicas, watched by Sentinel."""

    can_change = True

    def __init__(
        self, address: SentinelAddress, *, timeout_seconds: float, recheck_seconds: float = 1.0
    ) -> None:
        self._address = address
        self._seconds = min(timeout_seconds, _QUESTION_SECONDS)
        self.recheck_seconds: float | None = recheck_seconds

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "socket_timeout": self._seconds,
            "socket_connect_timeout": self._seconds,
            # The caller repeats the question, to all of them.
            "retry": Retry(NoBackoff(), retries=0),
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
        asked: list[asyncio.Task[Master]] = []
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    if master := await self._first_named(asked):
                        return [master]
            raise self._refusal(asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _first_named(self, asked: list[asyncio.Task[Master]]) -> Master | None:
        """The first answer that names a master, None if there will be none; `asked` gets the questions."""
        places = self._address.sentinels
        for number in range(len(places)):
            asked.append(asyncio.create_task(self._ask(number), name="sentinel"))
            await _wait_any(asked, self._seconds / 2 / len(places))
            if master := _named(asked):
                return master
        while await _wait_any(asked, None):
            if master := _named(asked):
                return master
        return None

    async def _ask(self, number: int) -> Master:
        """Ask one of the sentinels; raises `_NotNamedError`."""
        host, port = self._address.sentinels[number]
        try:
            return await self._named_at(host, port)
        except _FAILURES as error:
            is_denial = isinstance(error, AuthenticationError)
            raise _NotNamedError(f"{host}:{port}: {_text(error)}", is_denial=is_denial) from None

    async def _named_at(self, host: str, port: int) -> Master:
        name = self._address.name
        options = self._options()
        async with Sentinel([(host, port)], sentinel_kwargs=options) as sentinel:  # type: ignore[no-untyped-call]
            # Not `discover_master`, whose error does not say what the sentinel knows instead.
            masters = await sentinel.sentinels[0].sentinel_masters()
            known = cast(dict[str, Any], masters)  # The stub has a list.
            if name not in known:
                others = ", ".join(map(str, known)) or "none"
                raise _NotNamedError(f"{host}:{port} knows {others}")
            state = known[name]
            if not sentinel.check_master_state(state, name):
                raise _NotNamedError(f"{host}:{port} says that it is down")
            place = self._address.master.at(str(state["ip"]), int(state["port"]))
        return Master(place, (range(SLOTS),))

    def _refusal(self, asked: Sequence[asyncio.Task[Master]]) -> StoreUnavailable:
        """What to say when none of them has named the master."""
        reasons: list[str] = []
        denials = 0
        for number, (host, port) in enumerate(self._address.sentinels):
            is_answered = number < len(asked) and asked[number].done()
            why = asked[number].exception() if is_answered else None
            denials += isinstance(why, _NotNamedError) and why.is_denial
            reasons.append(str(why or f"{host}:{port}: no answer within {self._seconds:g} s"))
        kind = StoreDenied if denials == len(reasons) else StoreUnavailable
        return kind(f"Sentinel names no master {self._address.name}: {'; '.join(reasons)}")


async def _wait_any(asked: Sequence[asyncio.Task[Master]], seconds: float | None) -> bool:
    """Wait until one more of the questions has its answer; returns False if none is open."""
    is_open = [task for task in asked if not task.done()]
    if is_open:
        await asyncio.wait(is_open, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return bool(is_open)


def _named(asked: Sequence[asyncio.Task[Master]]) -> Master | None:
    """The master, if one of the questions has been answered with it; raises what is no reason."""
    for task in asked:
        if task.done() and not isinstance(task.exception(), _NotNamedError):
            return task.result()
    return None


def _text(error: Exception) -> str:
    if isinstance(error, RedisError | OSError | UnicodeError):
        return str(error)
    return f"its answer is none of Sentinel ({error})"
