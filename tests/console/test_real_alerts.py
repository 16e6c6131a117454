"""The console beside the real Prometheus and Alertmanager, in compressed time."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.console.browser import chromium, needs_browser, visit
from tests.console.console_cluster import ConsoleCluster
from tests.console.fake_monitoring import FakeMonitoring
from tests.harness.cluster import Cluster
from tests.harness.needs import needs
from tests.harness.waiting import until_async
from tests.integration.monitoring import Monitoring

COMPRESS = 15
PROGRAMS = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")
_MISSING = [program for program in PROGRAMS if shutil.which(program) is None]

pytestmark = [
    needs_browser,
    pytest.mark.slow,
    needs(not _MISSING, f"not installed: {', '.join(_MISSING)}"),
]


async def test_an_alert_that_fires_for_real_is_seen_acknowledged_and_seen_to_end(tmp_path: Path):
    cluster = Cluster(tmp_path / "cluster", workers=1)
    monitoring = Monitoring(tmp_path, apps=(cluster.admin_port,), compress=COMPRESS)
    cluster.config |= {
        "client": {"insecure": True, "allowed_origins": ["http://127.0.0.1:*"]},
        "console": {
            "prometheus_url": f"http://127.0.0.1:{monitoring.prometheus}",
            "alertmanager_url": f"http://127.0.0.1:{monitoring.alertmanager}",
        },
    }
    async with cluster, chromium() as browser:
        with FakeMonitoring() as unused:
            url = ConsoleCluster(cluster, unused).url()
        async with visit(browser, url) as seen:
            await seen.shows("#alert-list", "Prometheus at")
            assert await seen.page.locator("#indicator.unknown").count() == 1
            async with monitoring:
                card = seen.page.locator("article", has_text="NoActiveConnections")
                await card.locator("text=active").first.wait_for(timeout=60000)
                await seen.page.wait_for_selector("#indicator.red", timeout=15000)

                await card.locator("text=Acknowledge").click()
                await seen.page.fill("#action-note", "no client yet")
                await seen.page.fill("#action-author", "kim")
                await seen.page.click("#action-go")
                await card.locator("text=acknowledged by kim").wait_for(timeout=15000)
                await seen.page.wait_for_selector("#indicator.amber", timeout=15000)

                async def is_shown() -> bool:
                    shown = await asyncio.to_thread(monitoring.monitor, "status")
                    return "no client yet" in shown.stdout or "kim" in shown.stdout

                await until_async(is_shown, 20.0, "the monitor command shows it")

                await seen.page.click("#live-connect button[type=submit]")
                await seen.shows("#live-log", "subscribed")
                await card.locator("text=resolved").wait_for(timeout=60000)
            assert seen.problems == []
