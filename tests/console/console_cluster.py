"""A running cluster with its console, and the requests that tests send to it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.console.fake_monitoring import FakeMonitoring
from tests.harness.cluster import Cluster

VIEWERS = 6
PASSWORD = "s3cret"
ACK = {
    "labels": {"alertname": "HighErrorRate", "severity": "critical", "team": "websocket"},
    "note": "on it",
    "author": "kim",
    "seconds": 600,
}


def config_for(monitoring: FakeMonitoring) -> dict[str, Any]:
    """The configuration of a cluster that uses this monitoring and lets its own page connect."""
    with_password = monitoring.url.replace("://", f"://console:{PASSWORD}@")
    return {
        "client": {"allowed_origins": ["http://127.0.0.1:*"]},
        "console": {
            "prometheus_url": with_password,
            "alertmanager_url": with_password,
            "prometheus_link": f"http://reader:{PASSWORD}@127.0.0.1:9090",
            "alertmanager_link": "http://127.0.0.1:9093",
            "viewers": VIEWERS,
        },
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def error(self) -> str:
        """The sentence in the body of an error."""
        return str(json.loads(self.text)["error"])


@dataclass(frozen=True, slots=True)
class ConsoleCluster:
    """A cluster and its fake monitoring."""

    cluster: Cluster
    monitoring: FakeMonitoring

    @property
    def key(self) -> str:
        """The key that this development run generated."""
        return (self.cluster.directory / "data" / "admin.key").read_text().strip()

    @property
    def bearer(self) -> dict[str, str]:
        """The header with the key."""
        return {"Authorization": f"Bearer {self.key}"}

    def url(self, *, through_nginx: bool = False, has_key: bool = True) -> str:
        """The page's address, as a development run prints it."""
        port = self.cluster.port if through_nginx else self.cluster.admin_port
        return f"http://127.0.0.1:{port}/" + (f"#key={self.key}" if has_key else "")

    async def get(self, path: str, *, port: int = 0, **headers: str) -> Answer:
        """Send a GET to the admin port, or to another."""
        return await asyncio.to_thread(self._ask, "GET", path, None, headers, port)

    async def post(self, path: str, document: Any, **headers: str) -> Answer:
        """Send a POST of JSON to the admin port."""
        named = {"Content-Type": "application/json", **headers}
        return await asyncio.to_thread(self._ask, "POST", path, document, named, 0)

    def _ask(
        self, method: str, path: str, document: Any, headers: dict[str, str], port: int
    ) -> Answer:
        connection = http.client.HTTPConnection(
            "127.0.0.1", port or self.cluster.admin_port, timeout=10
        )
        try:
            body = None if document is None else json.dumps(document)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=named)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    @contextmanager
    def events(
        self, *, through_nginx: bool = False, headers: Mapping[str, str] | None = None
    ) -> Iterator[Iterator[tuple[str, Any]]]:
        """The stream of events, blocking."""
        port = self.cluster.port if through_nginx else self.cluster.admin_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/console/events", headers=dict(headers or {}))
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield _events(response)
        finally:
            connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    kind = ""
    for line in response:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)
