"""The key of a development run, a cluster that has none, and the addresses of the console."""

from __future__ import annotations

import http.client
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import config
from cluster.config import AdminConfig, ClientConfig, Config
from cluster.errors import ConfigError
from cluster.supervisor.console_view import development_key
from cluster.supervisor.paths import Paths
from cluster.supervisor.terminal import StartSummary
from tests.console.console_cluster import ACK, ConsoleCluster
from tests.console.fake_monitoring import FakeMonitoring
from tests.harness.cluster import Cluster

DEVELOPMENT = Config(client=ClientConfig(insecure=True))


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    made = Paths(str(tmp_path))
    yield made
    made.close()


def test_a_development_run_keeps_its_key(paths: Paths):
    key = development_key(DEVELOPMENT, paths)
    assert len(key) >= 20
    assert development_key(DEVELOPMENT, paths) == key
    assert stat.S_IMODE(paths.admin_key.stat().st_mode) == 0o600


def test_an_empty_file_gets_a_key(paths: Paths):
    paths.admin_key.touch()
    assert development_key(DEVELOPMENT, paths) == paths.admin_key.read_text().strip() != ""


def test_no_key_is_generated_outside_of_development(paths: Paths):
    assert development_key(Config(), paths) == ""
    assert development_key(replace(DEVELOPMENT, admin=AdminConfig(key="own")), paths) == ""
    assert not paths.admin_key.exists()


def test_a_key_that_cannot_be_stored_is_valid_for_this_run(paths: Paths):
    paths.admin_key.mkdir()
    assert len(development_key(DEVELOPMENT, paths)) >= 20


def test_the_link_carries_the_key_where_no_server_sees_it():
    facts = StartSummary("ws://h:8000/c", "http://h:8001/", ["h:8101"], "store", "dir", [], "KEY")
    assert any("http://h:8001/#key=KEY" in line for line in facts.lines())
    assert "KEY" not in repr(facts)


@pytest.mark.parametrize(
    "url", ["localhost:9090", "ftp://h", "http://", "javascript:x", "http://h:x"]
)
def test_an_invalid_address_is_a_mistake(url: str):
    with pytest.raises(ConfigError) as caught:
        config.load(flags={"client.insecure": True, "console.grafana_link": url})
    assert [problem.key for problem in caught.value.problems] == ["console.grafana_link"]


def test_an_address_may_be_empty():
    loaded = config.load(flags={"client.insecure": True, "console.prometheus_url": ""})
    assert loaded.console.prometheus_url == ""


async def test_without_a_key_nothing_can_be_changed(tmp_path: Path):
    keyless = {"client": {"insecure": False, "token": {"hmac_secret_key": "s" * 32}}}
    with FakeMonitoring() as monitoring:
        async with Cluster(tmp_path, workers=1, config=keyless, has_nginx=False) as cluster:
            console_cluster = ConsoleCluster(cluster, monitoring)
            for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
                answer = await console_cluster.post("/console/ack", ACK, **headers)
                assert answer.status == 403
                assert "admin.key is not set" in answer.error
            assert not (tmp_path / "data" / "admin.key").exists()


async def test_a_cluster_with_viewers_stops_in_time(tmp_path: Path):
    async with Cluster(tmp_path, workers=1, has_nginx=False) as cluster:
        connection = http.client.HTTPConnection("127.0.0.1", cluster.admin_port, timeout=10)
        try:
            connection.request("GET", "/console/events")
            stream = connection.getresponse()
            assert stream.readline() == b"event: hello\n"
            assert await cluster.stop(within=10.0) == 0
        finally:
            connection.close()
