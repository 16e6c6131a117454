"""No request, however strange, is answered with 500: every port, path, header and body."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.api.method_table import API_TABLE
from cluster.http_runner import HttpRunner
from cluster.methods import API_METHODS
from cluster.monitor.incidents import incident_server
from cluster.monitor.incidents.store import IncidentStore
from cluster.monitor.stack.receiver import Received, StandInReceiver
from tests.harness.cluster import Cluster
from tests.harness.processes import free_ports
from tests.harness.raw_client import STRICT_CONFIG
from tests.harness.under_load import assert_no_traceback

EXAMPLES = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MANY_CHUNKS = 4097
T = TypeVar("T")
API_KEY = "a key of 32 bytes and a few more"
ALLOWED_ABOVE_500 = (
    501,  # nginx does not implement this transfer coding
    502,  # Alertmanager does not answer
    503,  # not ready, or too many viewers
    505,  # nginx does not speak this version of HTTP
)

TEXTS = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=40)
STRANGE_VALUES = (
    "[", "]", "http://[", "http://[::1", "://", "//", "http://", "[::1]:x", "a:b:c", "127.0.0.1:99999",
    "*", "%", "%zz", "%00", "http://\u00e9", "null", "-1", "1e9", "9" * 400, "bytes=0-,", ",,,", ";=;",
    "chunked, x", "text/plain; charset=nonsense", "application/json; charset=utf-7", "Bearer",
    "Bearer \u00ff", "Basic Og==", "100-continue", 'W/"x"', 'x="', "2001:db8::1%", "1.2.3.4, [",
    "websocket", "application/x-www-form-urlencoded; charset=nonsense", "multipart/form-data", "gzip", "deflate",
    "text/plain;version=x.y", "application/openmetrics-text;version=1e9;escaping=dots",
)  # fmt: skip
STRANGE = st.sampled_from(STRANGE_VALUES)
VALUES = TEXTS | STRANGE
HEADER_NAMES = (
    "Host", "Origin", "Authorization", "Content-Type", "X-Forwarded-For", "X-Real-IP", "User-Agent",
    "Cookie", "If-None-Match", "If-Modified-Since", "Range", "Accept", "Accept-Encoding", "Expect",
    "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol",
    "Content-Encoding", "Forwarded", "X-Forwarded-Proto", "X-Forwarded-Host", "Referer",
)  # fmt: skip
NAMES = st.sampled_from(HEADER_NAMES)
KNOWN_PATHS = st.sampled_from(
    [
        "/", "/health", "/ready", "/metrics", "/console/events", "/console/app.js", "/console/key",
        "/console/ack", "/console/silence", "/console/unsilence", "/runbooks", "/runbooks/",
        "/runbooks/ServiceDown", "/connection/websocket", "/api/publish", "/api", "/slack", "/slack/x",
        "/v2/enqueue", "/v2/change/enqueue", "/watchdog", "/fail", "/received", "/incidents",
    ]
)  # fmt: skip
PATHS = KNOWN_PATHS | st.builds(
    lambda path, more: path + more,
    KNOWN_PATHS,
    st.sampled_from(
        [
            "?session=%ff", "?a=%", "?after=x", "?after=1e5&wait=nan", "?wait=-inf", "?status=x&times=[",
            "/..%2f..%2fetc", "/%00", "//", "?%5b", "#x", "/a%", "?kind[]=1", "?after=" + "9" * 5000,
        ]
    ),
)  # fmt: skip
METHODS = st.sampled_from(
    [
        "GET",
        "GET",
        "POST",
        "POST",
        "DELETE",
        "HEAD",
        "OPTIONS",
        "PUT",
        "PATCH",
        "TRACE",
        "CONNECT",
        "get",
        "X-Y",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS
    | st.sampled_from(["\ud83d", "trigger", "resolve", "HighErrorRate", "critical"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        [
            "labels", "alertname", "note", "author", "seconds", "id", "alerts", "attachments", "text",
            "payload", "summary", "source", "severity", "routing_key", "event_action", "dedup_key", "title",
        ]
    ), inner, max_size=8),
    max_leaves=12,
)  # fmt: skip
ACK = {"labels": {"alertname": "X"}, "note": "n", "author": "a", "seconds": 600}
EVENT = {
    "routing_key": "k",
    "event_action": "trigger",
    "dedup_key": "d",
    "payload": {"summary": "s", "source": "a", "severity": "critical"},
}
NEARLY_RIGHT = st.builds(
    lambda document, key, value: {**document, key: value},
    st.sampled_from([ACK, EVENT, {"text": "t", "attachments": [{"title": "T"}]}, {"alerts": []}]),
    st.sampled_from([*ACK, *EVENT, "alerts", "attachments", "text", "id"]),
    JSON,
)
BODIES = (
    st.binary(max_size=60)
    | st.builds(lambda document: json.dumps(document).encode(), JSON | NEARLY_RIGHT)
    | st.sampled_from(
        [b"[" * 5000, b'{"a":' * 5000, b"payload=%7b%7d", b"payload=%", b"\xff\xfe", b"9" * 5000]
    )
)


API_PATHS = st.sampled_from(
    [
        *(f"/api/{name}" for name in API_METHODS), "/api", "/api", "/api/openapi.json", "/api/nothing",
        "/api/channels?pattern=[", "/api/history?channel=c&limit=%ff", "/api/presence?channel=%00",
        "/api/history?channel=c&limit=1e9", "/api/info?api_key=%ff",
    ]
)  # fmt: skip
# What each method needs, and what some of them take beside it.
API_NEEDS = {
    "channel": "c", "channels": ["c", "d"], "data": {"a": 1}, "user": "u", "method": "publish",
    "params": {"channel": "c", "data": 1}, "uid": "t", "expire_at": 9,
    "commands": [{"publish": {"channel": "c", "data": 1}}, {"nothing": {}}, {"history": {"limit": -2}}],
}  # fmt: skip
API_TAKES = {
    "b64data": "MQ==", "client": "x", "session": "s", "tags": {"a": "b"}, "limit": 3, "reverse": True,
    "since": {"offset": 1, "epoch": "e"}, "pattern": "[", "disconnect": {"code": 4000, "reason": "r"},
    "channel_info": 1, "info": "kept:a", "recover_since": {"offset": 1}, "delta": True, "version": 2,
    "version_epoch": "e", "idempotency_key": "k", "skip_history": True, "parallel": True, "token": "a.b.c",
}  # fmt: skip
API_MEMBERS = st.sampled_from([*API_NEEDS, *API_TAKES])
# With nothing that a parser of JSON refuses: BODIES has that.
API_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e308, 1e308) | TEXTS
    | st.sampled_from([*API_NEEDS.values(), *API_TAKES.values(), "\0", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(API_MEMBERS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def mostly(usual: st.SearchStrategy[T], *others: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The usual four times as often as each of the others; `|` counts the parts of each as well."""
    return st.sampled_from([*[usual] * 4, *others]).flatmap(lambda chosen: chosen)


def api_bodies(path: str) -> st.SearchStrategy[bytes]:
    """Bodies of a request to the server API, mostly with a few strange values of what its method takes."""
    method = API_TABLE.get(path.removeprefix("/api/"))
    taken = [one.name for one in method.params] if method else []
    member = st.sampled_from(taken or [*API_NEEDS])
    document = st.dictionaries(member, API_JSON, max_size=3).map(
        lambda changed: json.dumps({**API_NEEDS, **changed}).encode()
    )
    return mostly(document, st.lists(document, max_size=3).map(b"\n".join), BODIES)


@st.composite
def requests(
    draw: st.DrawFn,
    paths: st.SearchStrategy[str] = PATHS,
    bodies: st.SearchStrategy[bytes] = BODIES,
) -> tuple[bytes, dict[str, str]]:
    """A request without its credentials, and its headers."""
    body = draw(bodies)
    headers = {"Host": "127.0.0.1", "Content-Type": "application/json"}
    headers |= draw(st.dictionaries(NAMES, VALUES, max_size=4))
    framing = draw(st.sampled_from(["length", "length", "length", "chunked", "bytes", "none"]))
    if framing == "length":
        headers["Content-Length"] = str(len(body))
    elif framing == "chunked":
        headers["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif framing == "bytes":
        headers["Transfer-Encoding"] = "chunked"
        # More chunks than any parser takes before it pauses.
        chunks = (b"1\r\n%c\r\n" % byte for byte in body + b" " * MANY_CHUNKS)
        body = b"".join(chunks) + b"0\r\n\r\n"
    else:
        body = b""
    version = draw(st.sampled_from(["1.1", "1.1", "1.1", "1.0", "2.0", "9.9"]))
    line = f"{draw(METHODS)} {draw(paths)} HTTP/{version}\r\n".encode("latin-1", "replace")
    return line + b"%b\r\n" + body, headers


def document_request(path: str, kind: str, body: bytes) -> tuple[bytes, dict[str, str]]:
    """A POST of a body to a path."""
    headers = {"Host": "127.0.0.1", "Content-Type": kind, "Content-Length": str(len(body))}
    return f"POST {path} HTTP/1.1\r\n".encode() + b"%b\r\n" + body, headers


API_POSTS = API_PATHS.flatmap(
    lambda path: st.builds(
        document_request, st.just(path), st.just("application/json"), api_bodies(path)
    )
)


def answer_of(port: int, request: bytes) -> bytes:
    """The begin of the answer; empty if the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.settimeout(30)
        # Whoever sends no more may get no answer: the request is whole without that.
        sock.sendall(request)
        return sock.recv(4096)


def check(port: int, request: tuple[bytes, dict[str, str]], **more: str) -> None:
    """Send a request; its answer must not be the server's fault."""
    template, headers = request
    head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **more}.items())
    answer = answer_of(port, template.replace(b"%b", head.encode("latin-1", "replace"), 1))
    assert answer.startswith(b"HTTP/"), answer[:100]
    status = int(answer.split(b" ", 2)[1])
    assert status < 500 or status in ALLOWED_ABOVE_500, answer[:300]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose log must have no traceback at the end."""
    config = {**STRICT_CONFIG, "http_api": {"key": API_KEY}}
    cluster = Cluster(tmp_path_factory.mktemp("any") / "run", workers=1, config=config)
    asyncio.run(cluster.start())
    try:
        yield cluster
        scrape = asyncio.run(cluster.metrics())
        assert scrape.total("app_supervisor_errors_total") == 0
        assert scrape.total("app_errors_total") == 0
    finally:
        asyncio.run(cluster.stop())
    assert_no_traceback(cluster)


@pytest.fixture(scope="module")
def tracker_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an incident tracker's metrics."""
    folder = tmp_path_factory.mktemp("incidents")
    IncidentStore(folder).close()
    port = free_ports(1)
    end = incident_server.serve("127.0.0.1", port, folder)
    yield port
    end()


@pytest.mark.slow
@EXAMPLES
@given(request=requests())
def test_the_admin_port_answers_no_request_with_500(
    strict: Cluster, request: tuple[bytes, dict[str, str]]
):
    check(strict.admin_port, request)


@pytest.mark.slow
@EXAMPLES
@given(request=requests())
def test_the_admin_port_answers_no_request_of_a_key_holder_with_500(
    strict: Cluster, request: tuple[bytes, dict[str, str]]
):
    key = (strict.directory / "data" / "admin.key").read_text().strip()
    check(strict.admin_port, request, Authorization=f"Bearer {key}")


@pytest.mark.slow
@EXAMPLES
@given(request=requests())
def test_a_worker_answers_no_request_with_500(
    strict: Cluster, request: tuple[bytes, dict[str, str]]
):
    check(strict.worker_port(0), request)


@pytest.mark.slow
@settings(EXAMPLES, max_examples=600)
@given(request=mostly(API_POSTS, requests(API_PATHS, api_bodies("/api"))))
def test_the_server_api_answers_no_request_of_a_key_holder_with_500(
    strict: Cluster, request: tuple[bytes, dict[str, str]]
):
    check(strict.worker_port(0), request, **{"X-API-Key": API_KEY})


@pytest.mark.slow
@EXAMPLES
@given(request=requests())
def test_the_public_port_answers_no_request_with_500(
    strict: Cluster, request: tuple[bytes, dict[str, str]]
):
    check(strict.port, request)


@pytest.mark.slow
@EXAMPLES
@given(request=requests())
def test_the_tracker_answers_no_request_with_500(
    tracker_port: int, request: tuple[bytes, dict[str, str]]
):
    check(tracker_port, request)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADER_NAMES)
def test_no_strange_value_of_a_header_is_answered_with_500(
    strict: Cluster, tracker_port: int, name: str
):
    key = (strict.directory / "data" / "admin.key").read_text().strip()
    keyed = {"Host": "127.0.0.1", "Authorization": f"Bearer {key}"}
    body = {"Content-Type": "application/json", "Content-Length": "2"}
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip

    def check_everywhere(value: str) -> None:
        strange = {name: value}
        post = (b"POST /console/key HTTP/1.1\r\n%b\r\n{}", {**keyed, **body, **strange})
        check(strict.admin_port, post)
        for path in (b"/metrics", b"/ready"):
            get = (b"GET " + path + b" HTTP/1.1\r\n%b\r\n", {**keyed, **strange})
            check(strict.admin_port, get)
        handshake = b"GET /connection/websocket HTTP/1.1\r\n%b\r\n"
        for port in (strict.port, strict.worker_port(0)):
            check(port, (handshake, {"Host": "127.0.0.1", **upgrade, **strange}))
        scrape = (b"GET /metrics HTTP/1.1\r\n%b\r\n", {"Host": "127.0.0.1", **strange})
        check(tracker_port, scrape)

    # A refusal of a request with a key is late on purpose.
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(check_everywhere, STRANGE_VALUES))


@pytest.mark.slow
@EXAMPLES
@given(
    path=st.sampled_from(["/console/ack", "/console/silence", "/console/unsilence"]), body=BODIES
)
def test_the_console_answers_no_document_with_500(strict: Cluster, path: str, body: bytes):
    key = (strict.directory / "data" / "admin.key").read_text().strip()
    request = document_request(path, "application/json", body)
    check(strict.admin_port, request, Authorization=f"Bearer {key}")


class RunningReceiver:
    """The stand-in receiver in a thread with its own event loop."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def _run(self) -> None:
        self._loop.run_until_complete(self._start())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())

    async def _start(self) -> None:
        app: Any = StandInReceiver(Received(self._file)).app()
        self._runner = HttpRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningReceiver]:
    """A receiver that writes what it gets into a file."""
    with RunningReceiver(tmp_path_factory.mktemp("received") / "received.jsonl") as running:
        yield running


@pytest.mark.slow
@EXAMPLES
@given(request=requests())
def test_the_receiver_answers_no_request_with_500(
    receiver: RunningReceiver, request: tuple[bytes, dict[str, str]]
):
    # What was requested with /fail is no fault.
    if b"/fail" not in request[0].split(b"\r\n", 1)[0]:
        check(receiver.port, request)


@pytest.mark.slow
@settings(EXAMPLES, max_examples=500)
@given(
    path=st.sampled_from(["/slack", "/v2/enqueue", "/v2/change/enqueue", "/watchdog"]),
    kind=st.sampled_from(["application/json", "application/json"]) | VALUES,
    body=BODIES,
)
def test_the_receiver_answers_no_document_with_500(
    receiver: RunningReceiver, path: str, kind: str, body: bytes
):
    check(receiver.port, document_request(path, kind, body))


@pytest.mark.slow
@EXAMPLES
@given(query=st.sampled_from(["wait", "after", "kind", "alert"]), value=STRANGE | st.just("nan"))
def test_the_receiver_answers_no_query_with_500(receiver: RunningReceiver, query: str, value: str):
    target = f"/received?{query}={quote(value)}"
    check(receiver.port, (f"GET {target} HTTP/1.1\r\n".encode() + b"%b\r\n", {"Host": "h"}))
