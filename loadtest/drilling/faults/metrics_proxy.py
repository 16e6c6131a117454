"""A page of metrics seen through a metrics_proxy: the simulation for a machine that lacks a right.

Prometheus is pointed at the metrics_proxy instead of the exporter; everything is passed on as it is, but for
the values that are said. A drill that uses it is labelled simulated, with the reason.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cluster.alerting.http import HttpService
from cluster.errors import NotAnswering


class MetricsProxy:
    """Serves `url`'s metrics on a port of its own, with other values for some.

    Args:
        values: by the beginning of a line, up to its value: `app_memory_limit_bytes`.

    Attributes:
        added: series that the page does not have, with their values.
    """

    def __init__(self, url: str, values: Mapping[str, float]) -> None:
        self.values = dict(values)
        self.added: dict[str, float] = {}
        self._source = HttpService("the exporter", url)
        metrics_proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    page = metrics_proxy.seen(metrics_proxy._source.text("/metrics"))
                except NotAnswering:
                    self.send_error(503)
                    return
                body = page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def seen(self, page: str) -> str:
        """The page with the values that are said."""
        for beginning, value in self.values.items():
            pattern = rf"^({re.escape(beginning)}(?:\{{[^\n]*\}})?) [^\n]*$"
            page = re.sub(pattern, rf"\g<1> {value!r}", page, flags=re.MULTILINE)
        added = "".join(f"{series} {value!r}\n" for series, value in self.added.items())
        return page + added

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
