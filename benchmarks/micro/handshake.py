"""`python -m benchmarks.micro.handshake`: our acceptor against aiohttp's WebSocketResponse.

Measured is this process's CPU time for each connection: accept, handshake, close. The clients are a
process on the other core. On both sides nothing is done with the connection, so this is the handshake
alone, without session and subscription.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import uvloop
from aiohttp import web

from benchmarks.micro.comparison import Figure, Way, machine, measured, table
from benchmarks.micro.connector import PATH
from benchmarks.paths import LOAD_CORE, REPOSITORY, pin_to_server_core
from cluster import log
from cluster.config import BrokerConfig, ClientConfig, Config, LogConfig
from cluster.metrics.counters import Counters
from cluster.node.node import Node
from cluster.websocket.accept import Acceptor
from cluster.websocket.server import WebSocketServer
from cluster.worker.stores import RedisStores

CONNECTS = 5_000
IN_FLIGHT = 32
ROUNDS = 5

Protocols = Callable[[], asyncio.Protocol]


async def _hold(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    async for _ in response:
        pass
    return response


async def _aiohttp() -> web.Server:
    app = web.Application()
    app.router.add_get(PATH, _hold)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    return runner.server


async def _ours() -> Acceptor:
    # No client gets as far as the store, so it is never connected to.
    config = Config(
        client=ClientConfig(insecure=True, connection_rate_limit=0),
        broker=BrokerConfig(redis_urls=("redis://127.0.0.1:1",)),
    )
    counters = Counters()
    stores = RedisStores(config, counters, name="micro")
    node = Node(
        config, counters, open_broker=stores.open_broker, open_sessions=stores.open_sessions
    )
    server = WebSocketServer(config, node, counters, is_ready=lambda: True)
    return Acceptor(server, await _aiohttp())


async def _connects(factory: Callable[[], Awaitable[Protocols]]) -> float:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(await factory(), "127.0.0.1", 0, backlog=1024)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        begun = time.process_time()
        connector = await asyncio.create_subprocess_exec(
            "taskset", "--cpu-list", str(LOAD_CORE), sys.executable,
            "-m", "benchmarks.micro.connector",
            str(port), str(CONNECTS), str(IN_FLIGHT), cwd=REPOSITORY,
        )  # fmt: skip
        if await connector.wait():
            raise SystemExit("the clients failed")
        # The last connections end after their clients.
        await asyncio.sleep(0.2)
        return (time.process_time() - begun) / CONNECTS * 1e6


def ways() -> list[Way]:
    what = "connect, handshake, close"
    return [
        Way(what, "our acceptor", partial(_connects, _ours)),
        Way(what, "aiohttp.web, WebSocketResponse", partial(_connects, _aiohttp)),
    ]


def measure() -> list[Figure]:
    # As in production: a connection's life is logged on the level debug.
    log.configure(LogConfig(), instance="micro", worker="micro")
    return uvloop.run(measured(ways(), ROUNDS))


if __name__ == "__main__":
    pin_to_server_core()
    print(f"{table(measure())}\n\n{machine()}")
