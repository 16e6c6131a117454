"""The console of a running cluster, without a browser."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import stat
import time
from contextlib import ExitStack
from typing import Any

import pytest

from cluster.config import ConsoleConfig
from cluster.console.routes import links
from tests.console.console_cluster import ACK, PASSWORD, VIEWERS, Answer, ConsoleCluster
from tests.harness.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

COLLECTED_EVERY_SECONDS = 2.0


async def test_the_page_loads_nothing_from_elsewhere_and_no_inline_script(
    console_cluster: ConsoleCluster,
):
    page = await console_cluster.get("/")
    assert page.status == 200
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", page.text)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page.text)


async def test_the_policy_allows_the_websocket_of_the_public_port(console_cluster: ConsoleCluster):
    host = f"127.0.0.1:{console_cluster.cluster.port}"
    assert f"ws://{host}" in (await console_cluster.get("/")).headers["Content-Security-Policy"]
    through_nginx = await console_cluster.get("/", port=console_cluster.cluster.port)
    assert f"ws://{host}" in through_nginx.headers["Content-Security-Policy"]


async def test_a_host_header_cannot_write_into_the_policy(console_cluster: ConsoleCluster):
    page = await console_cluster.get("/", Host="x; script-src *")
    assert "script-src *" not in page.headers["Content-Security-Policy"]


async def test_every_file_the_page_names_is_there(console_cluster: ConsoleCluster):
    names = re.findall(r'(?:src|href)="(console/[^"]+)"', (await console_cluster.get("/")).text)
    assert len(names) == 3
    for name in names:
        file = await console_cluster.get(f"/{name}")
        assert file.status == 200
        again = await console_cluster.get(f"/{name}", If_None_Match=file.headers["ETag"])
        assert (again.status, again.text) == (304, "")


@pytest.mark.parametrize("through_nginx", [False, True])
async def test_runbooks_are_served_as_text(console_cluster: ConsoleCluster, through_nginx: bool):
    port = console_cluster.cluster.port if through_nginx else 0
    for name in ("ServiceDown.md", "ServiceDown"):
        page = await console_cluster.get(f"/runbooks/{name}", port=port)
        assert page.status == 200
        assert page.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert page.text.startswith("# ServiceDown")
    assert "ServiceDown" in (await console_cluster.get("/runbooks/", port=port)).text


@pytest.mark.parametrize("name", ["Nothing", "..%2f..%2fpyproject.toml", "%2e%2e", "a" * 200])
async def test_other_files_than_runbooks_are_not_served(console_cluster: ConsoleCluster, name: str):
    assert (await console_cluster.get(f"/runbooks/{name}")).status == 404


@pytest.mark.parametrize("path", ["..%2froutes.py", "routes.py", "nothing.js", "index.html", "%00"])
async def test_no_other_file_is_served(console_cluster: ConsoleCluster, path: str):
    assert (await console_cluster.get(f"/console/{path}")).status == 404


@pytest.mark.parametrize("through_nginx", [False, True])
async def test_events_bring_numbers_and_alerts(
    console_cluster: ConsoleCluster, through_nginx: bool
):
    def look() -> dict[str, Any]:
        found: dict[str, Any] = {}
        with console_cluster.events(through_nginx=through_nginx) as events:
            for kind, document in events:
                found[kind] = document
                if len(found) == 3:
                    return found
        raise AssertionError(found)

    found = await asyncio.to_thread(look)
    hello, numbers, alerts = found["hello"], found["numbers"], found["alerts"]
    public = "" if through_nginx else f"127.0.0.1:{console_cluster.cluster.port}"
    assert hello["live_address"] == public
    assert numbers["ready"] is True
    assert [row["state"] for row in numbers["workers"]] == ["ready", "ready"]
    assert alerts["level"] == "green"


async def test_no_viewer_sees_the_password_of_another_service(console_cluster: ConsoleCluster):
    def look() -> dict[str, Any]:
        with console_cluster.events() as events:
            return dict(itertools.islice(events, 3))

    found = await asyncio.to_thread(look)
    assert PASSWORD not in str(found)
    assert found["hello"]["links"]["prometheus"] == "http://127.0.0.1:9090"
    assert found["alerts"]["level"] == "green"
    sent = base64.b64encode(f"console:{PASSWORD}".encode()).decode()
    assert console_cluster.monitoring.authorizations == {f"Basic {sent}"}


def test_a_link_without_an_address_of_its_own_shows_no_password():
    url = f"https://console:{PASSWORD}@prometheus:9090/base?token={PASSWORD}"
    grafana = f"https://u:{PASSWORD}@grafana/d/1?orgId=2"
    options = ConsoleConfig(prometheus_url=url, alertmanager_url="", grafana_link=grafana)
    assert links(options) == {
        "prometheus": "https://prometheus:9090/base",
        "alertmanager": "",
        "grafana": "https://grafana/d/1?orgId=2",
    }


async def test_viewers_are_limited_but_an_operator_has_a_place_and_those_that_leave_make_room(
    console_cluster: ConsoleCluster,
):
    bearer = console_cluster.bearer

    def can_view() -> bool:
        with ExitStack() as streams:
            try:
                next(streams.enter_context(console_cluster.events()))
                return True
            except AssertionError as refused:
                assert "console.viewers" in str(refused)
                return False

    def fill() -> None:
        with ExitStack() as streams:
            for _ in range(VIEWERS):
                next(streams.enter_context(console_cluster.events()))
            assert not can_view()
            kind, hello = next(streams.enter_context(console_cluster.events(headers=bearer)))
            assert (kind, hello["has_key"]) == ("hello", True), "an operator has a place"

    # The console notices that a viewer has left when it writes the next frame.
    def until_all_fit() -> bool:
        try:
            fill()
            return True
        except AssertionError:
            return False

    await until_async(lambda: asyncio.to_thread(until_all_fit), 20.0, "earlier viewers have left")
    await until_async(lambda: asyncio.to_thread(can_view), 15.0, "another viewer is allowed")


async def test_no_service_is_asked_without_a_viewer(console_cluster: ConsoleCluster):
    async def is_idle() -> bool:
        before = len(console_cluster.monitoring.asked)
        await asyncio.sleep(COLLECTED_EVERY_SECONDS * 1.5)
        return len(console_cluster.monitoring.asked) == before

    await until_async(is_idle, 20.0, "the collection has ended")


async def test_guessing_the_key_is_slowed_down_per_address_and_counted(
    console_cluster: ConsoleCluster,
):
    async def ask(client: str, key: str) -> Answer:
        headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": client}
        return await console_cluster.post("/console/key", {}, **headers)

    began = time.monotonic()
    answers = await asyncio.gather(*(ask("10.99.0.1", f"guess {n}") for n in range(60)))
    statuses = [answer.status for answer in answers]
    # One more for each five seconds that the answers took.
    assert 10 <= statuses.count(401) <= 11 + (time.monotonic() - began) / 5
    assert statuses.count(429) == 60 - statuses.count(401)
    refused = next(answer for answer in answers if answer.status == 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= 6
    assert "10.99.0.1" in refused.error
    assert (await ask("10.99.0.1", console_cluster.key)).status == 429
    assert (await ask("10.99.0.2", console_cluster.key)).status == 200
    scrape = await console_cluster.cluster.metrics()
    rejected = "app_admin_requests_rejected_total"
    assert scrape.total(rejected, reason="key") >= 10
    assert scrape.total(rejected, reason="key_rate") >= statuses.count(429)


async def test_an_acknowledgement_needs_the_key_also_from_loopback(console_cluster: ConsoleCluster):
    console_cluster.monitoring.fire("HighErrorRate", "critical")
    assert (await console_cluster.post("/console/ack", ACK)).status == 401
    wrong = await console_cluster.post("/console/ack", ACK, Authorization="Bearer wrong")
    assert (wrong.status, "admin.key" in wrong.error) == (401, True)
    assert console_cluster.monitoring.silences == []
    assert (await console_cluster.post("/console/ack", ACK, **console_cluster.bearer)).status == 200
    assert console_cluster.monitoring.silences[0]["comment"] == "ack: on it"
    assert console_cluster.monitoring.silences[0]["createdBy"] == "kim"


async def test_a_page_of_another_origin_changes_nothing_even_with_the_key(
    console_cluster: ConsoleCluster,
):
    foreign = await console_cluster.post(
        "/console/silence", ACK, Origin="http://evil.example", **console_cluster.bearer
    )
    assert foreign.status == 403
    assert console_cluster.monitoring.silences == []


async def test_a_silence_can_be_made_and_ended(console_cluster: ConsoleCluster):
    made = await console_cluster.post("/console/silence", ACK, **console_cluster.bearer)
    assert made.status == 200
    silence = console_cluster.monitoring.silences[0]
    assert silence["comment"] == "on it"
    ended = await console_cluster.post(
        "/console/unsilence", {"id": silence["id"]}, **console_cluster.bearer
    )
    assert ended.status == 200
    assert silence["status"]["state"] == "expired"


@pytest.mark.parametrize("document", [None, [], {}, {**ACK, "seconds": 1}, {**ACK, "note": ""}])
async def test_an_invalid_request_is_refused_with_a_sentence(
    console_cluster: ConsoleCluster, document: object
):
    answer = await console_cluster.post("/console/ack", document, **console_cluster.bearer)
    assert answer.status == 400
    assert answer.error


@pytest.mark.parametrize("path", ["/api/v2/status", "../x", "", "a" * 100])
async def test_only_a_silence_can_be_ended(console_cluster: ConsoleCluster, path: str):
    answer = await console_cluster.post(
        "/console/unsilence", {"id": path}, **console_cluster.bearer
    )
    assert answer.status == 400


async def test_the_key_is_private_and_never_logged(console_cluster: ConsoleCluster):
    file = console_cluster.cluster.directory / "data" / "admin.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(console_cluster.key) >= 20
    assert console_cluster.key not in console_cluster.cluster.log()
    assert "admin_key_made" in console_cluster.cluster.log()
