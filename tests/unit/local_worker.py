"""One worker's server, node and hub in this process, on a real socket, with an in-memory store."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar, cast

import orjson
from aiohttp import web

from cluster import api
from cluster.application import Application
from cluster.broker import BrokerListener
from cluster.config import ChannelConfig, ChannelOptions, ClientConfig, Config
from cluster.metrics.counters import Counters
from cluster.node.control import Control
from cluster.node.node import Node
from cluster.sessions import SessionListener
from cluster.websocket.accept import Acceptor
from cluster.websocket.server import WebSocketServer
from cluster.worker import web_app
from tests.contract.fake_presence import MemoryPresence
from tests.contract.fake_sessions import MemorySessions
from tests.contract.fakes import MemoryBroker, MemoryControlBroker, MemoryStore
from tests.harness.wire import Wire, upgrade_request

WITHIN_SECONDS = 10.0
HISTORY = ChannelOptions(history_size=100, history_ttl=60.0)

T = TypeVar("T")


def configured(*, options: ChannelOptions = HISTORY, **client: Any) -> Config:
    """An insecure configuration with history; `client` are options of its client section."""
    return Config(
        client=ClientConfig(**({"insecure": True} | client)),
        channel=ChannelConfig(without_namespace=options),
    )


class _Wire(Wire):
    """uvloop's transports only look like asyncio's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)


class Caller:
    """A client on a socket that can wait for what it receives."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.heard: list[dict[str, Any]] = []
        self.wire: Wire
        self._news = asyncio.Event()

    def on_message(self, opcode: int, payload: bytes) -> None:
        assert opcode == 1, "JSON travels in text frames"
        lines = payload.split(b"\n")
        self.lines += lines
        # Not with orjson, which accepts no lone surrogates.
        self.heard += [json.loads(line) for line in lines]
        self._news.set()

    def on_end(self, code: int | None, reason: str) -> None:
        self._news.set()

    def say(self, *commands: dict[str, Any]) -> None:
        self.wire.send_text(b"\n".join(orjson.dumps(command) for command in commands))

    async def until(self, found: Callable[[], T]) -> T:
        """Wait until something received makes `found` true; returns what it found."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not (result := found()):
                assert not self.wire.ended.is_set() or found(), f"closed {self.wire.close_code}"
                self._news.clear()
                await self._news.wait()
            return result

    async def reply(self, number: int) -> dict[str, Any]:
        """The reply to one command."""
        return await self.until(
            lambda: next((one for one in self.heard if one.get("id") == number), {})
        )

    async def connect(self, **request: Any) -> dict[str, Any]:
        self.say({"id": 1, "connect": request})
        result: dict[str, Any] = (await self.reply(1))["connect"]
        return result

    def pubs(self) -> list[Any]:
        """The data of every publication pushed."""
        pushes = [one["push"] for one in self.heard if "push" in one]
        return [push["pub"]["data"] for push in pushes if "pub" in push]

    async def closed(self) -> tuple[int | None, str]:
        """Wait for the end; returns close code and reason."""
        await asyncio.wait_for(self.wire.ended.wait(), WITHIN_SECONDS)
        return self.wire.close_code, self.wire.close_reason


class LocalWorker:
    """A worker without a process."""

    def __init__(
        self,
        config: Config,
        *,
        store: MemoryStore | None = None,
        rpc_handlers: Mapping[str, Callable[[str, bytes], Any]] | None = None,
        application: Application | None = None,
    ) -> None:
        self.config = config
        self.store = store or MemoryStore()
        self.counters = Counters()
        self.is_ready = True
        self.broker: MemoryBroker
        self.sessions: MemorySessions
        self.node = Node(
            config,
            self.counters,
            open_broker=self._open_broker,
            open_sessions=self._open_sessions,
            rpc_handlers=rpc_handlers,
            application=application,
            presence_store=MemoryPresence(self.store, ttl_seconds=config.client.presence_ttl),
        )
        self.control = Control(
            secrets.token_hex(8),
            self.counters,
            open_broker=lambda listener: MemoryControlBroker(self.store, listener),
            timeout_seconds=config.broker.timeout,
        )
        self.application = application
        self.server = WebSocketServer(
            config, self.node, self.counters, is_ready=lambda: self.is_ready
        )
        self.port = 0
        self.acceptor: Acceptor
        self.faults: list[str] = []
        self.routes: list[web.RouteDef] = []

    def _open_broker(self, listener: BrokerListener) -> MemoryBroker:
        self.broker = MemoryBroker(self.store, listener)
        return self.broker

    def _open_sessions(self, listener: SessionListener) -> MemorySessions:
        self.sessions = MemorySessions(self.store, listener, ttl_seconds=self.config.session.ttl)
        return self.sessions

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[LocalWorker]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.faults.append(str(context)))
        app = web_app.application(self.server)
        app.add_routes(self.routes)
        api.serve(
            app,
            self.config,
            self.node,
            self.control,
            self.counters,
            name="local",
            is_draining=lambda: not self.is_ready,
        )
        if self.application is not None and self.node.application is not None:
            web_app.mount(app, self.application, self.node.application.calls)
        http = web_app.runner(
            app,
            self.server,
            logs_requests=True,
            idle_seconds=self.config.client.stale_close_delay,
            shutdown_seconds=1.0,
        )
        await http.setup()
        await self.control.start()
        assert http.server is not None
        self.acceptor = Acceptor(self.server, http.server)
        listener = await loop.create_server(self.acceptor, "127.0.0.1", 0, backlog=1024)
        self.port = listener.sockets[0].getsockname()[1]
        assert self.node.members is not None
        timers = (
            self.server.ping_clients(),
            self.server.close_overdue(),
            self.node.members.renew(),
        )
        tasks = [loop.create_task(timer) for timer in timers]
        try:
            yield self
            assert not any(task.done() for task in tasks), "the timers go on"
            assert self.faults == []
            assert self.counters.errors["internal"] == 0
        finally:
            listener.close()
            self.server.abort_all()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await http.cleanup()
            await self.control.aclose()

    async def caller(self, *, path: str = "", headers: dict[str, str] | None = None) -> Caller:
        """A client after its handshake."""
        caller = Caller()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WITHIN_SECONDS):
            _, caller.wire = await loop.create_connection(
                lambda: _Wire(caller.on_message, caller.on_end), "127.0.0.1", self.port
            )
            request = upgrade_request("127.0.0.1", f"/connection/websocket{path}", headers)
            caller.wire.send(request)
            await caller.wire.opened
        return caller


def changed(config: Config, **sections: Any) -> Config:
    """The same configuration with other sections."""
    return dataclasses.replace(config, **sections)


# --- steps that many tests share --------------------------------------------------------------

RECOVERABLE = ChannelOptions(history_size=10, history_ttl=60.0, force_recovery=True)


async def entered(worker: LocalWorker, **request: Any) -> Caller:
    caller = await worker.caller()
    await caller.connect(**request)
    return caller


async def ask(caller: Caller, command: str, /, **params: Any) -> dict[str, Any]:
    """Send one command and wait for its reply."""
    number = 1 + max((one.get("id", 1) for one in caller.heard), default=1)
    caller.say({"id": number, command: params})
    return await caller.reply(number)


async def published(caller: Caller, count: int, *, first: int = 1, channel: str = "a") -> None:
    for number in range(first, first + count):
        assert "publish" in await ask(caller, "publish", channel=channel, data=number)
