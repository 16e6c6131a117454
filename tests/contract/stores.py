"""What the contract tests run on: a store of one kind, workers that use it, and what they received."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

import orjson

from cluster.broker import Broker, ConditionalResult, HistoryPolicy, PublishCondition
from cluster.broker.loss_check import LossCheck
from cluster.broker.redis_broker import RedisBroker
from cluster.errors import StoreError
from cluster.metrics.counters import Counters
from cluster.presence import PresenceStore
from cluster.presence.redis_presence import RedisPresence
from cluster.protocol import Position, Publication
from cluster.resp.router import Router
from cluster.sessions import Session, Sessions
from cluster.sessions.redis_sessions import RedisSessions
from cluster.sessions.statistics import SessionStatistics
from tests.contract.fake_presence import MemoryPresence
from tests.contract.fake_sessions import MemorySessions
from tests.contract.fakes import MemoryBroker, MemoryStore
from tests.contract.servers import Server

TIMEOUT_SECONDS = 2.0
WAIT_SECONDS = 10.0

KEEP = HistoryPolicy(100, 60_000, 600_000)
FORGET = HistoryPolicy(0, 0, 600_000)


class Recorder:
    """Records what a broker and sessions deliver, and can be waited on."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Publication]] = []
        self.resumptions: list[str] = []
        self.events: list[tuple[str, bytes]] = []
        self.changes: list[tuple[str, int, Any, tuple[str, ...]]] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def publications(self, channel: str, publications: list[Publication]) -> None:
        self.received += [(channel, publication) for publication in publications]
        self._notify()

    def joins_and_leaves(self, channel: str, events: list[bytes]) -> None:
        self.events += [(channel, event) for event in events]
        self._notify()

    def resumed(self, channel: str) -> None:
        self.resumptions.append(channel)
        self._notify()

    def session_changed(self, session: Session) -> None:
        state = orjson.loads(session.state)
        self.changes.append((session.id, session.version, state, session.channels))
        self._notify()

    def _notify(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until something received makes the condition true."""
        async with asyncio.timeout(WAIT_SECONDS), self._changed:
            await self._changed.wait_for(is_true)

    def bodies(self, channel: str = "c") -> list[bytes]:
        return [publication.body for name, publication in self.received if name == channel]

    def offsets(self, channel: str = "c") -> list[int]:
        return [publication.offset for name, publication in self.received if name == channel]


class Worker:
    """One worker's broker and sessions, with the recorder of what they deliver."""

    def __init__(
        self,
        recorder: Recorder,
        broker: Broker,
        sessions: Sessions,
        presence: PresenceStore,
        parts: Any = None,
    ) -> None:
        self.recorder = recorder
        self.broker = broker
        self.sessions: Any = sessions
        self.presence = presence
        self.parts = parts

    async def publish(
        self, body: bytes = b'{"data":1}', *, channel: str = "c", history: HistoryPolicy = KEEP
    ) -> Position:
        """Publish and wait for the position.

        Raises:
            StoreError: what the broker said.
        """
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

        def done(reply: Position | StoreError) -> None:
            assert not future.done(), "done is called once"
            if isinstance(reply, StoreError):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.broker.publish(channel, body, history, 1234, done)
        return await asyncio.wait_for(future, WAIT_SECONDS)

    async def publish_conditional(
        self,
        body: bytes = b'{"data":1}',
        *,
        channel: str = "c",
        history: HistoryPolicy = KEEP,
        **condition: Any,
    ) -> ConditionalResult:
        """Publish with a `PublishCondition`; raises as `publish` does."""
        future: asyncio.Future[ConditionalResult] = asyncio.get_running_loop().create_future()

        def done(reply: ConditionalResult | StoreError) -> None:
            assert not future.done(), "done is called once"
            if isinstance(reply, StoreError):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.broker.publish_conditional(
            channel, body, history, 1234, PublishCondition(**condition), done
        )
        return await asyncio.wait_for(future, WAIT_SECONDS)

    async def publish_until_it_works(self, body: bytes, *, channel: str = "c") -> int:
        """Publish until it is accepted; returns how often it was not."""
        refusals = 0
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    await self.publish(body, channel=channel)
                    return refusals
                except StoreError:
                    refusals += 1
                    await asyncio.sleep(0.02)

    async def subscribe(self, channel: str = "c") -> None:
        await asyncio.wait_for(self.broker.subscribe(channel), WAIT_SECONDS)


class MemoryBench:
    """Workers that use the in-memory fake."""

    kind = "memory"

    def __init__(self) -> None:
        self.store = MemoryStore()

    async def worker(
        self, *, ttl: float = 60.0, state_max_size: int = 65536, presence_ttl: float = 60.0
    ) -> Worker:
        recorder = Recorder()
        sessions = MemorySessions(
            self.store, recorder, ttl_seconds=ttl, state_max_size=state_max_size
        )
        presence = MemoryPresence(self.store, ttl_seconds=presence_ttl)
        return Worker(recorder, MemoryBroker(self.store, recorder), sessions, presence)

    async def statistics(self) -> dict[str, float]:
        return self.store.sweep()

    async def break_subscriptions(self) -> None:
        self.store.cut()

    async def streams(self) -> int:
        return len(self.store.streams)

    async def life_of_position(self, channel: str = "c") -> float:
        return self.store.streams[channel].meta_end_ms - time.time() * 1000

    async def forget(self) -> None:
        self.store.streams.clear()

    async def aclose(self) -> None:
        """Nothing is open."""


class RedisParts:
    """One worker's own connections to a server."""

    def __init__(
        self, urls: list[str], prefix: str, recorder: Recorder, counters: Counters
    ) -> None:
        self.router = Router(
            urls,
            timeout_seconds=TIMEOUT_SECONDS,
            on_commands_up=lambda shard: self.loss_check.connected(shard),
        )
        self.subscriptions = self.router.subscriptions
        self.counters = counters
        self.broker = RedisBroker(
            self.router, self.subscriptions, prefix=prefix, listener=recorder, counters=counters
        )
        self.loss_check = LossCheck(self.broker, counters, timeout_seconds=TIMEOUT_SECONDS)

    async def aclose(self) -> None:
        await self.loss_check.aclose()
        await self.router.aclose()


class RedisBench:
    """Workers that use real servers; every bench has a prefix of its own, `name` in the configuration."""

    kind = "redis"

    def __init__(
        self,
        servers: list[Server],
        *,
        urls: list[str] | None = None,
        name: str = "",
        database: int = 0,
    ) -> None:
        self.servers = servers
        self.name = name or f"t{secrets.token_hex(4)}"
        self.prefix = f"{self.name}:{database}"
        self._urls = urls or [server.url for server in servers]
        self._parts: list[RedisParts] = []

    async def worker(
        self,
        *,
        ttl: float = 60.0,
        state_max_size: int = 65536,
        urls: list[str] | None = None,
        listens_to_sessions: bool = True,
        presence_ttl: float = 60.0,
    ) -> Worker:
        recorder = Recorder()
        parts = RedisParts(urls or self._urls, self.prefix, recorder, Counters())
        self._parts.append(parts)
        await parts.router.start()
        sessions = RedisSessions(
            parts.router,
            parts.subscriptions,
            prefix=self.prefix,
            ttl_seconds=ttl,
            state_max_size=state_max_size,
            listener=recorder,
        )
        if listens_to_sessions:
            await asyncio.wait_for(sessions.start(), WAIT_SECONDS)
        presence = RedisPresence(parts.router, prefix=self.prefix, ttl_seconds=presence_ttl)
        return Worker(recorder, parts.broker, sessions, presence, parts)

    async def statistics(self) -> dict[str, float]:
        return await SessionStatistics(self._parts[0].router, prefix=self.prefix).read()

    async def break_subscriptions(self) -> None:
        for server in self.servers:
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")

    def key(self, channel: str, part: str) -> str:
        """A key or shard channel of a channel."""
        return f"{{{self.prefix}:c:{channel}}}.{part}"

    async def streams(self) -> int:
        """How many keys there are of channels."""
        return sum(len(server.ask("KEYS", self.key("*", "*"))) for server in self.servers)

    async def life_of_position(self, channel: str = "c") -> float:
        """Milliseconds for which a channel's position is kept."""
        [life] = [server.ask("PTTL", self.key(channel, "meta")) for server in self.servers]
        return float("inf") if life == -1 else life

    async def forget(self) -> None:
        """Delete the stream of channel c."""
        for server in self.servers:
            server.ask("DEL", self.key("c", "meta"), self.key("c", "stream"))

    async def aclose(self) -> None:
        for parts in self._parts:
            await parts.aclose()


Bench = MemoryBench | RedisBench
