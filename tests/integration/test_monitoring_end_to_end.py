"""Alerts from their cause to their receivers and to their end, with the real programs, in compressed time.

One alert of each severity, one of the infrastructure team, and one that is acknowledged meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.processes import free_ports
from tests.harness.waiting import until_async
from tests.integration.monitoring import Monitoring, text_of

COMPRESS = 15
WITHIN = 90.0
# Alertmanager's group_interval in compressed time: an end is sent within one of them.
GROUP_INTERVAL = 300 / COMPRESS


class Replica:
    """A second replica of the service for Prometheus: a page of metrics that can be stopped."""

    def __init__(self) -> None:
        self.port = free_ports(1)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text="app_workers_alive 1\n")


@asynccontextmanager
async def environment(folder: Path) -> AsyncIterator[tuple[Cluster, Monitoring, Replica]]:
    """A cluster, a second replica and the monitoring."""
    replica = Replica()
    await replica.start()
    try:
        async with Cluster(folder / "cluster", workers=1, has_nginx=False) as cluster:
            apps = (cluster.admin_port, replica.port)
            async with Monitoring(folder, apps=apps, compress=COMPRESS) as monitoring:
                yield cluster, monitoring, replica
    finally:
        await replica.stop()


def assert_slack(entry: dict[str, Any], *, channel: str, icon: str, is_firing: bool) -> None:
    document = entry["document"]
    assert document["channel"] == channel
    assert document["icon_emoji"] == icon
    [attachment] = document["attachments"]
    assert attachment["fallback"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/runbooks/[A-Za-z]+\.md", attachment["title_link"])
    assert attachment["text"]
    assert attachment["color"] == ("danger" if is_firing else "good")


def assert_trigger(entry: dict[str, Any], alert: str) -> None:
    event = entry["document"]
    labels = f'alertname="{alert}", severity="critical", team="websocket"'
    group_key = f'{{}}/{{severity="critical"}}:{{{labels}}}'
    assert event["dedup_key"] == hashlib.sha256(group_key.encode()).hexdigest()
    assert event["routing_key"]
    payload = event["payload"]
    assert payload["summary"].startswith(f"{alert}: ")
    assert payload["severity"] == "critical"
    assert payload["source"]
    assert payload["custom_details"]


async def info(monitoring: Monitoring) -> None:
    """The start of the cluster was a deployment: it fires for a while and ends by itself."""
    for title, is_firing in ((r"\[FIRING:1\]", True), (r"\[RESOLVED\]", False)):
        entry = await monitoring.arrives("slack", "DeploymentCompleted", title, WITHIN)
        assert_slack(entry, channel="#websocket-alerts", icon=":warning:", is_firing=is_firing)
    assert await monitoring.received("pagerduty", "DeploymentCompleted") == []


async def infrastructure(monitoring: Monitoring) -> None:
    """A node_exporter that hangs: the service's team and the infrastructure team are both notified."""
    receivers = (("#infrastructure-alerts", ":gear:"), ("#websocket-alerts", ":warning:"))
    node = monitoring.child("node_exporter")
    os.kill(node, signal.SIGSTOP)
    try:
        for channel, icon in receivers:
            entry = await monitoring.arrives(
                "slack", "NodeExporterDown", rf"{channel} .*\[FIRING", WITHIN
            )
            assert_slack(entry, channel=channel, icon=icon, is_firing=True)
    finally:
        os.kill(node, signal.SIGCONT)
    for channel, icon in receivers:
        entry = await monitoring.arrives(
            "slack", "NodeExporterDown", rf"{channel} .*\[RESOLVED", WITHIN
        )
        assert_slack(entry, channel=channel, icon=icon, is_firing=False)


async def acknowledged(monitoring: Monitoring, replica: Replica) -> dict[str, Any]:
    """A critical alert with an acknowledgement in the middle; returns PagerDuty's first event."""
    assert await monitoring.received("pagerduty", "") == [], "the start does not page"
    after = max((e["id"] for e in await monitoring.received("", "")), default=0)
    await replica.stop()
    trigger = await monitoring.arrives("pagerduty", "ServiceDown", "^trigger", WITHIN, after)
    assert_trigger(trigger, "ServiceDown")
    entry = await monitoring.arrives("slack", "ServiceDown", r"CRITICAL: \[FIRING", WITHIN, after)
    assert_slack(entry, channel="#websocket-oncall", icon=":rotating_light:", is_firing=True)
    done = await monitoring.ask("check-alerts")
    assert done.returncode == 2, done
    done = await monitoring.ask("ack", "ServiceDown", "--note", "on it now", "--author", "ann")
    assert done.returncode == 0, done
    assert done.stderr == ""
    await monitoring.arrives("pagerduty", "ServiceDown", "^acknowledge", WITHIN, after)
    assert "acknowledged" in (await monitoring.ask("check-alerts")).stdout
    await replica.start()
    resolve = await monitoring.arrives("pagerduty", "ServiceDown", "^resolve", WITHIN, after)
    assert resolve["document"]["dedup_key"] == trigger["document"]["dedup_key"]
    return {**trigger, "resolved_at": resolve["at"]}


async def fires_again(monitoring: Monitoring, replica: Replica) -> None:
    """An acknowledged alert fires again: Alertmanager sends nothing, the tracker pages, and repeats."""
    after = max(e["id"] for e in await monitoring.received("", ""))
    await replica.stop()
    entry = await monitoring.arrives("slack", "ServiceDown", "fires again", WITHIN, after)
    assert entry["document"]["channel"] == "#websocket-oncall"
    trigger = await monitoring.arrives("pagerduty", "ServiceDown", "^trigger", WITHIN, after)
    incidents = await monitoring.get("/incidents")
    assert incidents[trigger["document"]["dedup_key"]]["state"] == "triggered"
    assert (await monitoring.ask("check-alerts")).returncode == 2
    assert (await monitoring.ask("silence")).stdout == "nothing is silenced\n"
    await monitoring.arrives("slack", "ServiceDown", "not acknowledged for 2", WITHIN, after)
    await replica.start()


async def warning(monitoring: Monitoring) -> None:
    """Clients that send nothing: throughput is low while they are connected."""
    entry = await monitoring.arrives("slack", "LowMessageThroughput", r"\[FIRING", 2 * WITHIN)
    assert_slack(entry, channel="#websocket-alerts", icon=":warning:", is_firing=True)
    assert await monitoring.received("pagerduty", "LowMessageThroughput") == []


async def critical(monitoring: Monitoring, cluster: Cluster, client: Client) -> Client:
    """The last client leaves: PagerDuty is triggered; another connects: the incident ends everywhere."""
    after = max((e["id"] for e in await monitoring.received("", "")), default=0)
    await client.close()
    trigger = await monitoring.arrives(
        "pagerduty", "NoActiveConnections", "^trigger", WITHIN, after
    )
    assert_trigger(trigger, "NoActiveConnections")
    entry = await monitoring.arrives("slack", "NoActiveConnections", r"CRITICAL: \[FIRING", WITHIN)
    assert_slack(entry, channel="#websocket-oncall", icon=":rotating_light:", is_firing=True)
    back = await Client(cluster.client_port).start()
    entry = await monitoring.arrives(
        "slack", "NoActiveConnections", r"\[RESOLVED\]", WITHIN, trigger["id"]
    )
    assert_slack(entry, channel="#websocket-oncall", icon=":rotating_light:", is_firing=False)
    resolve = await monitoring.arrives(
        "pagerduty", "NoActiveConnections", "^resolve", WITHIN, after
    )
    assert resolve["document"]["dedup_key"] == trigger["document"]["dedup_key"]
    entry = await monitoring.arrives("slack", "LowMessageThroughput", r"\[RESOLVED\]", WITHIN)
    assert_slack(entry, channel="#websocket-alerts", icon=":warning:", is_firing=False)
    return back


@pytest.mark.slow
# The requirement is less than three minutes.
@pytest.mark.timeout(180)
async def test_alerts_of_every_kind_reach_their_receivers_and_end_there(tmp_path: Path):
    async with environment(tmp_path) as (cluster, monitoring, replica):
        client = await Client(cluster.client_port).start()
        async with asyncio.TaskGroup() as together:
            together.create_task(info(monitoring))
            together.create_task(infrastructure(monitoring))
            acked = together.create_task(acknowledged(monitoring, replica))
            together.create_task(warning(monitoring))
        client = await critical(monitoring, cluster, client)
        await _no_end_was_sent(monitoring, acked.result())
        await fires_again(monitoring, replica)
        await _history_shows_them(monitoring)
        await client.close()
        assert await monitoring.stop() == 0
        assert monitoring.left == []


async def _no_end_was_sent(monitoring: Monitoring, acked: dict[str, Any]) -> None:
    """Alertmanager sends no end of what is silenced, not even after two group intervals."""
    deadline = acked["resolved_at"] + 2 * GROUP_INTERVAL
    await until_async(lambda: _later(deadline), 3 * GROUP_INTERVAL, "two group intervals went by")
    later = await monitoring.received("slack", "ServiceDown", acked["id"])
    assert [text_of(entry) for entry in later if "RESOLVED" in text_of(entry)] == []


async def _later(moment: float) -> bool:
    return time.time() > moment


async def _history_shows_them(monitoring: Monitoring) -> None:
    done = await monitoring.ask("history", "--since", "1h")
    assert done.returncode == 0, done
    for name in ("ServiceDown", "NoActiveConnections", "LowMessageThroughput", "NodeExporterDown"):
        assert name in done.stdout
    assert "on it now" in done.stdout
    heartbeat = await monitoring.get("/watchdog")
    assert heartbeat["is_alive"]
    assert await monitoring.received("change", "")
