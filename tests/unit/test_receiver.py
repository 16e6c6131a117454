"""The stand-in answers like Slack and PagerDuty, refuses what they refuse, and keeps the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer

from cluster import bounded_connections
from cluster.children.listeners import bind
from cluster.monitor.bounded_server import served
from cluster.monitor.stack import receiver
from cluster.monitor.stack.dead_mans_switch import DeadMansSwitch
from cluster.monitor.stack.receiver import Received, StandInReceiver
from tests.harness.foreign_pages import FOREIGN

TRIGGER: dict[str, Any] = {
    "routing_key": "k",
    "event_action": "trigger",
    "dedup_key": "d",
    "payload": {"summary": "ServiceDown: it is down", "source": "a", "severity": "critical"},
}


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[TestClient]:
    app = StandInReceiver(Received(tmp_path / "received.jsonl")).app()
    async with TestClient(TestServer(app)) as one:
        yield one


async def received(client: TestClient, query: str = "") -> list[dict[str, Any]]:
    answer = await client.get(f"/received{query}")
    assert answer.status == 200, await answer.text()
    found: list[dict[str, Any]] = await answer.json()
    return found


async def test_slack_answers_ok(client: TestClient):
    answer = await client.post("/slack/services/a", json={"attachments": [{"title": "X"}]})
    assert (answer.status, await answer.text()) == (200, "ok")
    answer = await client.post("/slack", data={"payload": '{"text": "hello"}'})
    assert answer.status == 200
    assert [one["kind"] for one in await received(client)] == ["slack", "slack"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "invalid_payload"),
        (b"[]", "invalid_payload"),
        (b"{}", "no_text"),
        (b'{"attachments": "x"}', "invalid_attachments"),
    ],
)
async def test_slack_refuses_with_its_error_codes(client: TestClient, body: bytes, says: str):
    answer = await client.post("/slack", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status, await answer.text()) == (400, says)
    assert await received(client) == []


async def test_pagerduty_follows_an_incident(client: TestClient):
    answer = await client.post("/v2/enqueue", json=TRIGGER)
    assert answer.status == 202
    assert await answer.json() == {
        "status": "success",
        "message": "Event processed",
        "dedup_key": "d",
    }
    for action, state in (("acknowledge", "acknowledged"), ("resolve", "resolved")):
        event = {"routing_key": "k", "event_action": action, "dedup_key": "d"}
        assert (await client.post("/v2/enqueue", json=event)).status == 202
        incidents = await (await client.get("/incidents")).json()
        assert incidents["d"]["state"] == state
    await client.post("/v2/enqueue", json=TRIGGER)
    incidents = await (await client.get("/incidents")).json()
    assert incidents["d"]["state"] == "triggered"
    assert len(await received(client, "?kind=pagerduty&alert=ServiceDown")) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"routing_key": ""}, "routing_key"),
        ({"event_action": "shout"}, "event_action"),
        ({"payload": None}, "payload"),
        ({"payload": {"summary": "s", "source": "a", "severity": "bad"}}, "severity"),
        ({"payload": {"summary": "", "source": "a", "severity": "info"}}, "summary"),
        ({"payload": {"summary": "x" * 1025, "source": "a", "severity": "info"}}, "1024"),
        ({"event_action": "resolve", "dedup_key": ""}, "dedup_key"),
    ],
)
async def test_pagerduty_refuses_an_incomplete_event(
    client: TestClient, change: dict[str, Any], says: str
):
    answer = await client.post("/v2/enqueue", json={**TRIGGER, **change})
    assert answer.status == 400
    document = await answer.json()
    assert document["status"] == "invalid event"
    assert says in " ".join(document["errors"])
    assert await received(client) == []


async def test_change_events_need_a_key_and_a_summary(client: TestClient):
    event = {"routing_key": "k", "payload": {"summary": "1.1 was deployed"}}
    assert (await client.post("/v2/change/enqueue", json=event)).status == 202
    assert (await client.post("/v2/change/enqueue", json={"payload": {}})).status == 400
    assert len(await received(client, "?kind=change")) == 1


async def test_the_dead_mans_switch_shows_its_last_heartbeat(client: TestClient):
    before = await (await client.get("/watchdog")).json()
    assert before == {"is_alive": False, "heard_at": None, "age_seconds": None}
    alerts = {"alerts": [{"labels": {"alertname": "Watchdog"}}]}
    assert (await client.post("/watchdog", json=alerts)).status == 200
    assert (await (await client.get("/watchdog")).json())["is_alive"]
    assert (await client.post("/watchdog", json=[])).status == 400


async def test_a_request_may_wait_for_a_notification(client: TestClient):
    waiting = asyncio.create_task(received(client, "?kind=slack&wait=20"))
    await client.post("/v2/enqueue", json=TRIGGER)
    await client.post("/slack", json={"text": "hello"})
    [one] = await waiting
    assert one["document"] == {"text": "hello"}
    assert await received(client, f"?after={one['id']}&wait=0.05") == []


async def test_it_fails_on_request(client: TestClient):
    assert (await client.post("/fail?status=503&times=1")).status == 200
    assert (await client.post("/slack", json={"text": "hello"})).status == 503
    assert (await client.post("/slack", json={"text": "hello"})).status == 200
    assert (await client.post("/fail?status=200")).status == 400


async def test_it_fails_for_one_kind_only(client: TestClient):
    assert (await client.post("/fail?status=403&times=2&kind=slack")).status == 200
    assert (await client.post("/slack", json={"text": "hello"})).status == 403
    assert (await client.post("/v2/enqueue", json=TRIGGER)).status == 202
    assert await (await client.get("/fail")).json() == {"slack": 1}
    assert (await client.post("/fail?times=0&kind=slack")).status == 200
    assert (await client.post("/slack", json={"text": "hello"})).status == 200
    refused = await client.post("/fail?kind=pigeon")
    assert refused.status == 400
    assert "slack|pagerduty|change" in await refused.text()


async def test_the_switch_raises_one_alarm_for_a_silence_and_reports_its_end():
    sent: list[tuple[str, str]] = []
    clock = [10_000.0]

    async def notify(kind: str, path: str, document: dict[str, Any]) -> None:
        sent.append((kind, document["state"]))

    switch = DeadMansSwitch(300, notify, lambda: clock[-1])
    await switch.check()
    assert sent == [], "there is no alarm before the first heartbeat"
    await switch.beat()
    clock.append(10_300)
    await switch.check()
    assert sent == []
    clock.append(10_301)
    await switch.check()
    clock.append(10_900)
    await switch.check()
    assert sent == [("deadman", "alarm")]
    clock.append(11_000)
    await switch.beat()
    clock.append(11_060)
    await switch.beat()
    assert sent == [("deadman", "alarm"), ("deadman", "ended")]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Step the machine's clock by so many seconds, from what it is without any step."""
    unstepped = time.time

    def by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: unstepped() + seconds)

    return by


@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_a_step_of_the_clock_after_a_heartbeat_raises_no_alarm(
    client: TestClient, step: Callable[[float], None], seconds: float
):
    await client.post("/watchdog", json={"alerts": []})
    step(seconds)
    shown = await (await client.get("/watchdog")).json()
    assert shown["is_alive"]
    assert 0 <= shown["age_seconds"] < 300
    sent: list[dict[str, Any]] = []

    async def notify(_: str, __: str, document: dict[str, Any]) -> None:
        sent.append(document)

    step(0)
    switch = DeadMansSwitch(300, notify)
    await switch.beat()
    step(seconds)
    await switch.check()
    assert sent == []


async def test_a_clock_that_was_set_back_keeps_no_alarm_back(step: Callable[[float], None]):
    app = StandInReceiver(Received(None), heartbeat_seconds=0.1).app()
    async with TestClient(TestServer(app)) as client:
        await client.post("/watchdog", json={"alerts": []})
        step(-3600)
        [alarm] = await received(client, "?kind=deadman&wait=60")
        assert alarm["document"]["state"] == "alarm"
        assert not (await (await client.get("/watchdog")).json())["is_alive"]


async def test_a_heartbeat_before_a_restart_counts_unless_it_is_in_the_future(
    client: TestClient, tmp_path: Path, step: Callable[[float], None]
):
    await client.post("/watchdog", json={"alerts": []})
    for seconds, is_alive in ((100, True), (400, False), (-3600, False)):
        step(seconds)
        again = StandInReceiver(Received(tmp_path / "received.jsonl")).app()
        async with TestClient(TestServer(again)) as other:
            shown = await (await other.get("/watchdog")).json()
        assert shown["is_alive"] is is_alive, seconds


async def test_notifications_survive_a_restart(client: TestClient, tmp_path: Path):
    await client.post("/v2/enqueue", json=TRIGGER)
    again = Received(tmp_path / "received.jsonl")
    assert len(again.select(kind="", alert="", after=0)) == 1
    assert again.incidents["d"]["state"] == "triggered"
    await client.delete("/received")
    assert Received(tmp_path / "received.jsonl").select(kind="", alert="", after=0) == []


async def test_a_body_that_is_too_large_is_refused(client: TestClient):
    answer = await client.post("/slack", data=b"x" * (2 << 20))
    assert answer.status == 413


async def test_a_body_that_does_not_come_is_answered_in_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(receiver, "BODY_SECONDS", 0.1)

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = await asyncio.wait_for(client.post("/slack", data=endless()), 30)
    assert (answer.status, await answer.text()) == (408, "send the body within 0.1 s")


async def test_a_connection_that_sends_no_further_request_is_closed(
    monkeypatch: pytest.MonkeyPatch,
):
    assert bounded_connections.IDLE_SECONDS == 75
    monkeypatch.setattr(bounded_connections, "IDLE_SECONDS", 0.1)
    sock = bind("127.0.0.1", 0)
    port = sock.getsockname()[1]
    async with served(StandInReceiver(Received(None)).app(), sock):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"HTTP/1.1 200 ")
        writer.close()


# --- pages of other sites ----------------------------------------------------------------


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_what_a_page_of_another_site_sends_is_refused_and_changes_nothing(
    client: TestClient, headers: dict[str, str]
):
    await client.post("/slack", json={"text": "kept"})
    for method, path in (("DELETE", "/received"), ("POST", "/fail"), ("GET", "/received")):
        answer = await client.request(method, path, headers=headers)
        assert answer.status == 403, path
    assert len(await received(client)) == 1
    assert (await (await client.get("/fail")).json()) == {}


@pytest.mark.parametrize("host", ["127.0.0.1:9099", "[::1]:9099", "localhost", "receiver:9099"])
async def test_its_own_names_and_its_own_pages_are_served(client: TestClient, host: str):
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert (await client.get("/received", headers=headers)).status == 200


def test_the_file_of_notifications_is_private_also_when_it_existed(tmp_path: Path):
    file = tmp_path / "received.jsonl"
    file.touch(mode=0o644)
    file.chmod(0o644)
    Received(file)
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    Received(file)._write({"id": 1})
    assert file.stat().st_mode & 0o777 == 0o600
