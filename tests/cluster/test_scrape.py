"""A scrape is the whole cluster: summed over workers, through kills and rolls, from both ports."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.harness.cluster import Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.processes import accepted_connections, is_running
from tests.harness.under_load import assert_no_traceback
from tests.harness.waiting import until

SIZE = Size(subscribers=40, channels=4, workers=2, publishes_per_second=20)
COUNTERS = (
    "app_connections_opened_total",
    "app_publications_total",
    "app_messages_total",
    "app_commands_total",
)


def moves(crowd: Crowd) -> int:
    return sum(times * clients for times, clients in crowd.moves(0.0).items())


async def test_scrape_sums_workers(tmp_path: Path):
    async with Cluster(tmp_path / "run", workers=SIZE.workers) as cluster:
        crowd = Crowd(cluster.client_port, SIZE)
        await crowd.gather()
        for channel, client in zip(crowd.channels, crowd.publishers, strict=True):
            assert await crowd.publish_once(client, channel)
        all_clients = len(crowd.clients)
        # Each worker flushes on its own, so no one scrape has to have all of them.
        await cluster.shows("app_active_connections", all_clients)
        await cluster.shows("app_subscriptions", SIZE.subscribers)
        await cluster.shows("app_connections_opened_total", all_clients)
        await cluster.shows("app_commands_total", all_clients, method="connect")
        await cluster.shows("app_commands_total", SIZE.channels, method="publish")
        await cluster.shows("app_workers_alive", SIZE.workers)
        await cluster.shows("app_sessions_tracked", all_clients)
        first = await cluster.shows("app_publications_total", SIZE.channels)
        through_nginx = await cluster.get("/metrics", cluster.port)
        assert through_nginx.status == 200
        assert b"app_active_connections" in through_nginx.body

        victim = cluster.workers()[1]
        held = accepted_connections(victim.pid, victim.slot)
        assert held
        os.kill(victim.pid, signal.SIGKILL)
        await until(lambda: not is_running(victim.pid), 5, "the worker has ended")
        # A client that has not heard of it yet looks like one that is back.
        await until(lambda: moves(crowd) >= held, 30, "its clients have lost their connections")
        await until(lambda: crowd.outside() == [], 30, "its clients are back")
        await cluster.shows("app_active_connections", all_clients)
        moved = moves(crowd)
        opened = "app_connections_opened_total"
        second = await cluster.shows(opened, first.total(opened) + moved)
        for name in COUNTERS:
            assert second.total(name) >= first.total(name), name

        await cluster.roll()
        await until(lambda: crowd.outside() == [], 30, "every client is back")
        third = await cluster.shows("app_active_connections", all_clients)
        for name in COUNTERS:
            assert third.total(name) >= second.total(name), name
        assert third.total("app_connections_closed_total", code="3001") >= all_clients - moved
        await crowd.close()
        await cluster.shows("app_active_connections", 0)
    assert_no_traceback(cluster)
