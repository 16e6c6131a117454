"""A publication and a connect are to be followed by a reader in few files: here is which ones they are.

What counts is code of `cluster` that runs, on a real server; counting, logging, errors, configuration and
the stand-in for `asyncio.timeout` are not steps of the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import cluster
from cluster.config import BrokerConfig
from cluster.metrics.counters import Counters
from cluster.node.node import Node
from cluster.websocket.accept import Acceptor
from cluster.websocket.server import WebSocketServer
from cluster.worker import web_app
from cluster.worker.stores import RedisStores
from tests.architecture.tree import ROOT
from tests.contract.stores import RedisBench
from tests.harness.waiting import until
from tests.harness.wire import upgrade_request
from tests.unit.local_worker import HISTORY, Caller, _Wire, ask, configured

PACKAGE = Path(cluster.__file__).parent
ASIDE = ("metrics/", "log.py", "errors.py", "config/", "shared_timeout.py")
PAGE = ROOT / "docs/topics/life-of-a-message.md"
MOST_FILES = 9
WITHIN = 10.0


def documented(walk: str) -> list[str]:
    """The files of a walk as docs/topics/life-of-a-message.md lists them."""
    blocks = re.findall(r"(?ms)^```text\n(.*?)^```", PAGE.read_text(encoding="utf-8"))
    walks = dict(re.findall(r"(?ms)^(\w+) +(.*?)(?=^\w|\Z)", "".join(blocks)))
    return walks[walk].split()


class Steps:
    """The files of `cluster` whose code runs while this is open, in the order of their first line."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(f"{PACKAGE}/"):
            return
        name = name.removeprefix(f"{PACKAGE}/")
        if not name.startswith(ASIDE) and name not in self.files:
            self.files.append(name)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(None)


class OneWorker:
    """A whole worker in this process, without its background tasks."""

    def __init__(self, bench: RedisBench) -> None:
        broker = BrokerConfig(redis_urls=(bench.servers[0].url,), prefix=bench.name)
        self.config = dataclasses.replace(configured(options=HISTORY), broker=broker)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Caller]:
        counters = Counters()
        stores = RedisStores(self.config, counters, name="one")
        self.node = Node(
            self.config,
            counters,
            open_broker=stores.open_broker,
            open_sessions=stores.open_sessions,
        )
        server = WebSocketServer(self.config, self.node, counters, is_ready=lambda: True)
        http = web_app.runner(
            web_app.application(server),
            server,
            logs_requests=False,
            idle_seconds=5.0,
            shutdown_seconds=1.0,
        )
        await http.setup()
        assert http.server is not None
        await stores.start()
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(Acceptor(server, http.server), "127.0.0.1", 0)
        caller = Caller()
        _, caller.wire = await loop.create_connection(
            lambda: _Wire(caller.on_message, caller.on_end),
            "127.0.0.1",
            listener.sockets[0].getsockname()[1],
        )
        caller.wire.send(upgrade_request("127.0.0.1", "/connection/websocket", None))
        await asyncio.wait_for(asyncio.shield(caller.wire.opened), WITHIN)
        try:
            yield caller
        finally:
            listener.close()
            server.abort_all()
            await http.cleanup()
            await stores.aclose()


async def test_a_publication_is_followed_up_in_nine_files(own: RedisBench):
    steps = Steps()
    async with OneWorker(own).open() as caller:
        await caller.connect()
        # The first publish of a script may have to load it.
        await ask(caller, "publish", channel="a", data=1)
        with steps.watched():
            await ask(caller, "publish", channel="a", data=2)
    assert len(steps.files) <= MOST_FILES, steps.files
    assert sorted(steps.files) == sorted(documented("up"))


async def test_a_publication_is_followed_down_in_nine_files(own: RedisBench):
    steps = Steps()
    worker = OneWorker(own)
    async with worker.open() as caller:
        await caller.connect()
        await ask(caller, "subscribe", channel="a")
        heard = len(caller.heard)
        broker = worker.node.channels.broker
        policy = worker.node.channels._permissions.history("a")
        done = asyncio.Event()
        broker.publish("a", b'{"data":1}', policy, 0, lambda _: done.set())
        with steps.watched():
            await until(lambda: len(caller.heard) > heard, WITHIN, "the publication has arrived")
    assert len(steps.files) <= MOST_FILES, steps.files
    assert sorted(steps.files) == sorted(documented("down"))


async def test_a_connect_with_a_session_is_followed_in_nine_files(own: RedisBench):
    steps = Steps()
    async with OneWorker(own).open() as caller:
        with steps.watched():
            await caller.connect()
    assert len(steps.files) <= MOST_FILES, steps.files
    assert sorted(steps.files) == sorted(documented("connect"))
