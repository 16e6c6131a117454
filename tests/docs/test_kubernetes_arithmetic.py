"""The page on Kubernetes plans a million connections: every figure is computed again here from stored measurements."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml

from tests.architecture.tree import ROOT
from tests.unit.test_hold import capacity_rules_in

WANTED = 1_000_000
RESULTS = ROOT / "benchmarks" / "results"
BASE = ROOT / "docker" / "kubernetes" / "base"
PAGE = " ".join((ROOT / "docs/how-to/kubernetes.md").read_text(encoding="utf-8").split())
CAPACITY = capacity_rules_in(ROOT / "docker" / "capacity.yml")
HOLD: dict[str, Any] = json.loads((RESULTS / "hold.json").read_text(encoding="utf-8"))
#: Workers of a pod, in options.yaml.
WORKERS = 2
#: The benchmark's, of one channel (benchmarks/plan.py).
SUBSCRIBERS = 1_000


def resource(name: str) -> dict[str, Any]:
    return yaml.safe_load((BASE / f"{name}.yaml").read_text(encoding="utf-8"))


SCALER = resource("autoscaler")["spec"]
PER_POD = int(SCALER["metrics"][0]["pods"]["target"]["averageValue"])
PODS = math.ceil(WANTED / PER_POD)


def held_per_worker() -> int:
    return HOLD["plan"]["connections"] // HOLD["plan"]["workers"]


def bytes_of(*parts: str) -> float:
    return sum(CAPACITY["app_capacity_hold_bytes_per_connection", part] for part in parts)


def said(*texts: str) -> None:
    for text in texts:
        assert text in PAGE, text


def test_a_pod_gets_half_of_what_its_workers_have_held():
    assert int(resource("options")["data"]["WS_CLUSTER_SERVER__WORKERS"]) == WORKERS
    half = WORKERS * held_per_worker() / 2
    assert half * 0.9 < PER_POD <= half
    said("12 workers held 100,000 connections", f"{held_per_worker():,} for each", f"{PER_POD:,}")


def test_what_comes_from_a_file_limit_is_not_called_a_capacity():
    capacity = (ROOT / "docs/reference/capacity.md").read_text(encoding="utf-8")
    assert "| connections per worker by its file limit | 9,968 |" in capacity
    assert CAPACITY["app_capacity_connections_per_worker", ""] == 9_968 == (20_000 - 64) // 2
    said("9,968 connections per worker", "(20,000 - 64) / 2")
    assert "9,968" not in (BASE / "autoscaler.yaml").read_text(encoding="utf-8")


def test_the_number_of_pods_and_where_the_autoscaler_stops():
    said(f"**{PODS * WORKERS} workers**", f"**{PODS} pods**")
    most = SCALER["maxReplicas"] * PER_POD
    assert most < WANTED, "then the page need not say that it is to be raised"
    said(f"`maxReplicas: {SCALER['maxReplicas']}` stops at {most:,} connections", f"to {PODS}")


def test_the_files_that_a_pod_needs():
    said(f"{2 * held_per_worker() + 64:,} open files")


def test_the_memory_of_a_pod_is_below_its_limit_also_with_the_clients_of_another():
    total = bytes_of("workers", "nginx", "kernel")
    said(*(f"{bytes_of(part):,.0f}" for part in ("workers", "nginx", "kernel")))
    said(f"{PER_POD * total / 1e6:.0f} MB", f"{2 * PER_POD * total / 1e6:.0f} MB")
    [app] = resource("deployment")["spec"]["template"]["spec"]["containers"]
    assert app["resources"]["limits"]["memory"] == "1Gi"
    # What is left holds the empty processes.
    assert 2 * PER_POD * total < 0.7 * (1 << 30)


def test_the_cpu_at_rest_and_of_messages():
    costs = HOLD["costs"]
    cores = costs["workers"]["cores"] + costs["nginx"]["cores"]
    said(f"{cores:.2f} cores", f"{cores * PER_POD / HOLD['plan']['connections']:.3f} of a core")
    per_core = CAPACITY["app_capacity_messages_per_second_per_core", ""]
    said(f"{per_core:,.0f} messages", f"{WANTED / 10 / per_core:.1f} cores")
    said(f"{WANTED / per_core:.1f} cores")
    table = (RESULTS / "nginx_sockets.md").read_text(encoding="utf-8")
    assert "| 1,000 subscribers, 100 publishes/s | unix sockets | 1.246 | 1.878 |" in table
    said("1.25 µs in a worker and 1.88 µs in nginx")


def test_the_number_of_shards():
    medians = json.loads((RESULTS / "full.json").read_text(encoding="utf-8"))["medians"]
    one, four = (medians[f"paced/{name}"]["store_us"] * SUBSCRIBERS for name in ("ours", "ours-4"))
    each = (four - one) / 3
    said(f"{one:.0f} µs with one worker", f"{four:.0f} µs with four", f"{each:.1f} µs")
    fixed = one - each
    said(f"({fixed:.0f} + {each:.1f} × workers) µs")
    few = 0.5 / (one / 1e6)
    said(f"{round(few, -2):,.0f} publications per second")
    everywhere = round(fixed) + round(each, 1) * PODS * WORKERS
    said(f"{everywhere:,.0f} µs", f"{0.5e6 / everywhere:.0f} per second")
    for publications, workers in ((20_000, 1), (1_000, PODS * WORKERS)):
        cost = round(fixed) + round(each, 1) * workers
        shards = math.ceil(publications * cost / 1e6 / 0.5)
        said(f"ceil({publications:,} × {cost:,.0f} µs / 0.5) = {shards}")


@pytest.mark.parametrize("name", ["hold.md", "full.md", "nginx_sockets.md"])
def test_the_measurements_are_linked(name: str):
    said(f"benchmarks/results/{name}")
