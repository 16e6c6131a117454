"""The disk below the data directory fills up: publishes are refused, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from tests.harness.client import Client, ReplyError
from tests.harness.cluster import Cluster
from tests.harness.small_disk import fill, small_disk
from tests.harness.waiting import until, until_async


async def test_a_full_disk_refuses_publishes_and_is_over_when_there_is_room_again(tmp_path):
    with small_disk(tmp_path / "disk", 32 << 20) as disk:
        cluster = Cluster(disk / "run", workers=1)
        await cluster.start(within=120)
        try:
            await check(cluster, disk)
            assert await cluster.stop(within=60) == 0
        finally:
            await cluster.stop()


async def check(cluster, disk):
    client = Client(cluster.port, name="calm")
    await client.start()
    got: list[int] = []
    client.subscribe("calm", lambda _, publication: got.append(publication["data"]["n"]))
    await until(lambda: client.is_whole, 30, "the client is in its channel")
    acknowledged: list[int] = []
    number = 0

    async def publish() -> bool:
        nonlocal number
        number += 1
        try:
            await client.publish("calm", {"n": number, "filler": "x" * 4000})
        except ReplyError as error:
            refused.append(str(error))
            return False
        acknowledged.append(number)
        return True

    refused: list[str] = []
    assert await publish()
    filler = fill(disk)
    deadline = time.monotonic() + 60
    while await publish():
        assert time.monotonic() < deadline, "a publish is refused"
    assert (await cluster.get("/metrics")).status == 200
    workers = [worker.pid for worker in cluster.workers()]
    # What is logged while the disk is full is dropped and counted.
    for _ in range(3):
        assert not await publish()
    # One more worker, and a new nginx: neither needs room on the disk of the data directory.
    cluster.signal(signal.SIGTTIN)
    await cluster.shows("app_workers_alive", 2, 60)
    ends = len(client.history.ends)
    os.kill(cluster.child("nginx"), signal.SIGKILL)

    async def is_served() -> bool:
        with contextlib.suppress(OSError):
            return (await cluster.get("/health", port=cluster.port)).status == 200
        return False

    await until_async(is_served, 60, "a new nginx serves")
    # Without room no session can be made: connects are answered 100, and clients try again.
    filler.unlink()
    await until(lambda: len(client.history.ends) > ends, 60, "the old nginx's connection is over")
    await until(lambda: client.is_whole, 60, "the client is back")
    deadline = time.monotonic() + 60
    while not await publish():
        assert time.monotonic() < deadline, "publishes are accepted again"
        await asyncio.sleep(0.1)
    await until(lambda: set(acknowledged) <= set(got), 30, "what was acknowledged arrives")
    assert {worker.pid for worker in cluster.workers()} > set(workers)
    # One publish is refused by its cause, the next ones wait for nothing.
    assert all(text.startswith("100") for text in refused), refused

    async def counted() -> bool:
        return (await cluster.metrics()).total("app_errors_total", type="broker") >= len(refused)

    await until_async(counted, 10, "every refusal is counted")
    await client.close()
