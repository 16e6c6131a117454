"""Many events that wait for a slow backend: each is with it at once, and other backends do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from aiohttp import web

from cluster.config import AppConfig, Config
from cluster.config.proxy_options import (
    ClientProxies,
    ProxyOptions,
    RpcConfig,
    RpcMethodOptions,
    SwitchedProxyOptions,
)
from cluster.proxy import proxy_application
from tests.harness.waiting import until
from tests.unit.local_worker import Caller, LocalWorker, changed, configured

#: More than the 100 connections that aiohttp allows by default.
MANY = 150


class HeldBackend:
    """Answers connects when it is told to, and calls at once."""

    def __init__(self) -> None:
        self.url = ""
        self.held = self.most_held = 0
        self.released = asyncio.Event()

    async def connect(self, _: web.Request) -> web.Response:
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        await self.released.wait()
        self.held -= 1
        return web.json_response({"result": {"user": "42"}})

    async def call(self, _: web.Request) -> web.Response:
        return web.json_response({"result": {"data": "at once"}})


@contextlib.asynccontextmanager
async def a_held_backend() -> AsyncIterator[HeldBackend]:
    backend = HeldBackend()
    app = web.Application()
    app.router.add_post("/connect", backend.connect)
    app.router.add_post("/rpc", backend.call)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    backend.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield backend
    finally:
        await runner.cleanup()


def proxied(slow: HeldBackend, quick: HeldBackend, concurrency: int) -> Config:
    config = configured(insecure=False)
    connect = SwitchedProxyOptions(f"{slow.url}/connect", 30.0, enabled=True)
    return changed(
        config,
        app=AppConfig(handler_timeout=30.0, handler_concurrency=concurrency),
        client=dataclasses.replace(config.client, proxy=ClientProxies(connect)),
        rpc=RpcConfig(ProxyOptions(f"{quick.url}/rpc", 30.0), RpcMethodOptions(proxy_enabled=True)),
    )


@contextlib.asynccontextmanager
async def a_worker(config: Config) -> AsyncIterator[LocalWorker]:
    async with LocalWorker(config, application=proxy_application(config)).open() as worker:
        yield worker


async def waiting_callers(worker: LocalWorker, number: int) -> list[Caller]:
    callers = [await worker.caller() for _ in range(number)]
    for caller in callers:
        caller.say({"id": 1, "connect": {}})
    return callers


async def test_a_slow_backend_has_all_its_events_at_once_and_delays_no_other_backend():
    async with (
        a_held_backend() as slow,
        a_held_backend() as quick,
        a_worker(proxied(slow, quick, MANY + 1)) as worker,
    ):
        slow.released.set()
        first = await worker.caller()
        await first.connect()
        slow.released.clear()
        callers = await waiting_callers(worker, MANY)
        await until(lambda: slow.held == MANY, 10, f"all {MANY} are with it")
        first.say({"id": 2, "rpc": {"method": "m", "data": {}}})
        assert (await first.reply(2))["rpc"]["data"] == "at once"
        assert slow.held == MANY
        slow.released.set()
        assert all(["connect" in await caller.reply(1) for caller in callers])


async def test_a_backend_never_has_more_events_at_a_time_than_there_are_places():
    async with a_held_backend() as slow, a_worker(proxied(slow, slow, 2)) as worker:
        callers = await waiting_callers(worker, 8)
        await until(lambda: slow.held == 2, 10, "the places are taken")
        slow.released.set()
        assert all(["connect" in await caller.reply(1) for caller in callers])
        assert slow.most_held == 2
