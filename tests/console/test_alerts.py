"""Which alerts the console shows, in which state, and what the indicator says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from cluster.alerting.alertmanager import ACK_MARK
from cluster.alerting.async_http import AsyncHttpService
from cluster.alerting.http import HttpEndpoint
from cluster.console import silence_requests
from cluster.console.alerts import collect
from cluster.console.silence_requests import InvalidRequest, SilenceRequest
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
        def service(name: str, url: str) -> AsyncHttpService:
            return AsyncHttpService(HttpEndpoint(name, url), session)

        self.prometheus = service("Prometheus", monitoring.url)
        self.alertmanager = service("Alertmanager", monitoring.url)
        self.closed = service("Closed", f"http://127.0.0.1:{free_ports(1)}")

    async def report(self, **other: AsyncHttpService) -> dict[str, Any]:
        services = {"prometheus": self.prometheus, "alertmanager": self.alertmanager, **other}
        return await collect(services["prometheus"], services["alertmanager"])

    async def acknowledge(self, **more: Any) -> str:
        request = SilenceRequest.of(a_request(**more))
        return await silence_requests.acknowledge(self.alertmanager, request, now=time.time())


@pytest.fixture
async def console(monitoring: FakeMonitoring, session: aiohttp.ClientSession) -> Console:
    return Console(monitoring, session)


def a_request(**more: Any) -> dict[str, Any]:
    labels = {"alertname": "HighErrorRate", "severity": "critical", "team": "websocket"}
    return {"labels": labels, "note": "on it", "author": "kim", "seconds": 600, **more}


async def test_green_when_both_answer_and_no_alert_is_on(console: Console):
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
async def test_the_colour_follows_severity_and_state(
    console: Console, monitoring: FakeMonitoring, severity: str, state: str, level: str
):
    monitoring.fire("Some", severity, state=state)
    assert (await console.report())["level"] == level


async def test_alerts_are_active_pending_or_resolved(console: Console, monitoring: FakeMonitoring):
    monitoring.fire("Was", "warning")
    monitoring.resolve()
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
    monitoring.resolve()
    assert [a["name"] for a in (await console.report())["alerts"]] == ["Watchdog"]


async def test_an_alert_that_fires_again_is_not_resolved(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.fire("Flaps", "warning")
    monitoring.resolve()
    monitoring.fire("Flaps", "warning")
    assert [a["state"] for a in (await console.report())["alerts"]] == ["active"]


async def test_an_acknowledged_critical_is_amber_and_shows_the_note(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.fire("HighErrorRate", "critical")
    made = await console.acknowledge()
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
    await silence_requests.end_silence(console.alertmanager, made)
    assert (await console.report())["level"] == "red"


def matchers_of(silence: dict[str, Any]) -> dict[str, str]:
    return {matcher["name"]: matcher["value"] for matcher in silence["matchers"]}


async def test_an_acknowledgement_holds_exactly_the_alert_it_is_given_for(
    console: Console, monitoring: FakeMonitoring
):
    await console.acknowledge()
    [silence] = monitoring.silences
    assert silence["comment"] == f"{ACK_MARK}on it"
    assert matchers_of(silence) == {**a_request()["labels"], "instance": ""}


async def test_an_acknowledgement_of_a_name_alone_holds_no_replicas_alert(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.fire("ServiceDown", "critical", instance="a:8001")
    await console.acknowledge(labels={"alertname": "ServiceDown"})
    [silence] = monitoring.silences
    assert matchers_of(silence) == {"alertname": "ServiceDown", "instance": ""}
    assert (await console.report())["level"] == "red"


async def test_a_silence_of_a_name_alone_holds_every_alert_of_that_name(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.fire("ServiceDown", "critical", instance="a:8001")
    request = SilenceRequest.of(a_request(labels={"alertname": "ServiceDown"}))
    await silence_requests.make_silence(console.alertmanager, request, now=time.time())
    assert (await console.report())["counts"]["silenced"] == 1


async def test_a_second_acknowledgement_replaces_the_first(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.fire("HighErrorRate", "critical")
    first = await console.acknowledge()
    second = await console.acknowledge(author="lee")
    states = {silence["id"]: silence["status"]["state"] for silence in monitoring.silences}
    assert states == {first: "expired", second: "active"}
    [alert] = (await console.report())["alerts"]
    assert [one["author"] for one in alert["silences"]] == ["lee"]


@pytest.mark.parametrize("names_alone", [(True, False), (False, True), (True, True)])
async def test_acknowledgements_by_name_and_by_labels_replace_each_other(
    console: Console, monitoring: FakeMonitoring, names_alone: tuple[bool, bool]
):
    monitoring.fire("HighErrorRate", "critical")
    monitoring.fire("HighErrorRate", "critical", instance="a:8001")
    for is_alone in names_alone:
        await console.acknowledge(
            **({"labels": {"alertname": "HighErrorRate"}} if is_alone else {})
        )
    states = [silence["status"]["state"] for silence in monitoring.silences]
    assert states == ["expired", "active"]
    counts = (await console.report())["counts"]
    assert (counts["critical"], counts["acknowledged"]) == (1, 1)


async def test_an_acknowledgement_of_another_replica_stays(
    console: Console, monitoring: FakeMonitoring
):
    for instance in ("a:8001", "b:8001"):
        monitoring.fire("HighErrorRate", "critical", instance=instance)
        labels = {**a_request()["labels"], "instance": instance}
        await console.acknowledge(labels=labels)
    assert [silence["status"]["state"] for silence in monitoring.silences] == ["active"] * 2


async def test_unknown_without_prometheus(console: Console):
    report = await console.report(prometheus=console.closed)
    assert report["level"] == "unknown"
    assert "cannot be reached" in report["errors"]["prometheus"]


async def test_unknown_without_alertmanager_unless_something_is_critical(
    console: Console, monitoring: FakeMonitoring
):
    assert (await console.report(alertmanager=console.closed))["level"] == "unknown"
    monitoring.fire("Some", "critical")
    assert (await console.report(alertmanager=console.closed))["level"] == "red"


async def test_alertmanagers_alerts_are_shown_without_prometheus(
    console: Console, monitoring: FakeMonitoring
):
    monitoring.fire("Some", "critical")
    report = await console.report(prometheus=console.closed)
    assert report["level"] == "red"
    assert [a["name"] for a in report["alerts"]] == ["Some"]


async def test_without_rules_the_level_is_unknown(console: Console, monitoring: FakeMonitoring):
    monitoring.has_rules = False
    report = await console.report()
    assert report["level"] == "unknown"
    assert "no alert rules" in report["errors"]["prometheus"]


async def test_a_service_with_other_answers_is_named(console: Console, monitoring: FakeMonitoring):
    del monitoring.__dict__["alerts"]
    report = await console.report()
    assert report["level"] == "unknown"
    assert set(report["errors"]) == {"prometheus", "alertmanager"}


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
def test_a_request_that_cannot_be_understood_is_refused(wrong: dict[str, Any], said: str):
    with pytest.raises(InvalidRequest, match=said):
        SilenceRequest.of(a_request(**wrong))


@pytest.mark.parametrize("document", [None, [], "ack", 5])
def test_a_request_is_an_object(document: Any):
    with pytest.raises(InvalidRequest):
        SilenceRequest.of(document)
