"""The npm SDK in a page of a real Chromium, under the same remote control as in Node.

The page loads what the package publishes for browsers: `dist/centrifuge.js`, or `dist/centrifuge.protobuf.js`,
which is `centrifuge/build/protobuf` in one file. The socket is the browser's own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.conformance.sdk_clients import HERE, Events, Json, Refused, Sdk
from tests.console.browser import chromium, visit
from tests.harness.needs import is_missing

if TYPE_CHECKING:
    from playwright.async_api import Page

#: Pages of the tests come from here; the server must allow it.
ORIGINS = "http://127.0.0.1:*"
_BUNDLES = {"json": "centrifuge.js", "protobuf": "centrifuge.protobuf.js"}
_DIST = HERE / "node_modules" / "centrifuge" / "dist"
_PAGE = """<!doctype html><title>SDK</title><link rel="icon" href="data:,">
<script src="/{bundle}"></script>
<script type="module">
  import {{ commander }} from "/sdk_verbs.mjs";
  const speaksProtobuf = {speaks_protobuf};
  window.obey = commander({{ Centrifuge, speaksProtobuf, transport: {{}}, say: window.say }});
</script>
"""


@contextlib.contextmanager
def _site(codec: str) -> Iterator[str]:
    """The address of a page with the SDK of a codec."""
    bundle, speaks_protobuf = _BUNDLES[codec], str(codec == "protobuf").lower()
    page = _PAGE.format(bundle=bundle, speaks_protobuf=speaks_protobuf)
    files = {
        "/": ("text/html", page.encode()),
        f"/{bundle}": ("text/javascript", (_DIST / bundle).read_bytes()),
        "/sdk_verbs.mjs": ("text/javascript", (HERE / "sdk_verbs.mjs").read_bytes()),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = files.get(self.path, ("", b""))
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class BrowserSdk:
    """The npm SDK in a page."""

    def __init__(self, page: Page) -> None:
        self.events = Events()
        self._page = page

    async def do(self, verb: str, client: str, **facts: object) -> Json:
        command = {"id": 0, "do": verb, "client": client, **facts}
        answer: Json = await self._page.evaluate("(command) => window.obey(command)", command)
        if error := answer.get("error"):
            raise Refused(error["code"], error["message"])
        result: Json = answer["ok"]
        return result


@contextlib.asynccontextmanager
async def browser_sdk(codec: str) -> AsyncIterator[Sdk]:
    """Open a page with the npm SDK in a browser, and close it."""
    if not _DIST.exists():
        is_missing("needs the packages of tests/conformance: run 'make test'")
    with _site(codec) as address:
        async with chromium() as browser, visit(browser, "about:blank") as seen:
            sdk = BrowserSdk(seen.page)
            await seen.page.expose_function("say", sdk.events.add)
            await seen.page.goto(address)
            await seen.page.wait_for_function("window.obey !== undefined")
            yield sdk


BROWSER_SDKS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Sdk]]] = {
    "chromium": partial(browser_sdk, "json"),
    "chromium-protobuf": partial(browser_sdk, "protobuf"),
}
