"""Take the screenshots of docs/console.md: `python -m tests.console.screenshots docs/img`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.console.browser import Visit, chromium, visit
from tests.console.console_cluster import ConsoleCluster, config_for
from tests.console.fake_monitoring import FakeMonitoring
from tests.harness.cluster import Cluster

WIDE = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 1.5, "is_mobile": True}
SCREENS: dict[str, dict[str, Any]] = {
    "console-light": {**WIDE, "color_scheme": "light"},
    "console-dark": {**WIDE, "color_scheme": "dark"},
    "console-phone": {**PHONE, "color_scheme": "light"},
}


def provoke(monitoring: FakeMonitoring) -> None:
    """Several alerts at once."""
    monitoring.fire(
        "HighErrorRate", "critical", seconds=200,
        summary="High error rate detected", description="Error rate is 42 errors per minute",
    )  # fmt: skip
    monitoring.fire(
        "SlowShutdownTime", "warning", seconds=1200,
        summary="Slow shutdown time", description="95th percentile shutdown time is 7.5s",
    )  # fmt: skip
    monitoring.fire(
        "HighCPUUsage", "warning", state="pending", seconds=100,
        summary="High CPU usage", description="CPU usage is 91%", instance="node-1:9100",
    )  # fmt: skip
    labels = {"alertname": "NoActiveConnections", "severity": "critical", "team": "websocket"}
    monitoring.resolved.append((labels, time.time() - 400))


async def use_live_client(seen: Visit) -> None:
    """Let the live client publish, lose its connection and recover."""
    await seen.page.click("#live-connect button[type=submit]")
    await seen.shows("#live-log", "subscribed")
    for number in range(1, 5):
        await seen.page.fill("#live-message", f"hello {number}")
        await seen.page.click("#live-publish button")
        await seen.shows("#live-log", f": hello {number}")
    await seen.page.click("#live-drop")
    for text in ("sent while away", "and again"):
        await seen.page.fill("#live-message", text)
        await seen.page.click("#live-publish button")
    await seen.shows("#live-log .recovered", "and again")


async def acknowledge(seen: Visit, file: Path) -> None:
    await seen.page.click("text=Acknowledge")
    await seen.page.fill("#action-note", "rolling back 1.4")
    await seen.page.fill("#action-author", "kim")
    await seen.page.screenshot(path=str(file))
    await seen.page.click("#action-go")
    await seen.shows("#alert-list", "acknowledged by kim")


async def main(folder: Path) -> None:
    """Take every screenshot."""
    with FakeMonitoring() as monitoring, tempfile.TemporaryDirectory() as directory:
        config = config_for(monitoring)
        async with Cluster(Path(directory), workers=2, config=config) as cluster:
            await cluster.roll()
            provoke(monitoring)
            url = ConsoleCluster(cluster, monitoring).url()
            async with chromium() as browser:
                for name, options in SCREENS.items():
                    async with visit(browser, url, **options) as seen:
                        await seen.shows("#alert-list", "HighErrorRate")
                        await use_live_client(seen)
                        await seen.page.evaluate("scrollTo(0, 0)")
                        await seen.page.screenshot(path=str(folder / f"{name}.png"), full_page=True)
                        if name == "console-light":
                            await acknowledge(seen, folder / "console-acknowledge.png")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
