"""The server of the metrics of load tests and drills: what it serves, and that a bad client or a failure does not end it."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from http.server import HTTPServer

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from loadtest.bounded_http_server import BoundedHandler, BoundedHttpServer
from loadtest.families import MetricFamily
from loadtest.metrics_server import (
    MetricsServer,
    filled,
    filled_histogram,
    listen_address,
)
from tests.harness.foreign_pages import FOREIGN

GAUGE = MetricFamily("app_a", "gauge", "load", "A.", {"kind": ()})
COUNTER = MetricFamily("app_b_total", "counter", "load", "B.")
HISTOGRAM = MetricFamily("app_c_seconds", "histogram", "load", "C.", buckets=(0.1, 1.0))


@contextmanager
def serving(collect: Callable[[], Iterable[Metric]]) -> Iterator[MetricsServer]:
    server = MetricsServer(("127.0.0.1", 0), collect)
    try:
        yield server
    finally:
        server.close()


def page(server: MetricsServer, path: str = "/metrics") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_a_scrape_has_what_is_true_at_that_moment():
    values = [1.0, 2.0]
    with serving(lambda: [filled(GAUGE, [(("x",), values.pop(0))])]) as server:
        assert 'app_a{kind="x"} 1.0' in page(server)[1]
        assert 'app_a{kind="x"} 2.0' in page(server)[1]


def test_counters_and_histograms_are_exposed_as_prometheus_reads_them():
    made = [filled(COUNTER, [((), 3)]), filled_histogram(HISTOGRAM, [1, 2, 4], 5.5)]
    with serving(lambda: made) as server:
        status, text = page(server)
    assert status == 200
    samples = {
        (one.name, one.labels.get("le", "")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert samples["app_b_total", ""] == 3
    assert samples["app_c_seconds_bucket", "0.1"] == 1
    assert samples["app_c_seconds_bucket", "1"] == 2
    assert samples["app_c_seconds_bucket", "+Inf"] == samples["app_c_seconds_count", ""] == 4
    assert samples["app_c_seconds_sum", ""] == 5.5


def test_another_path_is_not_found_and_a_failure_is_a_failed_scrape_that_is_logged_once(
    capsys: pytest.CaptureFixture[str],
):
    is_broken = True

    def collect() -> list[Metric]:
        if is_broken:
            raise RuntimeError("the store is away")
        return [filled(COUNTER, [((), 1)])]

    with serving(collect) as server:
        assert page(server, "/other")[0] == 404
        assert [page(server)[0] for _ in range(3)] == [500, 500, 500]
        is_broken = False
        assert page(server)[0] == 200
    out = capsys.readouterr()
    assert len(re.findall("the store is away", out.out + out.err)) == 1


@pytest.fixture(scope="module")
def empty() -> Iterator[MetricsServer]:
    """A server without any metrics."""
    with serving(tuple) as server:
        yield server


def status(server: MetricsServer, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/metrics", headers=headers)
    with closing(connection), connection.getresponse() as response:
        return response.status


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_what_a_page_of_another_site_sends_is_refused(
    empty: MetricsServer, headers: dict[str, str]
):
    assert status(empty, headers) == 403


@pytest.mark.parametrize(
    "host", ["drill:9646", "10.0.0.7:9646", "[::1]:9646", "localhost", "load.internal"]
)
def test_prometheus_scrapes_it_by_its_own_names(empty: MetricsServer, host: str):
    assert status(empty, {"Host": host, "Origin": f"http://{host}"}) == 200


def test_the_host_that_it_listens_on_is_its_own_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(HTTPServer, "server_bind", lambda self: self.socket.bind(("127.0.0.1", 0)))
    server = BoundedHttpServer(("Load.example.com", 0), BoundedHandler)
    assert server.is_own("load.example.com:9646")
    assert not server.is_own("evil.example.com:9646")
    server.server_close()


def test_a_client_that_says_nothing_does_not_keep_others_out_for_long():
    with (
        serving(lambda: [filled(COUNTER, [((), 1)])]) as server,
        socket.create_connection(("127.0.0.1", server.port)),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        connection.close()


def test_the_end_waits_for_one_more_scrape_only_if_somebody_scrapes():
    with serving(lambda: [filled(COUNTER, [((), 1)])]) as server:
        assert not server.wait_for_last_scrape(60)
        while not server.is_scraped:
            page(server)
        waited: list[bool] = []
        waiter = threading.Thread(target=lambda: waited.append(server.wait_for_last_scrape(60)))
        waiter.start()
        while not waited:
            page(server)
            waiter.join(0.05)
        assert waited == [True]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9646", ("127.0.0.1", 9646)),
        ("[::1]:1", ("::1", 1)),
        ("tracker:0", ("tracker", 0)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]):
    assert listen_address(text) == address


@pytest.mark.parametrize("text", ["9646", ":9646", "host:", "host:x", "host:65536", ""])
def test_another_text_is_refused_with_what_is_allowed(text: str):
    with pytest.raises(ValueError, match=r"give HOST:PORT, such as 127\.0\.0\.1:9646"):
        listen_address(text)
