"""Peers that vanish without a FIN or RST: the link in a network namespace is taken down.

The kernel of the other side never learns of it, as when a machine loses its power or a NAT its table.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.contract.servers import binary
from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.needs import is_missing, is_not_permitted
from tests.harness.waiting import until, until_async

CLIENTS = 20
# Tests that run beside each other have networks of their own.
NETWORK = 7 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
HERE, THERE = f"10.213.{NETWORK}.1", f"10.213.{NETWORK}.2"
CONNECT = """
import sys, time, websockets.sync.client as ws
held = []
for _ in range(int(sys.argv[2])):
    one = ws.connect(sys.argv[1], open_timeout=20)
    one.send('{"id":1,"connect":{}}')
    one.recv()
    one.send('{"id":2,"subscribe":{"channel":"calm"}}')
    held.append(one)
print("connected", flush=True)
time.sleep(600)
"""


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A network namespace with one link to this one, from HERE to THERE."""
    name = f"wsc{os.getpid()}"
    link = f"{name}a"
    try:
        run("ip", "netns", "add", name)
    except FileNotFoundError:
        is_missing("a network namespace needs Debian's package iproute2")
    except (OSError, subprocess.CalledProcessError):
        is_not_permitted("a network namespace needs root")
    try:
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "b0", "netns", name)
        run("ip", "address", "add", f"{HERE}/30", "dev", link)
        run("ip", "link", "set", link, "up")
        run("ip", "-n", name, "address", "add", f"{THERE}/30", "dev", "b0")
        run("ip", "-n", name, "link", "set", "b0", "up")
        yield name
    finally:
        run("ip", "netns", "delete", name)
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)


async def answers(port: int) -> bool:
    """Whether something accepts connections in the namespace."""
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(THERE, port)
        writer.close()
        return True
    return False


def cut(name: str) -> None:
    """Drop every packet from now on; no side sees an error."""
    # An address entry that is gone would make the kernel answer "no route": it is kept.
    run("tc", "-n", name, "qdisc", "add", "dev", "b0", "root", "blackhole")
    run("tc", "qdisc", "add", "dev", f"{name}a", "root", "blackhole")


def heal(name: str) -> None:
    run("tc", "-n", name, "qdisc", "delete", "dev", "b0", "root")
    run("tc", "qdisc", "delete", "dev", f"{name}a", "root")


async def test_clients_that_vanish_are_closed_after_their_pongs_are_missing(tmp_path):
    config = {"client": {"ping_interval": "2s", "pong_timeout": "1s"}}
    with namespace() as name:
        cluster = Cluster(tmp_path, workers=1, config=config)
        words = cluster.command
        cluster.command = lambda: [  # type: ignore[method-assign]
            "0.0.0.0" if word == "127.0.0.1" else word for word in words()
        ]
        async with cluster:
            url = f"ws://{HERE}:{cluster.port}/connection/websocket"
            peers = subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, "-c", CONNECT, url, str(CLIENTS)],
                stdout=subprocess.PIPE,
            )
            try:
                assert peers.stdout is not None
                assert await asyncio.to_thread(peers.stdout.readline) == b"connected\n"
                client = Client(cluster.port, name="calm")
                await client.start()
                got: list[object] = []
                client.subscribe("calm", lambda _, publication: got.append(publication))
                await until(lambda: client.is_whole, 30, "the client is in its channel")
                cut(name)
                # What is written to the vanished peers stays in buffers; the others are served.
                for number in range(50):
                    await client.publish("calm", number)
                await until(lambda: len(got) == 50, 30, "the others are served")
                await cluster.shows("app_active_connections", 1, within=30)
                metrics = await cluster.metrics()
                assert metrics.total("app_connections_closed_total", code="3012") == CLIENTS
                await client.close()
            finally:
                peers.kill()
                peers.wait()


async def test_a_store_that_vanishes_is_noticed_and_used_again_when_it_is_back(tmp_path):
    program = binary("valkey")
    assert program is not None
    with namespace() as name:
        port = 6399
        store = subprocess.Popen(
            [
                *("ip", "netns", "exec", name, program, "--port", str(port), "--bind", THERE),
                *("--protected-mode", "no", "--save", "", "--dir", str(tmp_path)),
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            # A worker that finds no store when it boots ends, and is started again.
            await until_async(lambda: answers(port), 60, "the store answers")
            cluster = Cluster(
                tmp_path / "run", workers=1, redis_urls=(f"redis://{THERE}:{port}/0",)
            )
            async with cluster:
                client = Client(cluster.port, name="calm")
                await client.start()
                got: list[int] = []
                client.subscribe("calm", lambda _, publication: got.append(publication["data"]))
                await until(lambda: client.is_whole, 30, "the client is in its channel")
                cut(name)

                async def is_away() -> bool:
                    return not await cluster.is_ready()

                await until_async(is_away, 60, "the cluster is not ready")
                heal(name)
                await until_async(cluster.is_ready, 60, "the cluster is ready again")
                deadline = time.monotonic() + 60
                while not got:
                    assert time.monotonic() < deadline, "a publication arrives"
                    with contextlib.suppress(Exception):
                        await client.publish("calm", 1)
                    await asyncio.sleep(0.1)
                assert client.history.attempts == 1
                assert (await cluster.metrics()).total("app_worker_exits_total") == 0
                await client.close()
        finally:
            store.kill()
            store.wait()
