"""Which alerts the console shows, in which state, and what the indicator says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from cluster.console import alertmanager
from cluster.console.alertmanager import Refused, order_of
from cluster.console.alerts import collect
from cluster.console.asking import Service, Unanswered
from cluster.monitor.alertmanager import ACK_MARK
from tests.console.fake_monitoring import FakeMonitoring
from tests.harness.processes import free_ports


@pytest.fixture
def monitoring() -> Iterator[FakeMonitoring]:
    with FakeMonitoring() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


class Console:
    def __init__(self, monitoring: FakeMonitoring, session: aiohttp.ClientSession) -> None:
        self.prometheus = Service("Prometheus", monitoring.url, session)
        self.alertmanager = Service("Alertmanager", monitoring.url, session)
        self.nobody = Service("Nobody", f"http://127.0.0.1:{free_ports(1)}", session)

    async def report(self, **other: Service) -> dict[str, Any]:
        services = {"prometheus": self.prometheus, "alertmanager": self.alertmanager, **other}
        return await collect(services["prometheus"], services["alertmanager"])


@pytest.fixture
async def console(monitoring: FakeMonitoring, session: aiohttp.ClientSession) -> Console:
    return Console(monitoring, session)


def an_order(**more: Any) -> dict[str, Any]:
    labels = {"alertname": "HighErrorRate", "severity": "critical", "team": "websocket"}
    return {"labels": labels, "note": "on it", "author": "kim", "seconds": 600, **more}


async def test_green_when_both_answer_and_nothing_is_on(console: Console):
    report = await console.report()
    assert (report["level"], report["alerts"], report["errors"]) == ("green", [], {})


@pytest.mark.parametrize(
    ("severity", "state", "level"),
    [
        ("critical", "firing", "red"),
        ("critical", "pending", "amber"),
        ("warning", "firing", "amber"),
        ("warning", "pending", "green"),
        ("info", "firing", "green"),
        ("none", "firing", "green"),
    ],
)
async def test_the_colour_follows_who_is_called(
    console: Console, monitoring: FakeMonitoring, severity: str, state: str, level: str
):
    monitoring.fire("Some", severity, state=state)
    assert (await console.report())["level"] == level


async def test_states_are_those_of_the_handbook(console: Console, monitoring: FakeMonitoring):
    monitoring.fire("Was", "warning")
    monitoring.mend()
    monitoring.fire("Is", "warning", seconds=30)
    monitoring.fire("WillBe", "critical", state="pending")
    alerts = (await console.report())["alerts"]
    assert [(a["name"], a["state"]) for a in alerts] == [
        ("Is", "active"),
        ("WillBe", "pending"),
        ("Was", "resolved"),
    ]
    assert time.time() - alerts[0]["since"] == pytest.approx(30, abs=5)


async def test_the_watchdog_is_listed_only_when_it_is_silent(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.fire("Watchdog", "none")
    assert (await console.report())["alerts"] == []
    monitoring.mend()
    assert [a["name"] for a in (await console.report())["alerts"]] == ["Watchdog"]


async def test_an_alert_that_is_back_is_not_resolved(console: Console, monitoring: FakeMonitoring):
    monitoring.fire("Flaps", "warning")
    monitoring.mend()
    monitoring.fire("Flaps", "warning")
    assert [a["state"] for a in (await console.report())["alerts"]] == ["active"]


async def test_an_acknowledged_critical_is_amber_and_shows_the_note(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.fire("HighErrorRate", "critical")
    order = order_of(an_order())
    made = await alertmanager.silence(console.alertmanager, order, is_ack=True, now=time.time())
    report = await console.report()
    assert report["level"] == "amber"
    assert (report["counts"]["critical"], report["counts"]["acknowledged"]) == (0, 1)
    shown = report["alerts"][0]["silences"][0]
    assert (shown["id"], shown["is_ack"], shown["note"], shown["author"]) == (
        made,
        True,
        "on it",
        "kim",
    )
    await alertmanager.end_silence(console.alertmanager, made)
    assert (await console.report())["level"] == "red"


async def test_an_acknowledgement_is_what_the_monitor_commands_take_for_one(
    console: Console, monitoring: FakeMonitoring
):
    assert alertmanager.ACK_MARK == ACK_MARK
    order = order_of(an_order())
    await alertmanager.silence(console.alertmanager, order, is_ack=True, now=time.time())
    matchers = monitoring.silences[0]["matchers"]
    assert {m["name"] for m in matchers} == {"alertname", "severity", "team", "instance"}
    assert [m["value"] for m in matchers if m["name"] == "instance"] == [""]
    assert monitoring.silences[0]["comment"] == f"{ACK_MARK}on it"


async def test_unknown_without_prometheus(console: Console):
    report = await console.report(prometheus=console.nobody)
    assert report["level"] == "unknown"
    assert "cannot be reached" in report["errors"]["prometheus"]


async def test_unknown_without_alertmanager_unless_something_is_critical(
    console: Console, monitoring: FakeMonitoring
):
    assert (await console.report(alertmanager=console.nobody))["level"] == "unknown"
    monitoring.fire("Some", "critical")
    assert (await console.report(alertmanager=console.nobody))["level"] == "red"


async def test_what_alertmanager_knows_is_shown_without_prometheus(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.fire("Some", "critical")
    report = await console.report(prometheus=console.nobody)
    assert report["level"] == "red"
    assert [a["name"] for a in report["alerts"]] == ["Some"]


async def test_a_prometheus_without_rules_knows_nothing(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.has_rules = False
    report = await console.report()
    assert report["level"] == "unknown"
    assert "no alert rules" in report["errors"]["prometheus"]


async def test_a_service_of_another_kind_is_named(console: Console, monitoring: FakeMonitoring):
    del monitoring.__dict__["alerts"]
    report = await console.report()
    assert report["level"] == "unknown"
    assert set(report["errors"]) == {"prometheus", "alertmanager"}


async def test_an_address_may_be_left_out(session: aiohttp.ClientSession):
    with pytest.raises(Unanswered, match=r"set console\.prometheus_url"):
        await Service("Prometheus", "", session).get("/api/v1/rules")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"note": "  "}, "note"),
        ({"author": None}, "author"),
        ({"seconds": "600"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"seconds": 1}, "from 60"),
        ({"seconds": float("nan")}, "from 60"),
        ({"labels": {}}, "alertname"),
        ({"labels": {"alertname": ""}}, "alertname"),
        ({"labels": {"alertname": 5}}, "texts"),
        ({"labels": {"alert name": "x", "alertname": "x"}}, "label names"),
        ({"note": "x" * 3000}, "2000"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(wrong: dict[str, Any], said: str):
    with pytest.raises(Refused, match=said):
        order_of(an_order(**wrong))


@pytest.mark.parametrize("document", [None, [], "ack", 5])
def test_an_order_is_an_object(document: Any):
    with pytest.raises(Refused):
        order_of(document)
