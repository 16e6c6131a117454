"""What a port answers with 405 says which methods are allowed: RFC 9110 §15.5.6, behind nginx too."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.api.method_table import API_TABLE
from tests.harness.cluster import Cluster

KEY = "a" * 32
API_PATHS = ["/api", *(f"/api/{name}" for name in [*API_TABLE, "openapi.json", "unknown"])]
CONSOLE_PATHS = [
    f"/console/{name}" for name in ("ack", "key", "silence", "unsilence", "events", "app.js")
]
PATHS = ["/", "/health", "/ready", "/metrics", "/runbooks/", *API_PATHS, *CONSOLE_PATHS]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory: Path = tmp_path_factory.mktemp("allowed") / "run"
    started = Cluster(directory, workers=1, config={"http_api": {"key": KEY}})
    asyncio.run(started.start())
    try:
        yield started
    finally:
        asyncio.run(started.stop())


def refused(port: int, method: str, path: str) -> set[str]:
    """The methods that the answer to a method that is not allowed names."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
        assert response.status == 405, (method, path, response.status)
        allowed = response.headers.get_all("Allow") or []
        assert len(allowed) == 1, (method, path, allowed)
        return {name.strip() for name in allowed[0].split(",") if name.strip()}
    finally:
        connection.close()


@pytest.mark.parametrize("path", PATHS)
def test_nginx_names_the_methods_that_the_server_behind_it_allows(cluster: Cluster, path: str):
    # nginx refuses a TRACE itself, and passes a DELETE on.
    assert refused(cluster.port, "TRACE", path) == refused(cluster.port, "DELETE", path)


@pytest.mark.parametrize("path", ["/connection/websocket", "/app/", "/app/x?y=1"])
def test_nginx_names_methods_where_the_server_behind_it_refuses_none(cluster: Cluster, path: str):
    allowed = refused(cluster.port, "TRACE", path)
    assert "GET" in allowed
    assert "TRACE" not in allowed
    assert ("PATCH" in allowed) is path.startswith("/app/")


def test_a_query_does_not_change_what_is_allowed(cluster: Cluster):
    assert refused(cluster.port, "TRACE", "/api/publish?api_key=x") == {"POST"}


def test_a_connect_names_no_resource_so_nothing_is_allowed(cluster: Cluster):
    assert refused(cluster.port, "CONNECT", "example.org:443") == set()
