"""A proxy that changes some values of an exporter's metrics: the simulation if a privilege is missing.

Prometheus scrapes the proxy instead of the exporter; all other metrics are passed on unchanged. A drill
that uses it is labelled as simulated, with the reason.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping

from cluster.alerting.http import HttpService
from cluster.errors import NotAnswering
from loadtest.bounded_http_server import BoundedHandler, BoundedHttpServer


class MetricsProxy:
    """Serves the metrics of `url` on a port of its own, with some values replaced.

    Args:
        values: by metric name: `app_memory_limit_bytes`.

    Attributes:
        added: series to add, with their values.
    """

    def __init__(self, url: str, values: Mapping[str, float]) -> None:
        self.values = dict(values)
        self.added: dict[str, float] = {}
        self._source = HttpService("the exporter", url)
        proxy = self

        class Handler(BoundedHandler):
            def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
                try:
                    page = proxy.rewritten(proxy._source.text("/metrics"))
                except NotAnswering:
                    self.send_error(503)
                    return
                body = page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = BoundedHttpServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def rewritten(self, page: str) -> str:
        """The page with the replaced and added values."""
        for beginning, value in self.values.items():
            pattern = rf"^({re.escape(beginning)}(?:\{{[^\n]*\}})?) [^\n]*$"
            page = re.sub(pattern, rf"\g<1> {value!r}", page, flags=re.MULTILINE)
        added = "".join(f"{series} {value!r}\n" for series, value in self.added.items())
        return page + added

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
