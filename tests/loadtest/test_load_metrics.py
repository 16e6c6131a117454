"""The metrics of load tests and drills: what they are made of, and that Locust serves them while it runs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

from loadtest.drilling.drill_metrics import drill_metrics
from loadtest.drilling.result import DrillResult, RunResult
from loadtest.families import DRILL_FAMILIES, LOAD_FAMILIES, TIMED_STEPS
from loadtest.ledger import Latencies
from loadtest.load_metrics import load_metrics

SUMMARY: dict[str, Any] = {
    "scenario": "steady",
    "connected": 7,
    "acknowledged": 40,
    "refused": 1,
    "unknown": 2,
    "got": 280,
    "lost": 3,
    "twice": 0,
    "out_of_order": 0,
    "unrecoverable": 0,
    "cpu_seconds": 1.5,
    "events": {"publish": {"count": 43, "failures": 3}},
}


def names(families: tuple[Any, ...]) -> set[str]:
    return {family.name.removesuffix("_total") for family in families}


def values(found: list[Metric], name: str) -> dict[tuple[str, ...], float]:
    """The samples of a metric by the values of their labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for metric in found
        for sample in metric.samples
        if sample.name == name
    }


def test_a_load_test_serves_its_ledger():
    latencies = Latencies()
    for seconds in (0.002, 0.02, 0.02, 3.0):
        latencies.add(seconds)
    found = list(load_metrics(SUMMARY, latencies))
    assert {metric.name for metric in found} == names(LOAD_FAMILIES)
    assert values(found, "app_load_connected_users") == {("steady",): 7}
    assert values(found, "app_load_publications_total") == {
        ("acknowledged",): 40,
        ("refused",): 1,
        ("unknown",): 2,
    }
    assert values(found, "app_load_ledger_faults")["lost",] == 3
    assert values(found, "app_load_requests_total") == {
        ("publish", "ok"): 40,
        ("publish", "failed"): 3,
    }
    buckets = values(found, "app_load_delivery_seconds_bucket")
    assert (buckets["0.001",], buckets["0.005",], buckets["0.05",]) == (0, 1, 3)
    assert (buckets["2.5",], buckets["+Inf",]) == (3, 4)
    assert values(found, "app_load_delivery_seconds_sum")[()] == pytest.approx(3.042, rel=0.05)


def result(alert: str, **more: Any) -> DrillResult:
    given: dict[str, Any] = {
        "alert": alert,
        "drill": alert.lower(),
        "severity": "warning",
        "team": "backend",
        "proof": "full",
        "breaks": "",
        "undo": "",
        "environment": "environment-1",
        "compress": 15.0,
        "started_at": time.time(),
    }
    return DrillResult(**{**given, **more})


def test_drills_serve_their_results_and_the_seconds_to_each_step():
    run = RunResult("compressed", 15.0, 0.0, "a cluster of its own", {})
    run.results += [
        result("A", result="passed", ended_at=9.0, step_times={"provoked": 10.0, "firing": 12.5}),
        result("B", result="failed", ended_at=9.0),
        result("C", step_times={"provoked": 10.0, "pending": 11.0}),
    ]
    found = list(drill_metrics(run, 5))
    assert {metric.name for metric in found} == names(DRILL_FAMILIES)
    assert values(found, "app_drills") == {
        ("running",): 1,
        ("passed",): 1,
        ("failed",): 1,
        ("simulated",): 0,
    }
    assert values(found, "app_drills_planned") == {(): 5}
    assert values(found, "app_drill_passed") == {("A",): 1, ("B",): 0}
    assert values(found, "app_drill_step_seconds") == {("A", "firing"): 2.5, ("C", "pending"): 1.0}


def test_the_steps_that_are_timed_are_those_of_the_report():
    document = result("A").to_document()
    assert {f"{step}_seconds" for step in TIMED_STEPS} == {
        name for name in document if name.endswith("_seconds")
    }
