"""Serves the metrics of a load test or of drills to Prometheus.

Rules
- `collect` is called at each scrape and in a thread of its own; what it returns is not kept.
- One scrape is collected at a time. Silent clients delay none: see `bounded_http_server`.
- If `collect` fails, the scrape is answered with 500, so that Prometheus shows the target as down, and the
  first failure of a row is written to standard error.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from loadtest.bounded_http_server import BoundedHandler, BoundedHttpServer
from loadtest.families import MetricFamily

# Prometheus asks every fifteen seconds.
_LAST_SCRAPE_SECONDS: Final = 20.0
_PATH: Final = "/metrics"

Values = Iterable[tuple[tuple[str, ...], float]]


def listen_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, where an IPv6 address is in brackets.

    Raises:
        ValueError: if it is not that; says what is allowed.
    """
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (separator and host and port.isdecimal() and int(port) < 65536):
        raise ValueError(f"{text!r} is no address: give HOST:PORT, such as 127.0.0.1:9646")
    return host, int(port)


def filled(family: MetricFamily, values: Values) -> Metric:
    """A counter or gauge of the table with its values, each after the values of its labels."""
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    made = kind(family.name, family.help, labels=list(family.labels))
    for labels, value in values:
        made.add_metric(labels, value)
    return made


def filled_histogram(family: MetricFamily, counts: Iterable[int], total: float) -> Metric:
    """A histogram without labels: how many are at most each edge of the table, then how many there are."""
    edges = [*(f"{edge:g}" for edge in family.buckets), "+Inf"]
    made = HistogramMetricFamily(family.name, family.help)
    made.add_metric([], [*zip(edges, map(float, counts), strict=True)], total)
    return made


class _Collected(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> Iterable[Metric]:
        """None: the registry would collect to find out."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._collect()


class _Server(BoundedHttpServer):
    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.registry = registry
        self.scraped = threading.Event()
        self.is_failing = False
        self.collecting = threading.Lock()
        super().__init__(address, _Handler)


class _Handler(BoundedHandler):
    server: _Server

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        if self.path.partition("?")[0] != _PATH:
            self.send_error(404)
            return
        # Of before the values are collected: a scrape that is under way is not the one waited for.
        scraped = self.server.scraped
        try:
            with self.server.collecting:
                page = generate_latest(self.server.registry)
        except Exception as error:  # noqa: BLE001 - whatever it is, the target must be shown as down
            if not self.server.is_failing:
                self.server.is_failing = True
                sys.stderr.write(f"the metrics cannot be collected: {error!r}\n")
            self.send_error(500)
            return
        self.server.is_failing = False
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
        scraped.set()


class MetricsServer:
    """One server, which answers until it is closed.

    Args:
        address: host and port; port 0 is any that is free.
        collect: returns the families of a scrape.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(self, address: tuple[str, int], collect: Callable[[], Iterable[Metric]]) -> None:
        registry = CollectorRegistry()
        registry.register(_Collected(collect))
        self._server = _Server(address, registry)
        self.port: Final = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    @property
    def is_scraped(self) -> bool:
        """Whether somebody has scraped it."""
        return self._server.scraped.is_set()

    def wait_for_last_scrape(self, seconds: float = _LAST_SCRAPE_SECONDS) -> bool:
        """Wait until what is true now was scraped; at once False if nobody has ever scraped."""
        if not self.is_scraped:
            return False
        self._server.scraped = scraped = threading.Event()
        return scraped.wait(seconds)

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
