"""SIGTERM: every client is closed with 3001 at a pace, the exit is clean and quick, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.processes import children, family, held, is_running
from tests.harness.store import Store, ask
from tests.harness.under_load import assert_nothing_lost, cluster_under_load, every_size
from tests.harness.waiting import until
from tests.harness.wire import open_wire

CLEAN_EXIT_WITHIN = 4.0


def most_within(times: list[float], window: float) -> int:
    """The largest number of moments that lie within one window."""
    ordered = sorted(times)
    return max(sum(start <= when < start + window for when in ordered) for start in ordered)


def ends(crowd: Crowd, since: float) -> list[float]:
    """When the subscribers' connections ended."""
    return [when for client in crowd.subscribers for when, _ in client.history.ends if when > since]


def exit_of(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait for the exit; its code and time, whatever this process's event loop is busy with."""
    return process.wait(20), time.monotonic()


@pytest.mark.alone
@every_size
async def test_sigterm_drains(tmp_path: Path, size: Size):
    async with cluster_under_load(tmp_path, size) as (cluster, crowd):
        assert cluster.process is not None
        processes = family(cluster.pid)
        for client in crowd.clients:
            client.reconnect_min = 60.0
        started = time.monotonic()
        cluster.signal(signal.SIGTERM)
        code, ended = await asyncio.to_thread(exit_of, cluster.process)
        took = ended - started
        await until(lambda: not any(c.is_connected for c in crowd.clients), 5, "all are closed")
        assert code == 0
        assert dict(crowd.codes(started)) == {3001: len(crowd.clients)}
        assert took < CLEAN_EXIT_WITHIN
        assert [pid for pid in processes if is_running(pid)] == []
        times = ends(crowd, started)
        assert max(times) - min(times) > 1.5, "closing is spread over the drain window"
        # Evenly over 3 s a tenth of the window sees a tenth of the clients; jitter may triple it.
        assert most_within(times, 0.3) <= 0.3 * len(times) + 5
        print(f"\nexit in {took:.2f} s, closing spread over {max(times) - min(times):.2f} s")


@every_size
async def test_a_whole_restart_on_the_same_data_loses_nothing(tmp_path: Path, size: Size):
    # A short drain: the test above covers its pace.
    config = {"shutdown": {"drain_window": 0.5}}
    async with cluster_under_load(tmp_path, size, config=config) as (cluster, crowd):
        await cluster.stop()
        await cluster.start()
        await assert_nothing_lost(crowd, within=60)


@pytest.mark.alone
async def test_what_was_accepted_is_published_before_the_end(tmp_path: Path):
    """The store is stopped when SIGTERM comes, and more is on its way to it than sockets buffer."""
    big = b"x" * 50_000
    # More of them at once, and a client's socket is not read.
    per_client = 2
    config = {
        "shutdown": {"drain_window": 0.2},
        "broker": {"timeout": 20},
        "channel": {"without_namespace": {"history_size": 1000, "history_ttl": "60s"}},
    }
    async with (
        Store(tmp_path / "store") as store,
        Cluster(
            tmp_path / "run", workers=1, has_nginx=False, redis_urls=(store.url,), config=config
        ) as cluster,
    ):
        wires = [await open_wire(cluster.worker_port(0)) for _ in range(200)]
        for wire in wires:
            wire.send_text(b'{"id":1,"connect":{}}')
        await cluster.shows("app_commands_total", len(wires), method="connect")
        with store.paused():
            for wire in wires:
                for number in range(2, 2 + per_client):
                    publish = b'{"id":%d,"publish":{"channel":"kept","data":"%b"}}'
                    wire.send_text(publish % (number, big))
            wanted = per_client * len(wires)
            await cluster.shows("app_commands_total", wanted, method="publish")
            cluster.signal(signal.SIGTERM)
            await until(lambda: all(w.ended.is_set() for w in wires), 20, "the clients are closed")
            assert cluster.is_running, "the worker waits for what it owes the store"
        assert cluster.process is not None
        assert await asyncio.to_thread(cluster.process.wait, 20) == 0
        assert await ask(store.port, "XLEN", "{ws:0:c:kept}.stream") == f":{wanted}\r\n"


@pytest.mark.alone
async def test_a_proxy_that_is_late_still_delivers_the_close_frame(tmp_path: Path):
    """nginx stands still for 2 s of the drain, and then has to pass on what clients sent meanwhile."""
    config = {"shutdown": {"drain_window": 2.0}}
    async with Cluster(tmp_path / "run", workers=2, config=config) as cluster:
        wires = [await open_wire(cluster.client_port) for _ in range(200)]
        for wire in wires:
            wire.send_text(b'{"id":1,"connect":{}}')
        await cluster.shows("app_commands_total", len(wires), method="connect")
        proxies = children(cluster.child("nginx"))
        cluster.signal(signal.SIGTERM)
        await until(lambda: any(wire.ended.is_set() for wire in wires), 10, "the drain has begun")
        with contextlib.ExitStack() as stopped:
            for proxy in proxies:
                stopped.enter_context(held(proxy))
            until_seconds = time.monotonic() + 2.0
            number = 1
            while time.monotonic() < until_seconds:
                number += 1
                for wire in wires:
                    wire.send_text(b'{"id":%d,"history":{"channel":"a"}}' % number)
                await asyncio.sleep(0.25)
        await until(lambda: all(wire.ended.is_set() for wire in wires), 20, "all have ended")
        assert {wire.close_code for wire in wires} == {3001}
