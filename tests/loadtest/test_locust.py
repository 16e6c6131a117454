"""Locust with our users against a real cluster: exit codes, reports, accounts across faults."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import http.client
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from loadtest.locust_options import SCENARIO_NAMES
from loadtest.scenarios import SCENARIOS
from tests.architecture.tree import ROOT
from tests.harness.cluster import Cluster, http_get
from tests.harness.processes import free_ports
from tests.harness.waiting import until
from tests.loadtest.middleman import Fault, Middleman, double, swallow
from tests.loadtest.running import locust, read

CLEAN = "lost=0,twice=0,out_of_order=0,unrecoverable=0"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("locust"), workers=2) as one:
        yield one


def host(cluster: Cluster) -> str:
    return f"ws://127.0.0.1:{cluster.port}"


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_scenario_can_be_named():
    assert set(SCENARIO_NAMES) == set(SCENARIOS)


def worker_hosts(cluster: Cluster) -> str:
    """The workers' own ports, past nginx."""
    return ",".join(f"ws://127.0.0.1:{cluster.worker_port(slot)}" for slot in range(2))


async def test_steady_load_meets_its_limits(cluster: Cluster, tmp_path: Path):
    report, table = tmp_path / "report.html", tmp_path / "run"
    words = ("--scenario", "steady", "-u", "10", "-t", "5s", "--html", str(report))
    ended = await locust(
        worker_hosts(cluster),
        tmp_path,
        *words,
        "--csv",
        str(table),
        "--expect",
        f"{CLEAN},unknown=0",
    )
    assert ended.code == 0, ended.text
    assert ended.ledger["acknowledged"] > 10
    assert ended.ledger["got"] >= ended.ledger["acknowledged"]
    assert set(ended.ledger["events"]) >= {
        "connect",
        "subscribe",
        "publish",
        "delivery",
        "delivery other host",
    }
    assert "lost: 0, at most 0: met" in ended.text
    assert "delivery other host" in report.read_text()
    with Path(f"{table}_stats.csv").open() as rows:
        assert "publish" in {row["Name"] for row in csv.DictReader(rows)}


async def test_a_limit_that_is_not_met_is_the_exit_code(cluster: Cluster, tmp_path: Path):
    words = ("--scenario", "steady", "-u", "4", "-t", "3s", "--expect", "acknowledged=100000")
    ended = await locust(host(cluster), tmp_path, *words)
    assert ended.code == 1
    assert "at least 100000: NOT MET" in ended.text


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--expect", "speed=1", "'speed=1' is no limit"),
        ("--metrics-listen", "9646", "give HOST:PORT, such as 127.0.0.1:9646"),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused_before_anything_runs(
    cluster: Cluster, tmp_path: Path, option: str, value: str, sentence: str
):
    ended = await locust(host(cluster), tmp_path, option, value)
    assert ended.code == 78
    assert sentence in ended.text
    assert ended.ledger == {}


async def test_the_last_metrics_of_all_processes_are_those_of_the_final_ledger(
    cluster: Cluster, tmp_path: Path
):
    port, pages = free_ports(1), [""]

    async def scrape() -> None:
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = await asyncio.to_thread(http_get, port, "/metrics")
                pages.append(answer.body.decode())
            await asyncio.sleep(0.2)

    scraping = asyncio.create_task(scrape())
    try:
        words = ("--scenario", "steady", "-u", "6", "-r", "50", "-t", "6s", "--processes", "2")
        ended = await locust(
            host(cluster), tmp_path, *words, "--metrics-listen", f"127.0.0.1:{port}"
        )
    finally:
        scraping.cancel()
    assert ended.code == 0, ended.text
    assert any('app_load_connected_users{scenario="steady"} 6.0' in page for page in pages)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(pages[-1])
        for sample in family.samples
    }
    assert samples["app_load_publications_total", "acknowledged"] == ended.ledger["acknowledged"]
    assert samples["app_load_deliveries_total",] == ended.ledger["got"] > 0
    assert samples["app_load_delivery_seconds_count",] == ended.ledger["got"]
    assert samples["app_load_ledger_faults", "lost"] == 0


async def test_user_classes_are_chosen_by_argument(cluster: Cluster, tmp_path: Path):
    ended = await locust(
        host(cluster), tmp_path, "SessionHolder", "-u", "5", "-r", "50", "-t", "3s"
    )
    assert ended.code == 0, ended.text
    assert ended.ledger["events"]["connect"]["count"] == 5
    assert "publish" not in ended.ledger["events"]


# `calls` needs a procedure, which an application brings; refusing it is all a bare cluster can do.
@pytest.mark.parametrize("scenario", sorted(set(SCENARIO_NAMES) - {"calls"}))
async def test_every_scenario_runs_clean(cluster: Cluster, tmp_path: Path, scenario: str):
    words = ("--scenario", scenario, "-u", "12", "-t", "5s", "--error-kind", "all")
    ended = await locust(host(cluster), tmp_path, *words, "--expect", f"{CLEAN},errors=0")
    assert ended.code == 0, ended.text
    assert ended.ledger["is_final"] is True
    assert sum(event["count"] for event in ended.ledger["events"].values()) > 0
    if scenario in ("churn", "errors", "slow-readers"):
        wanted = {"churn": "connect", "errors": "expected flood"}
        name = wanted.get(scenario, "expected slow reader closed")
        assert name in ended.ledger["events"] or scenario == "slow-readers", ended.text


SLOW_TO_START = """
import time

end = time.monotonic() + 3.5
while time.monotonic() < end:
    pass

from loadtest.locustfile import *
"""


async def test_a_run_that_is_slow_to_start_lasts_as_long_as_any(cluster: Cluster, tmp_path: Path):
    file = tmp_path / "slow.py"
    file.write_text(SLOW_TO_START)
    words = (
        "--scenario",
        "throughput",
        "-u",
        "6",
        "-t",
        "3s",
        "--expect",
        f"{CLEAN},acknowledged=5",
    )
    ended = await locust(host(cluster), tmp_path, *words, file=str(file))
    assert ended.code == 0, ended.text


async def test_stages_take_every_scenario_in_turn(cluster: Cluster, tmp_path: Path):
    words = ("--shape", "stages", "--step-seconds", "2", "-u", "6", "--expect", CLEAN)
    ended = await locust(host(cluster), tmp_path, *words)
    assert ended.code == 0, ended.text
    events = ended.ledger["events"]
    assert {"connect", "subscribe", "publish", "delivery", "expected rpc", "rpc"} <= set(events)


async def acknowledged(folder: Path, count: int) -> None:
    """Wait until so many publications of the run that is under way were acknowledged."""
    ledger = folder / "ledger.json"
    await until(lambda: read(ledger).get("acknowledged", 0) >= count, 60, "it publishes")


async def test_an_early_end_by_a_signal_settles_the_account_first(cluster: Cluster, tmp_path: Path):
    async def end(running: asyncio.subprocess.Process) -> None:
        await acknowledged(tmp_path, 150)
        running.terminate()

    words = ("--scenario", "throughput", "-u", "60", "--rate", "200", "--expect", CLEAN)
    ended = await locust(host(cluster), tmp_path, *words, ending=end)
    assert ended.code == 0, ended.text
    assert ended.ledger["is_final"] is True
    assert ended.ledger["acknowledged"] > 100


async def test_users_who_leave_owe_nothing(cluster: Cluster, tmp_path: Path):
    words = ("--scenario", "steady", "--rate", "20", "-u", "20", "--shape", "churn")
    ended = await locust(
        host(cluster), tmp_path, *words, "--soak-seconds", "25", "--expect", f"{CLEAN},got=100"
    )
    assert ended.code == 0, ended.text


@pytest.mark.full
async def test_two_thousand_users_of_two_processes_lose_nothing(cluster: Cluster, tmp_path: Path):
    words = ("--scenario", "connections", "-u", "2000", "--processes", "2", "-t", "60s")
    limits = f"{CLEAN},unknown=0,errors=0,acknowledged=100"
    ended = await locust(host(cluster), tmp_path, *words, "--sample", "50", "--expect", limits)
    print(ended.text)
    assert ended.code == 0, ended.text
    assert ended.ledger["events"]["subscribe"]["count"] == 2000


@pytest.mark.full
async def test_three_hundred_clients_a_second_come_and_go(cluster: Cluster, tmp_path: Path):
    words = ("--scenario", "churn", "--rate", "330", "-u", "33", "-t", "40s")
    limits = "connects_per_second=300,errors=0"
    ended = await locust(host(cluster), tmp_path, *words, "--expect", limits)
    print(ended.text)
    assert ended.code == 0, ended.text


async def test_a_worker_that_is_killed_costs_no_publication(cluster: Cluster, tmp_path: Path):
    killed: list[int] = []

    async def kill(_: dict[str, Any]) -> None:
        await acknowledged(tmp_path, 50)
        victim = random.choice(cluster.workers())
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    words = ("--scenario", "mixed", "-u", "60", "-t", "12s", "--rate", "40", "--processes", "2")
    ended = await locust(host(cluster), tmp_path, *words, "--expect", CLEAN, meanwhile=kill)
    assert killed
    assert ended.code == 0, ended.text
    assert ended.ledger["events"]["recover"]["count"] > 0
    assert ended.ledger["acknowledged"] > 100


@pytest.mark.parametrize(
    ("fault", "name"), [(swallow, "lost"), (double, "twice")], ids=["swallowed", "doubled"]
)
async def test_a_publication_that_goes_wrong_is_noticed(
    cluster: Cluster, tmp_path: Path, fault: Fault, name: str
):
    target = f"{host(cluster)}/connection/websocket"
    async with Middleman(target, fault) as middleman:
        words = ("--scenario", "steady", "-u", "3", "-t", "6s", "--rate", "10")
        ended = await locust(middleman.url, tmp_path, *words, "--expect", CLEAN)
    assert ended.code == 1, ended.text
    assert {n: ended.ledger[n] for n in ("lost", "twice")} == {"lost": 0, "twice": 0} | {name: 1}


async def test_a_master_adds_up_what_its_workers_account_for(cluster: Cluster, tmp_path: Path):
    port = str(free_ports(1))
    worker = await asyncio.create_subprocess_exec(
        # It has no scenario: only the master has one.
        *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py"),
        *("--worker", "--master-host", "127.0.0.1", "--master-port", port),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        bound = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
        words = ("--expect-workers", "1", "--scenario", "throughput", "-u", "6", "-t", "5s")
        limits = ("--expect", f"{CLEAN},acknowledged=5")
        ended = await locust(host(cluster), tmp_path, *bound, *words, *limits)
        assert ended.code == 0, ended.text
        async with asyncio.timeout(30):
            assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
