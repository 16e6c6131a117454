"""An application in a cluster: behind nginx, over a roll, with code that cannot boot, and while it is edited."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.docs.pages import blocks
from tests.harness.client import Client, ReplyError
from tests.harness.cluster import REPOSITORY, Cluster
from tests.harness.waiting import until, until_async

WITHIN = 60.0
API_KEY = "a" * 32
APPLICATION = """
from aiohttp import web

import cluster

VERSION = {version}
app = cluster.Application()


@app.rpc("version")
def version(client, data):
    return VERSION


@app.rpc("fail")
async def fail(client, data):
    raise KeyError("no such thing")


@app.rpc("refuse")
def refuse(client, data):
    raise cluster.ApplicationError(1000, "not today")


@app.rpc_from_server("members")
async def members(data):
    history = await app.history(data["channel"])
    return {{"version": VERSION, "seen": [one.data for one in history.publications]}}


async def page(request):
    return web.json_response({{"version": VERSION, "path": request.path}})


async def broken(request):
    raise KeyError("broken")


app.http.router.add_get("/", page)
app.http.router.add_get("/broken", broken)
"""


def application_cluster(folder: Path, *, workers: int = 2, **app: Any) -> Cluster:
    """A cluster whose application is the module `moving`, of version 1."""
    modules = folder / "modules"
    modules.mkdir()
    write_application(modules, 1)
    return Cluster(
        folder,
        workers=workers,
        modules=modules,
        config={"app": {"target": "moving:app", **app}},
    )


def write_application(modules: Path, version: int) -> None:
    (modules / "moving.py").write_text(APPLICATION.format(version=version))


async def version_of(cluster: Cluster) -> int:
    """The version that nginx gets from a worker."""
    answer = await cluster.get("/app/", cluster.port)
    assert answer.status == 200, answer
    version: int = json.loads(answer.body)["version"]
    return version


async def connected(cluster: Cluster) -> Client:
    client = Client(cluster.port)
    await client.start()
    return client


async def test_an_application_answers_over_nginx_and_its_failures_hurt_no_other(tmp_path: Path):
    async with application_cluster(tmp_path) as cluster:
        client = await connected(cluster)
        assert (await client.call("rpc", {"method": "version"})) == {"data": 1}
        with pytest.raises(ReplyError, match="1000 not today"):
            await client.call("rpc", {"method": "refuse"})
        with pytest.raises(ReplyError, match="100 internal server error"):
            await client.call("rpc", {"method": "fail"})
        assert await version_of(cluster) == 1
        assert (await cluster.get("/app/broken", cluster.port)).status == 500
        assert (await cluster.get("/app/none", cluster.port)).status == 404
        assert (await client.call("rpc", {"method": "version"})) == {"data": 1}
        metrics = await cluster.shows("app_errors_total", 2, type="handler")
        assert metrics.total("app_handler_failures_total", reason="exception") == 2
        assert metrics.total("app_handler_duration_seconds_count", kind="rpc") == 4
        failures = [line for line in cluster.log().splitlines() if '"handler_failed"' in line]
        assert len(failures) == 2
        assert all("KeyError" in line and "moving.py" in line for line in failures)
        await client.close()


async def test_a_roll_loads_new_code_and_the_old_serves_on_if_the_new_cannot_boot(tmp_path: Path):
    async with application_cluster(tmp_path) as cluster:
        assert cluster.modules is not None
        client = await connected(cluster)
        write_application(cluster.modules, 2)
        await cluster.roll()
        assert await version_of(cluster) == 2

        before = {worker.pid for worker in cluster.workers()}
        (cluster.modules / "moving.py").write_text("import no_such_module\n")
        cluster.signal(signal.SIGHUP)
        await until(lambda: "roll_failed" in cluster.log(), WITHIN, "the roll has failed")
        [line] = [one for one in cluster.log().splitlines() if '"roll_failed"' in one]
        assert "ModuleNotFoundError: No module named 'no_such_module'" in json.loads(line)["reason"]
        await until(
            lambda: {worker.pid for worker in cluster.workers()} == before,
            WITHIN,
            "the old are left",
        )
        assert [await version_of(cluster) for _ in range(4)] == [2] * 4
        await until_async(lambda: is_answered(client, 2), WITHIN, "clients are served")

        write_application(cluster.modules, 3)
        await cluster.roll()
        assert [await version_of(cluster) for _ in range(4)] == [3] * 4
        await client.close()


async def test_a_backend_calls_the_application_of_any_worker_with_the_server_api(tmp_path: Path):
    modules = tmp_path / "modules"
    modules.mkdir()
    write_application(modules, 1)
    config = {
        "app": {"target": "moving:app"},
        "http_api": {"key": API_KEY},
        "channel": {"without_namespace": {"history_size": 10, "history_ttl": "1m"}},
    }
    async with Cluster(tmp_path, workers=2, modules=modules, config=config) as cluster:
        await api_call(cluster.port, "publish", {"channel": "news", "data": "hello"})
        call = {"method": "members", "params": {"channel": "news"}}
        wanted = {"result": {"data": {"version": 1, "seen": ["hello"]}}}
        for port in (cluster.port, cluster.worker_port(0), cluster.worker_port(1)):
            assert await api_call(port, "rpc", call) == wanted
        # The handler needs a channel: a failure of the application, and no 500.
        failed = await api_call(cluster.port, "rpc", {"method": "members", "params": {}})
        assert failed["error"]["code"] == 100
        unknown = await api_call(cluster.port, "rpc", {"method": "version"})
        assert unknown["error"]["code"] == 104, "a method for clients is none for backends"
        await cluster.shows("app_errors_total", 1, type="handler")


async def api_call(port: int, method: str, body: dict[str, Any]) -> dict[str, Any]:
    url, headers = f"http://127.0.0.1:{port}/api/{method}", {"X-API-Key": API_KEY}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        answer: dict[str, Any] = await response.json()
        return answer


async def is_answered(client: Client, version: int) -> bool:
    try:
        return await client.call("rpc", {"method": "version"}) == {"data": version}
    except Exception:
        return False


async def test_an_application_whose_startup_fails_cannot_boot_and_says_why(tmp_path: Path):
    async with application_cluster(tmp_path) as cluster:
        assert cluster.modules is not None
        module = cluster.modules / "moving.py"
        failing = "\nasync def startup(http):\n    raise OSError('no database')\n"
        module.write_text(f"{module.read_text()}{failing}\napp.http.on_startup.append(startup)\n")
        cluster.signal(signal.SIGHUP)
        await until(lambda: "roll_failed" in cluster.log(), WITHIN, "the roll has failed")
        assert "app.http of the application cannot start: OSError: no database" in cluster.log()
        assert await version_of(cluster) == 1


async def test_with_reload_an_edit_rolls_the_workers(tmp_path: Path):
    async with application_cluster(tmp_path, workers=1, reload=True) as cluster:
        assert cluster.modules is not None
        await until(lambda: "code_watch_started" in cluster.log(), WITHIN, "the code is watched")
        write_application(cluster.modules, 2)

        async def is_new() -> bool:
            return await version_of(cluster) == 2

        await until_async(is_new, WITHIN, "the new code serves")
        (cluster.modules / "moving.py").write_text("app = (\n")
        await until(lambda: "roll_failed" in cluster.log(), WITHIN, "broken code is refused")
        assert await version_of(cluster) == 2


async def test_at_a_stop_handlers_of_ended_connections_run_before_the_cleanup(tmp_path: Path):
    cluster = application_cluster(tmp_path, workers=1)
    assert cluster.modules is not None
    module, ends = cluster.modules / "moving.py", cluster.modules / "ends"
    module.write_text(
        f"{module.read_text()}\n"
        f"def note(text):\n    open({str(ends)!r}, 'a').write(text + '\\n')\n\n"
        "@app.disconnecting\nasync def disconnecting(client, event):\n    note(f'{event.code}')\n\n"
        "async def cleanup(http):\n    note('cleanup')\n\napp.http.on_cleanup.append(cleanup)\n"
    )
    async with cluster:
        clients = [await connected(cluster) for _ in range(5)]
        assert await cluster.stop() == 0
        for client in clients:
            await client.close()
    assert ends.read_text().split() == ["3001"] * 5 + ["cleanup"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:app", "its module cannot be imported: ModuleNotFoundError"),
        ("examples.chat:none", "the module examples.chat has no none"),
        ("examples.chat:PAGE", "give an object of cluster.Application; this one is of the type"),
        ("examples.chat", "give a module and an object in it, as chat.main:app"),
    ],
)
def test_an_application_that_cannot_be_used_is_a_clear_sentence_and_exit_78(
    target: str, reason: str, tmp_path: Path
):
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "up", "--development", "--app", target,
         "--data-dir", str(tmp_path / "data")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert done.returncode == 78, done.stderr
    assert f'app.target: "{target}" is not allowed; {reason}' in done.stderr
    assert "Traceback" not in done.stderr


def test_reload_without_an_application_is_refused(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "up", "--development", "--reload"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert "app.reload: true is not allowed; give app.target (or --app)" in done.stderr


# --- the documentation and the examples ------------------------------------------------------------------------------


async def test_the_first_application_of_the_how_to_page_answers(tmp_path: Path):
    page = REPOSITORY / "docs" / "how-to" / "write-an-application.md"
    first = next(block for block in blocks(page) if block.kind == "python")
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sums.py").write_text(first.text)
    config = {"app": {"target": "sums:app"}}
    async with Cluster(tmp_path, workers=1, modules=modules, config=config) as cluster:
        client = await connected(cluster)
        assert await client.call("rpc", {"method": "add", "data": [1, 2, 3]}) == {"data": 6}
        await client.close()


async def example(folder: Path, name: str) -> Cluster:
    return Cluster(
        folder,
        workers=3,
        config={
            "app": {"target": f"examples.{name}:app"},
            "client": {"allowed_origins": ["http://127.0.0.1:*"]},
            "channel": {"without_namespace": {"presence": True, "join_leave": True}},
        },
    )


async def test_the_chat_keeps_history_and_checks_names_and_messages(tmp_path: Path):
    async with await example(tmp_path, "chat") as cluster:
        ann, ben = [
            Client(cluster.port, connect_request={"data": {"name": name}})
            for name in ("Ann", "Ben")
        ]
        heard: list[tuple[str, str]] = []
        for client in (ann, ben):
            await client.start()
        ann.subscribe("room-main", lambda _, one: None)
        ben.subscribe(
            "room-main", lambda _, one: heard.append((one["info"]["user"], one["data"]["text"]))
        )
        await until(lambda: ann.is_whole and ben.is_whole, WITHIN, "both are in the room")
        await ann.publish("room-main", "hello")
        await until(lambda: heard == [("Ann", "hello")], WITHIN, "Ben hears Ann")
        recent = await ben.call("rpc", {"method": "recent", "data": "room-main"})
        assert [(one["user"], one["text"]) for one in recent["data"]] == [("Ann", "hello")]
        people = await ben.call("rpc", {"method": "people", "data": "room-main"})
        assert people["data"] == {"people": ["Ann", "Ben"]}
        with pytest.raises(ReplyError, match="401 write 1 to 500 letters"):
            await ann.publish("room-main", "x" * 501)
        with pytest.raises(ReplyError, match="103"):
            await ann.publish("room-other", "x")
        nameless = Client(cluster.port)
        nameless_task = asyncio.create_task(nameless.start())
        await until(lambda: nameless.history.connect_errors[400] == 1, WITHIN, "a name is needed")
        nameless_task.cancel()
        for client in (ann, ben, nameless):
            await client.close()
        page = await cluster.get("/app/", cluster.port)
        assert (page.status, b"<title>Chat</title>" in page.body) == (200, True)


async def test_the_counter_is_one_for_all_tabs_on_all_workers(tmp_path: Path):
    async with await example(tmp_path, "counter") as cluster:
        first = Client(cluster.port)
        await first.start()
        session = first.result["data"]["session"]["id"]
        tabs = [first]
        for _ in range(8):
            tab = Client(cluster.port, connect_request={"data": {"session": session}})
            await tab.start()
            tabs.append(tab)
        assert len({tab.result["data"]["worker"] for tab in tabs}) == 3
        added = [tab.call("rpc", {"method": "add", "data": 1}) for tab in tabs for _ in range(2)]
        counts = [answer["data"]["count"] for answer in await asyncio.gather(*added)]
        assert sorted(counts) == list(range(1, 19))
        for tab in tabs:
            await until(partial(_is_told, tab, 18), WITHIN, "every tab is told")
        await cluster.roll()
        again = Client(cluster.port, connect_request={"data": {"session": session}})
        await again.start()
        assert again.result["data"]["session"]["state"] == {"count": 18}
        for tab in (*tabs, again):
            await tab.close()


def _is_told(tab: Client, count: int) -> bool:
    counts = [one["data"]["session"]["state"]["count"] for one in tab.messages]
    return count in counts
