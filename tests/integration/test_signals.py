"""Signals that operators' tools send: none ends the cluster without a drain."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.waiting import until, until_async

# By default each of them ends a process, and none has a meaning here.
UNUSED = (
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGSTKFLT,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)

SENT = (
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGINT,
    signal.SIGWINCH,
    signal.SIGPWR,
    *UNUSED,
)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGPWR, signal.SIGXCPU])
async def test_it_drains_as_with_term(tmp_path, number):
    """PWR is what an init sends when the power fails, XCPU what `ulimit -t` sends first."""
    cluster = Cluster(tmp_path, workers=1, has_nginx=False)
    await cluster.start()
    client = Client(cluster.worker_port(0), name="calm")
    await client.start()
    cluster.signal(number)
    assert await client.disconnected() == 3001
    await client.close()
    assert cluster.process is not None
    assert await asyncio.to_thread(cluster.process.wait, 30) == 0
    await cluster.stop()


async def test_term_while_a_worker_is_removed_drains_that_one_too(tmp_path):
    async with Cluster(tmp_path, workers=2, has_nginx=False) as cluster:
        clients = [Client(cluster.worker_port(1), name=f"calm{n}") for n in range(20)]
        for client in clients:
            client.reconnect_min = 60.0
            await client.start()
        cluster.signal(signal.SIGTTOU)
        ended = [asyncio.create_task(client.disconnected()) for client in clients]
        await asyncio.wait(ended, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        cluster.signal(signal.SIGTERM)
        assert await asyncio.gather(*ended) == [3001] * len(clients)
        assert cluster.process is not None
        assert await asyncio.to_thread(cluster.process.wait, 30) == 0
        for client in clients:
            await client.close()


async def test_usr1_opens_the_logs_of_all_processes_again_and_usr2_is_only_mentioned(tmp_path):
    async with Cluster(tmp_path, workers=1, config={"log": {"level": "debug"}}) as cluster:
        family = {worker.pid for worker in cluster.workers()}
        log = tmp_path / "data/log"
        for name in ("app.log", "access.log"):
            (log / name).rename(log / f"{name}.1")
        cluster.signal(signal.SIGUSR1)
        await until(lambda: (log / "access.log").exists(), 10, "nginx has opened its log again")
        cluster.signal(signal.SIGUSR2)

        async def are_written() -> bool:
            # nginx writes what waits every 5 s.
            await cluster.get("/connection/websocket", port=cluster.port)
            await cluster.get("/nowhere", port=cluster.worker_port(0))
            return all(
                word in _text(log / name)
                for name, word in (
                    ("access.log", "/connection/websocket"),
                    ("app.log", "logs_reopened"),
                    ("app.log", "signal_ignored"),
                    ("app.log", '"worker": "w0a"'),
                )
            )

        await until_async(are_written, 30, "all processes write to the new files")
        assert {worker.pid for worker in cluster.workers()} == family


async def test_no_signal_without_a_meaning_ends_the_cluster(tmp_path):
    async with Cluster(tmp_path, workers=1, has_nginx=False) as cluster:
        client = Client(cluster.worker_port(0), name="calm")
        await client.start()
        family = {worker.pid for worker in cluster.workers()}
        log = tmp_path / "data/log/app.log"
        # The log has only the first few of a burst, so this one is sent before the others.
        cluster.signal(signal.SIGRTMIN + 3)
        await until(lambda: '"SIGRTMIN+3"' in _text(log), 10, "it is mentioned")
        for number in UNUSED:
            cluster.signal(number)
        await until(lambda: _text(log).count('"signal_ignored"') > 1, 10, "others are mentioned")
        assert cluster.process is not None
        assert cluster.process.poll() is None
        assert {worker.pid for worker in cluster.workers()} == family
        assert client.history.attempts == 1
        await client.close()


async def test_no_signal_sent_to_a_worker_drops_its_clients(tmp_path):
    """`pkill -f ws-cluster` and the like reach the workers too."""
    async with Cluster(tmp_path, workers=1, has_nginx=False) as cluster:
        client = Client(cluster.worker_port(0), name="calm")
        await client.start()
        (worker,) = cluster.workers()
        for number in SENT:
            os.kill(worker.pid, number)
        got: list[object] = []
        client.subscribe("calm", lambda _, publication: got.append(publication))
        await until(lambda: client.is_whole, 10, "the client is in its channel")
        await client.publish("calm", "still here")
        await until(lambda: bool(got), 10, "the worker serves")
        assert [one.pid for one in cluster.workers()] == [worker.pid]
        assert client.history.attempts == 1
        await client.close()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
