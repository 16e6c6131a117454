"""The helpers of examples/sessions: a page that is loaded again, and a program that is started again.

Both come back to another worker, and find their session's state and its channels there.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import centrifuge
import pytest
from centrifuge import Client

from cluster import config
from cluster.metrics.counters import Counters
from cluster.sessions import Session, Sessions
from cluster.worker.stores import RedisStores
from tests.architecture.tree import ROOT
from tests.console.browser import chromium, needs_browser, visit
from tests.harness.cluster import Cluster
from tests.harness.waiting import until

EXAMPLES = ROOT / "examples" / "sessions"
NPM_SDK = ROOT / "tests" / "conformance" / "node_modules" / "centrifuge" / "dist"
WITHIN_SECONDS = 30
START_WITHIN_SECONDS = 120
#: Shows what the client knows; the worker's port stands behind the page's address.
PAGE = """<!doctype html><title>sessions</title><link rel="icon" href="data:,"><p id="session"></p><p id="state"></p>
<p id="channels"></p><p id="got"></p>
<script src="/centrifuge.js"></script>
<script type="module">
  import { clientWithSession } from "./session.js";
  const show = (id, value) => { document.getElementById(id).textContent = value; };
  const url = `ws://127.0.0.1:${location.search.slice(1)}/connection/websocket`;
  const client = clientWithSession(Centrifuge, url);
  client.on("connected", (ctx) => {
    const session = ctx.data.session;
    show("session", session.id + (session.resumed ? " resumed" : " new"));
    show("state", JSON.stringify(session.state));
  });
  client.on("message", (ctx) => show("state", JSON.stringify(ctx.data.session.state)));
  client.on("subscribed", (ctx) => {
    show("channels", ctx.channel);
    client.publish(ctx.channel, location.search);
  });
  client.on("publication", (ctx) => show("got", `${ctx.channel} ${ctx.data}`));
  client.connect();
</script>
"""


class Listener:
    """Asks for nothing: the test only changes sessions."""

    def publications(self, channel: str, publications: list[Any]) -> None: ...

    def joins_and_leaves(self, channel: str, events: list[bytes]) -> None: ...

    def resumed(self, channel: str) -> None: ...

    def session_changed(self, session: Session) -> None: ...


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers, each on a port of its own, too."""
    wanted = {"client": {"allowed_origins": ["http://127.0.0.1:*"]}}
    started = Cluster(tmp_path_factory.mktemp("sessions") / "run", workers=2, config=wanted)
    asyncio.run(started.start(START_WITHIN_SECONDS))
    yield started
    asyncio.run(started.stop())


@pytest.fixture
async def sessions(cluster: Cluster) -> AsyncIterator[Sessions]:
    """The sessions of the cluster, in its embedded Valkey, as an application changes them."""
    socket = cluster.directory / "data" / "run" / "valkey" / "valkey.sock"
    flags = {"broker.redis_urls": [f"unix://{socket}"], "client.insecure": True}
    stores = RedisStores(config.load(flags=flags, env={}), Counters(), name="test")
    stores.open_broker(Listener())
    opened = stores.open_sessions(Listener())
    await stores.start()
    yield opened
    await stores.aclose()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has the page, the helper and the npm SDK."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text(PAGE)
    for file in (EXAMPLES / "session.js", NPM_SDK / "centrifuge.js"):
        (folder / file.name).write_bytes(file.read_bytes())

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@needs_browser
async def test_a_page_that_is_loaded_again_finds_its_session_at_another_worker(
    cluster: Cluster, sessions: Sessions, site: str
):
    one, two = cluster.worker_port(0), cluster.worker_port(1)
    async with chromium() as browser, visit(browser, f"{site}?{one}") as seen:
        await seen.shows("#session", "new", WITHIN_SECONDS)
        session_id = (await seen.text("#session")).split()[0]
        await sessions.update(session_id, state={"cart": ["tea"]}, channels=("news",))
        await seen.shows("#state", '{"cart":["tea"]}', WITHIN_SECONDS)
        await seen.shows("#got", f"news ?{one}", WITHIN_SECONDS)

        await seen.page.goto(f"{site}?{two}")
        await seen.shows("#session", f"{session_id} resumed", WITHIN_SECONDS)
        await seen.shows("#state", '{"cart":["tea"]}', WITHIN_SECONDS)
        await seen.shows("#channels", "news", WITHIN_SECONDS)
        await seen.shows("#got", f"news ?{two}", WITHIN_SECONDS)

        await seen.page.reload()
        await seen.shows("#session", f"{session_id} resumed", WITHIN_SECONDS)
        await seen.shows("#state", '{"cart":["tea"]}', WITHIN_SECONDS)
        await seen.shows("#got", f"news ?{two}", WITHIN_SECONDS)
        # Another tab is another session.
        async with visit(browser, f"{site}?{one}") as other:
            await other.shows("#session", "new", WITHIN_SECONDS)
            assert session_id not in await other.text("#session")
        assert seen.problems == []


def helper() -> Any:
    spec = importlib.util.spec_from_file_location("session_example", EXAMPLES / "session.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_a_program_that_is_started_again_finds_its_session_at_another_worker(
    cluster: Cluster, sessions: Sessions, tmp_path: Path
):
    file = tmp_path / "session"
    got: list[str] = []

    class Program(helper().SavedSession):  # type: ignore[misc]
        async def on_subscribed(self, ctx: Any) -> None:
            got.append(ctx.channel)

    async def run(slot: int) -> tuple[Any, Client]:
        events = Program(file)
        url = f"ws://127.0.0.1:{cluster.worker_port(slot)}/connection/websocket"
        client = Client(url, events=events, data=events.data, proxy=None)
        await client.connect()
        await until(lambda: client.state == centrifuge.ClientState.CONNECTED, 20, "connected")
        await until(lambda: file.exists() and bool(file.read_text()), 20, "the id is kept")
        return events, client

    first, client = await run(0)
    session_id = file.read_text()
    assert first.state is None
    await sessions.update(session_id, state={"cart": ["tea"]}, channels=("news",))
    await client.disconnect()
    got.clear()

    second, client = await run(1)
    await until(lambda: second.state is not None, 20, "the state is there")
    assert (second.state, file.read_text()) == ({"cart": ["tea"]}, session_id)
    await until(lambda: got == ["news"], 20, "the channel of the session is there")
    assert file.stat().st_mode & 0o777 == 0o600
    await client.disconnect()


@pytest.mark.parametrize("name", ["session.js", "session.py"])
def test_the_page_shows_the_helper_as_it_is(name: str):
    page = (ROOT / "docs" / "how-to" / "sessions-in-the-browser.md").read_text()
    assert (EXAMPLES / name).read_text() in page
