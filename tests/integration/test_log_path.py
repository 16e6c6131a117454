"""A line of the application as Alloy labels it, in a server that speaks Loki's push API.

Alloy cannot be had where the tests run: the stages of docker/alloy/config.alloy are read, and done. One server is
VictoriaLogs, which a Go toolchain builds; the other is Loki itself, where LOKI or PATH names one: it takes
docker/loki.yml, and answers what the dashboard of logs asks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from scripts.dashboards.log_lines import LOGS
from tests.drawing.frames import interpolated
from tests.harness.cluster import Cluster
from tests.harness.processes import free_ports
from tests.harness.waiting import until_async
from tests.integration.log_lines import CONFIGURATION, entry, loki

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

VARIABLES = {"instance": ".*", "level": ".*", "search": "", "__auto": "10s", "__range": "10m"}
MODULE = "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs@v1.52.1"


@pytest.fixture(scope="module")
def victoria_logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The program: VICTORIA_LOGS, or of the path, or built."""
    found = os.environ.get("VICTORIA_LOGS") or shutil.which("victoria-logs")
    if found:
        yield found
        return
    if shutil.which("go") is None:
        pytest.skip("no victoria-logs, and no Go toolchain that could build it")
    folder = tmp_path_factory.mktemp("go")
    done = subprocess.run(
        ["go", "install", MODULE],
        env={**os.environ, "GOBIN": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    if done.returncode:
        pytest.skip(f"victoria-logs cannot be built: {done.stderr.strip().splitlines()[-1]}")
    yield str(folder / "victoria-logs")


@asynccontextmanager
async def log_server(program: str, folder: Path) -> AsyncIterator[str]:
    address = f"127.0.0.1:{free_ports(1)}"
    process = subprocess.Popen(
        [program, f"-httpListenAddr={address}", f"-storageDataPath={folder}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    async def answers() -> bool:
        try:
            async with aiohttp.ClientSession() as session:
                return (await session.get(f"http://{address}/health")).status == 200
        except OSError:
            return False

    try:
        await until_async(answers, 30, "the log server answers")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


async def test_a_line_is_found_by_the_labels_of_the_metrics_and_by_its_event(
    victoria_logs: str, tmp_path: Path
):
    async with Cluster(tmp_path / "cluster", workers=2) as cluster:
        await cluster.roll(within=60)
    lines = [line for line in cluster.log_path.read_text().splitlines() if line.startswith("{")]
    assert lines
    instance = json.loads(lines[0])["instance"]
    discovered = {"service": "app", "instance": "ws-cluster-app-1", "id": "not kept"}
    streams = [entry(line, discovered) for line in [*lines, "not JSON"]]
    async with (
        log_server(victoria_logs, tmp_path / "logs") as url,
        aiohttp.ClientSession() as session,
    ):

        async def push() -> None:
            # VictoriaLogs has Loki's API below /insert.
            async with session.post(
                f"{url}/insert/loki/api/v1/push", json={"streams": streams}
            ) as answer:
                assert answer.status == 204, await answer.text()

        async def found(query: str) -> list[dict[str, str]]:
            words = urllib.parse.urlencode({"query": query, "limit": "1000"})
            async with session.get(f"{url}/select/logsql/query?{words}") as answer:
                return [json.loads(one) for one in (await answer.text()).splitlines()]

        await push()
        one_replica = f'{{service="app",instance="{instance}"}}'

        async def is_there() -> bool:
            return len(await found(one_replica)) == len(lines)

        await until_async(is_there, 30, "every line of the replica is there")
        ready = await found(f"{one_replica} event:worker_ready")
        wanted = [line for line in lines if json.loads(line)["event"] == "worker_ready"]
        assert len(ready) == len(wanted) > 0
        assert all(one["worker"] for one in await found(f"{one_replica} worker:*"))
        streams_seen = {one["_stream"] for one in await found("*")}
        assert all(text.count('="') <= 3 and "not kept" not in text for text in streams_seen)
        # A line that is not JSON has the labels that Alloy found with its container.
        assert [one["_msg"] for one in await found('{instance="ws-cluster-app-1"}')] == ["not JSON"]


@pytest.fixture(scope="module")
def loki_program() -> str:
    found = os.environ.get("LOKI") or shutil.which("loki")
    if not found:
        pytest.skip("no loki on PATH, and LOKI names none")
    return found


def test_loki_accepts_the_configuration(loki_program: str):
    command = [loki_program, f"-config.file={CONFIGURATION}", "-verify-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


async def test_loki_answers_what_the_dashboard_of_logs_asks(loki_program: str, tmp_path: Path):
    began = time.time()
    async with Cluster(tmp_path / "cluster", workers=2) as cluster:
        os.kill(cluster.workers()[0].pid, signal.SIGKILL)
        await cluster.shows("app_worker_restarts_total", 1, 30, reason="crash")
    lines = [line for line in cluster.log_path.read_text().splitlines() if line.startswith("{")]
    other = entry("not JSON", {"service": "valkey", "instance": "ws-cluster-valkey-1"})
    async with loki(loki_program, tmp_path / "loki") as server:
        discovered = {"service": "app", "instance": "ws-cluster-app-1", "id": "not kept"}
        await server.push([*(entry(line, discovered) for line in lines), other])
        for panel in LOGS.panels:
            if panel.is_of_logs:
                step = 0.0 if panel.kind == "bars" else 1.0
                for query in panel.queries:
                    expr = interpolated(query.expr, VARIABLES)
                    data = await server.ask(expr, began, time.time() + 1, step)
                    assert data["result"], (panel.name, expr)
        found = await server.ask(
            '{service="app"} | event="child_exited"', began, time.time() + 1, 1
        )
        messages = [json.loads(value[1]) for one in found["result"] for value in one["values"]]
        assert {message["event"] for message in messages} == {"child_exited"}
