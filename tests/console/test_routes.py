"""The console of a running cluster, asked without a browser."""

from __future__ import annotations

import asyncio
import re
import stat
from contextlib import ExitStack
from typing import Any

import pytest

from tests.console.stage import ORDER, VIEWERS, Stage
from tests.harness.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

COLLECTED_EVERY_SECONDS = 2.0


async def test_the_page_loads_nothing_from_elsewhere_and_no_inline_script(stage: Stage):
    page = await stage.get("/")
    assert page.status == 200
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", page.text)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page.text)


async def test_the_policy_allows_the_websocket_of_the_public_door(stage: Stage):
    host = f"127.0.0.1:{stage.cluster.port}"
    assert f"ws://{host}" in (await stage.get("/")).headers["Content-Security-Policy"]
    through_nginx = await stage.get("/", port=stage.cluster.port)
    assert f"ws://{host}" in through_nginx.headers["Content-Security-Policy"]


async def test_a_host_header_cannot_write_into_the_policy(stage: Stage):
    page = await stage.get("/", Host="x; script-src *")
    assert "script-src *" not in page.headers["Content-Security-Policy"]


async def test_every_file_the_page_names_is_there(stage: Stage):
    names = re.findall(r'(?:src|href)="(console/[^"]+)"', (await stage.get("/")).text)
    assert len(names) == 3
    for name in names:
        file = await stage.get(f"/{name}")
        assert file.status == 200
        again = await stage.get(f"/{name}", If_None_Match=file.headers["ETag"])
        assert (again.status, again.text) == (304, "")


@pytest.mark.parametrize("through_nginx", [False, True])
async def test_runbooks_are_read_at_the_door_as_text(stage: Stage, through_nginx: bool):
    port = stage.cluster.port if through_nginx else 0
    for name in ("ServiceDown.md", "ServiceDown"):
        page = await stage.get(f"/runbooks/{name}", port=port)
        assert page.status == 200
        assert page.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert page.text.startswith("# ServiceDown")
    assert "ServiceDown" in (await stage.get("/runbooks/", port=port)).text


@pytest.mark.parametrize("name", ["Nothing", "..%2f..%2fpyproject.toml", "%2e%2e", "a" * 200])
async def test_what_is_no_runbook_is_not_read(stage: Stage, name: str):
    assert (await stage.get(f"/runbooks/{name}")).status == 404


@pytest.mark.parametrize("path", ["..%2fdoor.py", "door.py", "nothing.js", "index.html", "%00"])
async def test_no_other_file_is_served(stage: Stage, path: str):
    assert (await stage.get(f"/console/{path}")).status == 404


@pytest.mark.parametrize("through_nginx", [False, True])
async def test_events_bring_numbers_and_alerts(stage: Stage, through_nginx: bool):
    def look() -> dict[str, Any]:
        found: dict[str, Any] = {}
        with stage.events(through_nginx=through_nginx) as events:
            for kind, document in events:
                found[kind] = document
                if len(found) == 3:
                    return found
        raise AssertionError(found)

    found = await asyncio.to_thread(look)
    hello, numbers, alerts = found["hello"], found["numbers"], found["alerts"]
    public = "" if through_nginx else f"127.0.0.1:{stage.cluster.port}"
    assert hello["live_address"] == public
    assert numbers["ready"] is True
    assert [row["state"] for row in numbers["workers"]] == ["ready", "ready"]
    assert alerts["level"] == "green"


async def test_there_are_only_so_many_viewers_and_places_come_back(stage: Stage):
    def can_look() -> bool:
        with ExitStack() as streams:
            try:
                next(streams.enter_context(stage.events()))
                return True
            except AssertionError as refused:
                assert "console.viewers" in str(refused)
                return False

    def crowd() -> None:
        with ExitStack() as streams:
            for _ in range(VIEWERS):
                next(streams.enter_context(stage.events()))
            assert not can_look()

    # Who has gone is noticed when the next frame is written.
    def until_all_fit() -> bool:
        try:
            crowd()
            return True
        except AssertionError:
            return False

    await until_async(lambda: asyncio.to_thread(until_all_fit), 20.0, "earlier viewers have gone")
    await until_async(lambda: asyncio.to_thread(can_look), 15.0, "a place is free again")


async def test_nobody_is_asked_while_nobody_looks(stage: Stage):
    async def is_quiet() -> bool:
        before = len(stage.monitoring.asked)
        await asyncio.sleep(COLLECTED_EVERY_SECONDS * 1.5)
        return len(stage.monitoring.asked) == before

    await until_async(is_quiet, 20.0, "the collection has ended")


async def test_an_acknowledgement_needs_the_key_also_from_loopback(stage: Stage):
    stage.monitoring.fire("HighErrorRate", "critical")
    assert (await stage.post("/console/ack", ORDER)).status == 401
    wrong = await stage.post("/console/ack", ORDER, Authorization="Bearer wrong")
    assert (wrong.status, "admin.key" in wrong.error) == (401, True)
    assert stage.monitoring.silences == []
    assert (await stage.post("/console/ack", ORDER, **stage.bearer)).status == 200
    assert stage.monitoring.silences[0]["comment"] == "ack: on it"
    assert stage.monitoring.silences[0]["createdBy"] == "kim"


async def test_a_page_of_another_origin_changes_nothing_even_with_the_key(stage: Stage):
    foreign = await stage.post(
        "/console/silence", ORDER, Origin="http://evil.example", **stage.bearer
    )
    assert foreign.status == 403
    assert stage.monitoring.silences == []


async def test_a_silence_can_be_made_and_ended(stage: Stage):
    made = await stage.post("/console/silence", ORDER, **stage.bearer)
    assert made.status == 200
    silence = stage.monitoring.silences[0]
    assert silence["comment"] == "on it"
    ended = await stage.post("/console/unsilence", {"id": silence["id"]}, **stage.bearer)
    assert ended.status == 200
    assert silence["status"]["state"] == "expired"


@pytest.mark.parametrize("document", [None, [], {}, {**ORDER, "seconds": 1}, {**ORDER, "note": ""}])
async def test_nonsense_is_refused_with_a_sentence(stage: Stage, document: object):
    answer = await stage.post("/console/ack", document, **stage.bearer)
    assert answer.status == 400
    assert answer.error


@pytest.mark.parametrize("path", ["/api/v2/status", "../x", "", "a" * 100])
async def test_only_a_silence_can_be_ended(stage: Stage, path: str):
    answer = await stage.post("/console/unsilence", {"id": path}, **stage.bearer)
    assert answer.status == 400


async def test_the_key_is_private_and_never_logged(stage: Stage):
    file = stage.cluster.directory / "data" / "admin.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(stage.key) >= 20
    assert stage.key not in stage.cluster.log()
    assert "admin_key_made" in stage.cluster.log()
