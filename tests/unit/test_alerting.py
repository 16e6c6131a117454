"""The client of Prometheus and Alertmanager: both transports fail in the same sentences."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import pytest

from cluster.alerting import alertmanager
from cluster.alerting.alertmanager import ActiveAlert, Silence, earlier_acknowledgements
from cluster.alerting.async_http import AsyncHttpService
from cluster.alerting.http import HttpEndpoint, HttpRequest, HttpService
from cluster.alerting.matchers import Matcher, exactly, matcher, matchers_of
from cluster.alerting.prometheus import Rule, query_request, rules_request
from cluster.errors import HttpStatusError, NotAnswering
from tests.harness.processes import free_ports

Send = Callable[..., Any]


class Server:
    """Answers every request with one status and body; None sends a byte now and then, without end."""

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes | None = b"[]"
        self.received: list[tuple[str, str, bytes]] = []
        self.authorizations: list[str | None] = []
        self.is_stopped = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.received.append((self.command, self.path, body))
                server.authorizations.append(self.headers.get("Authorization"))
                self.send_response(server.status)
                if server.body is not None:
                    self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                try:
                    while server.body is None and not server.is_stopped.wait(0.05):
                        self.wfile.write(b" ")
                    self.wfile.write(server.body or b"")
                except OSError:
                    self.close_connection = True

            do_GET = do_POST = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                """Write nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, args=(0.02,))
    thread.start()
    yield running
    running.is_stopped.set()
    running.http.shutdown()
    running.http.server_close()
    thread.join()


def send_blocking(request: HttpRequest[Any], url: str, **limits: Any) -> Any:
    return HttpService("Prometheus", url, **limits).ask(request)


def send_async(request: HttpRequest[Any], url: str, **limits: Any) -> Any:
    async def ask() -> Any:
        async with aiohttp.ClientSession() as session:
            endpoint = HttpEndpoint("Prometheus", url, **limits)
            return await AsyncHttpService(endpoint, session).ask(request)

    return asyncio.run(ask())


both = pytest.mark.parametrize("send", [send_blocking, send_async])


@both
def test_a_request_carries_its_parameters_and_its_answer_is_read(send: Send, server: Server):
    server.body = b'{"status": "success", "data": {"result": [{"metric": {}, "value": [0, "2"]}]}}'
    [sample] = send(query_request("1 + 1"), server.url)
    assert sample.value == 2
    assert server.received == [("GET", "/api/v1/query?query=1+%2B+1", b"")]


@both
@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (500, b'{"error": "tsdb is broken"}', "answered 500 to GET /api/v1/rules: tsdb is broken"),
        (302, b"", "answered 302 to GET /api/v1/rules"),
        (200, b"<html>", r"cannot be understood \(no JSON\)"),
        (200, b'{"status": "error"}', "no status success"),
        (200, b'{"status": "success", "data": {}}', r"KeyError\('groups'\)"),
        (200, b"[" * 100, "no JSON"),
    ],
)
def test_a_failure_is_one_sentence(send: Send, server: Server, status: int, body: bytes, text: str):
    server.status, server.body = status, body
    with pytest.raises(NotAnswering, match=text) as failure:
        send(rules_request(), server.url)
    assert str(failure.value).startswith(f"Prometheus at {server.url} ")
    assert "\n" not in str(failure.value)


@both
def test_an_http_error_keeps_its_status_and_body(send: Send, server: Server):
    server.status, server.body = 503, b"not now"
    with pytest.raises(HttpStatusError) as failure:
        send(rules_request(), server.url)
    assert (failure.value.status, failure.value.body) == (503, "not now")


@both
def test_an_answer_that_does_not_end_is_given_up_at_the_deadline(send: Send, server: Server):
    server.body = None
    started = time.monotonic()
    with pytest.raises(NotAnswering, match=r"no answer within 0\.3 s"):
        send(rules_request(), server.url, timeout_seconds=0.3)
    assert time.monotonic() - started < 5


@both
def test_an_answer_that_is_too_large_is_refused(send: Send, server: Server):
    server.body = b" " * 2000
    with pytest.raises(NotAnswering, match="larger than 1000 bytes"):
        send(rules_request(), server.url, max_bytes=1000)


@both
def test_a_service_that_does_not_listen_is_unreachable(send: Send):
    url = f"http://127.0.0.1:{free_ports(1)}"
    with pytest.raises(NotAnswering, match=r"cannot be reached \(.*[Rr]efused|Connect call failed"):
        send(rules_request(), url, hint="start it")


@both
@pytest.mark.parametrize("url", ["localhost:9090", "ftp://x", "http://[broken"])
def test_a_url_that_is_not_one_is_named(send: Send, url: str):
    with pytest.raises(NotAnswering, match="is no address of Prometheus"):
        send(rules_request(), url)


@both
@pytest.mark.parametrize("status", [200, 500])
def test_the_password_of_an_address_is_sent_and_in_no_error(
    send: Send, server: Server, status: int
):
    server.status = status
    server.body = b"{}"
    address = server.url.removeprefix("http://")
    for url in (
        f"http://be:hunt%65r4@{address}",
        f"http://be:hunter4@127.0.0.1:{free_ports(1)}",
        "http://be:hunter4@[",
        "http://be:hunter4@127.0.0.1:99999",
    ):
        with pytest.raises(NotAnswering) as failure:
            send(rules_request(), url)
        assert "hunt" not in str(failure.value)
        assert "127.0.0.1" in str(failure.value) or "***@[" in str(failure.value)
    assert server.authorizations == [f"Basic {base64.b64encode(b'be:hunter4').decode()}"]


@both
def test_a_service_without_an_address_says_how_to_give_one(send: Send):
    with pytest.raises(
        NotAnswering, match=r"Prometheus has no address: set console\.prometheus_url"
    ):
        send(rules_request(), "", hint="set console.prometheus_url")


@both
def test_a_silence_that_is_gone_counts_as_ended_unless_it_must_exist(send: Send, server: Server):
    server.status, server.body = 404, b"silence not found"
    assert send(alertmanager.expire_request("x"), server.url) is None
    with pytest.raises(HttpStatusError):
        send(alertmanager.expire_request("x", must_exist=True), server.url)
    assert [path for _, path, _ in server.received] == ["/api/v2/silence/x"] * 2


def test_a_rule_that_was_not_evaluated_is_not_settled():
    rule = Rule("A", "g", "inactive", "ok", "", 0.0, 0.0, "up", {}, {})
    assert not rule.is_settled


# --- matchers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("ServiceDown", Matcher("alertname", "ServiceDown")),
        ("instance=a:8001", Matcher("instance", "a:8001")),
        ('team != "web socket"', Matcher("team", "web socket", is_equal=False)),
        ("severity=~crit.*", Matcher("severity", "crit.*", is_regex=True)),
        ("severity!~a|b", Matcher("severity", "a|b", is_regex=True, is_equal=False)),
    ],
)
def test_matchers_are_written_as_amtool_writes_them(text: str, made: Matcher):
    assert matcher(text) == made
    assert matcher(str(made)) == made
    assert matchers_of(str(made)) == [made]


@pytest.mark.parametrize(
    ("text", "value"), [(r'a="x\"y"', 'x"y'), (r'a="x\\ny"', r"x\ny"), (r'a="x\ny"', "x\ny")]
)
def test_quoted_values_are_unescaped_as_alertmanager_does(text: str, value: str):
    assert matcher(text).value == value
    assert [one.value for one in matchers_of(text)] == [value]


@pytest.mark.parametrize("text", ["", "a b", "=x", "a=~["])
def test_what_is_not_a_matcher_is_refused(text: str):
    with pytest.raises(ValueError, match=r"not a matcher|regular expression"):
        matcher(text)


# --- acknowledgements ----------------------------------------------------------------------


def an_alert(**labels: str) -> ActiveAlert:
    return ActiveAlert({"alertname": "A", **labels}, {}, "active", (), (), 0.0, ())


def an_ack(
    labels: dict[str, str], *, comment: str = "ack: on it", state: str = "active"
) -> Silence:
    return Silence("id", tuple(exactly(labels)), "ann", comment, 0.0, 1.0, state)


EVERY = {"cluster": "blue"}  # the external label of Prometheus
ALERTS = [
    an_alert(**EVERY),
    an_alert(instance="a", **EVERY),
    an_alert(instance="a", code="3", **EVERY),
    ActiveAlert({"alertname": "B", **EVERY}, {}, "active", (), (), 0.0, ()),
]


@pytest.mark.parametrize("alert", ALERTS)
@pytest.mark.parametrize("with_external_labels", [True, False])
def test_an_acknowledgement_is_found_with_and_without_external_labels(
    alert: ActiveAlert, with_external_labels: bool
):
    full = dict(alert.labels)
    own = {name: value for name, value in full.items() if name not in EVERY}
    given, asked = (full, own) if with_external_labels else (own, full)
    assert len(earlier_acknowledgements(asked, ALERTS, [an_ack(given)])) == 1


@pytest.mark.parametrize(
    "silence",
    [
        an_ack({"alertname": "A", "instance": "a"}, comment="a deployment"),
        an_ack({"alertname": "A", "instance": "a"}, state="expired"),
        an_ack({"alertname": "A"}),
        an_ack({"alertname": "A", "instance": "a", "code": "3"}),
        Silence("id", (Matcher("alertname", "A"),), "ann", "ack: all", 0.0, 1.0, "active"),
        Silence("id", (Matcher("instance", "a|b", True),), "ann", "ack: all", 0.0, 1.0, "active"),
    ],
)
def test_other_silences_are_not_its_acknowledgements(silence: Silence):
    labels = {"alertname": "A", "instance": "a"}
    assert earlier_acknowledgements(labels, ALERTS, [silence]) == []
