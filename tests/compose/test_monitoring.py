"""The monitoring of the containers: exporters, their panels, the incident tracker."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from scripts.dashboards.pages import PAGES
from tests.architecture.tree import ROOT
from tests.compose.stack import Stack, docker
from tests.harness.waiting import until_async
from tests.integration.test_dashboard_queries import filled_in

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

JOBS = {"prometheus", "websocket-app", "alertmanager", "tracker", "node", "nginx", "redis"}


async def asked(stack: Stack, expr: str) -> list[dict[str, Any]]:
    """The result of a query of a dashboard."""
    return await stack.query(filled_in(expr))


async def test_a_replica_has_the_same_instance_in_its_logs_and_its_metrics(stack: Stack):
    await stack.ready(2)
    logged = set()
    for one in await stack.containers("app"):
        text = await asyncio.to_thread(docker, "logs", one["Id"])
        # The last: before it was restarted it may have had another address.
        logged.add(
            [json.loads(line)["instance"] for line in text.splitlines() if line[:1] == "{"][-1]
        )

    async def are_the_same() -> bool:
        scraped = {
            one["labels"]["instance"]
            for one in await stack.targets()
            if one["labels"]["job"] == "websocket-app"
        }
        return scraped == logged and len(logged) == 2

    await until_async(are_the_same, 60, f"Prometheus has the replicas {sorted(logged)}")


async def test_every_exporter_is_up_and_its_panels_have_data(stack: Stack):
    await stack.ready(2)

    async def are_up() -> bool:
        return {
            one["labels"]["job"] for one in await stack.targets() if one["health"] == "up"
        } == JOBS

    await until_async(are_up, 60, f"Prometheus finds {sorted(JOBS)} up")
    empty = {
        f"{panel.name}/{number}": query.expr
        for page in PAGES
        for panel in page.panels
        for number, query in enumerate(panel.queries)
        if panel.job or query.job
    }
    assert len(empty) > 10

    async def have_data() -> bool:
        for name, expr in list(empty.items()):
            if await asked(stack, expr):
                del empty[name]
        return not empty

    try:
        # A growth needs two whole minutes.
        await until_async(have_data, 180, "every query returns data")
    except AssertionError as error:
        raise AssertionError(f"no data: {json.dumps(empty, indent=1)}") from error
    for family in ("redis_up", "redis_aof_last_write_status", "nginx_up"):
        assert [one["value"][1] for one in await asked(stack, family)] == ["1"], family


async def test_the_incident_tracker_records_what_fires(stack: Stack):
    await stack.ready(2)
    await stack.compose("stop", "node-exporter")

    async def is_recorded() -> bool:
        words = ("exec", "--no-TTY", "tracker", "ws-cluster", "monitor", "history", "--json")
        incidents = json.loads(await stack.compose(*words))
        return any(one["alertname"] == "NodeExporterDown" for one in incidents)

    try:
        await until_async(is_recorded, 90, "the tracker has recorded NodeExporterDown")
        status = await stack.compose(
            "exec",
            "--no-TTY",
            "tracker",
            "ws-cluster",
            "monitor",
            "check-alerts",
            "--json",
            fails=True,
        )
        assert "NodeExporterDown" in status
    finally:
        await stack.compose("start", "node-exporter")


async def test_the_commands_of_the_seed_for_containers_print_what_the_page_shows(stack: Stack):
    await stack.ready(2)
    page = (ROOT / "docs" / "seed-commands.md").read_text(encoding="utf-8")
    [block] = re.findall(
        r"tests/compose/test_monitoring.py runs.*?```console\n(.*?)```", page, re.DOTALL
    )
    lines = block.splitlines()
    for command, wanted in zip(lines[::2], lines[1::2], strict=True):
        words = command.removeprefix("$ docker compose -f docker/compose.yml ").split()
        assert words[0] in ("exec", "logs"), command
        # Its output is no terminal here.
        given = ["exec", "--no-TTY", *words[1:]] if words[0] == "exec" else words
        said = await stack.compose(*given)
        parts = "[^\n]*".join(map(re.escape, wanted.strip("…").split("…")))
        assert re.search(parts, said), f"{command}: {said}"
