"""Every query of every panel, sent to a Prometheus that has scraped a cluster under load, returns data.

Those of exporters that only the containers have are sent in tests/compose/test_monitoring.py.
"""

from __future__ import annotations

import asyncio
import json
import math
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from scripts.dashboards.applications import APPLICATIONS
from scripts.dashboards.pages import PAGES
from scripts.dashboards.panels import document
from tests.harness.cluster import Cluster, http_get
from tests.harness.crowd import Crowd, Size
from tests.harness.processes import free_ports
from tests.harness.waiting import until_async
from tests.integration.access_load import CONFIG, access_load, write_application
from tests.integration.load_and_drills import acknowledge, drills, load_test, resolve
from tests.integration.monitoring import Monitoring
from tests.rules import panel_queries

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

COMPRESS = 15
# A drill that acknowledges its alert.
ACKNOWLEDGED_DRILL = "HighSessionCount"
SIZE = Size(subscribers=40, channels=4, workers=2, publishes_per_second=20)
QUERIES = {
    f"{page.uid}/{panel.name}/{number}": query.expr
    for page in PAGES
    for panel in page.panels
    if not panel.job and not panel.is_of_logs
    for number, query in enumerate(panel.queries)
    if not query.job
}
# Of the time since the roll, because what they mark passes.
QUERIES |= {
    f"annotations/{one['name']}": f"max_over_time(({one['expr']})[10m:15s])"
    for one in json.loads(document(PAGES[0]))["annotations"]["list"]
}
# The first to end is chosen of these, too.
OF_EXPORTERS = {
    name
    for page in PAGES
    for panel in page.panels
    for query in panel.queries
    if panel.job or query.job
    for name in panel_queries.metrics_of(query.expr)
}
# A query that falls back to 0 has data without its metrics, too.
QUERIES |= {
    f"metric/{name}": f'count({{__name__="{name}"}})'
    for name in sorted(
        {name for expr in QUERIES.values() for name in panel_queries.metrics_of(expr)}
        - OF_EXPORTERS
    )
}
# Whose load is such that 0 is no answer.
LOADED = {f"{APPLICATIONS.uid}/{panel.name}/0" for panel in APPLICATIONS.panels}


def has_data(name: str, result: list[dict[str, Any]]) -> bool:
    values = [float(one["value"][1]) for one in result]
    known = [value for value in values if not math.isnan(value)]
    return any(known) if name in LOADED else bool(known)


def filled_in(expr: str) -> str:
    return panel_queries.filled_in(expr)


async def asked(monitoring: Monitoring, expr: str) -> list[dict[str, Any]]:
    """The result of an instant query."""
    query = urllib.parse.urlencode({"query": filled_in(expr)})
    answer = await asyncio.to_thread(http_get, monitoring.prometheus, f"/api/v1/query?{query}")
    body = json.loads(answer.body)
    assert body["status"] == "success", (expr, body.get("error"))
    result: list[dict[str, Any]] = body["data"]["result"]
    return result


async def test_every_query_returns_data(tmp_path: Path):
    modules = write_application(tmp_path)
    async with Cluster(
        tmp_path / "cluster", workers=SIZE.workers, config=CONFIG, modules=modules
    ) as cluster:
        load, drill = (first := free_ports(2)), first + 1
        monitoring = Monitoring(
            tmp_path, apps=(cluster.admin_port,), compress=COMPRESS, load_tests=(load, drill)
        )
        async with (
            monitoring,
            access_load(cluster.port),
            load_test(tmp_path, cluster.client_port, load) as locust_log,
            drills(tmp_path, drill, ACKNOWLEDGED_DRILL) as drill_log,
        ):
            crowd = Crowd(cluster.client_port, SIZE)
            try:
                await crowd.gather()
                crowd.begin_publishing()
                await crowd.traffic()
                await cluster.roll(within=60)
                await crowd.traffic()
                await acknowledge(monitoring, "HighErrorRate", 90)
                # Whether one ends by itself meanwhile is a matter of the machine.
                await resolve(monitoring, "TokenRefreshFailing", 90)
                empty = dict(QUERIES)

                async def all_have_data() -> bool:
                    for name, expr in list(empty.items()):
                        result = await asked(monitoring, expr)
                        if has_data(name, result):
                            del empty[name]
                    return not empty

                try:
                    await until_async(all_have_data, 150, "every query returns data")
                except AssertionError as error:
                    said = f"{locust_log.read_text()}\n{drill_log.read_text()}"
                    raise AssertionError(
                        f"no data: {json.dumps(empty, indent=1)}\n{said}"
                    ) from error
            finally:
                await crowd.close()
