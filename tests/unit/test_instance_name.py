"""The `instance` of logs is the one that Prometheus gives the metrics of a replica."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

import pytest

from cluster.config import Config, load
from cluster.errors import ConfigError
from cluster.supervisor.instance import instance_name

HOSTNAME = socket.gethostname()


def server(**options: Any) -> Any:
    return dataclasses.replace(Config().server, **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, f"{HOSTNAME}:8001"),
        ({"host": "10.0.0.5"}, "10.0.0.5:8001"),
        ({"host": "::1", "admin_port": 9001}, "[::1]:9001"),
        ({"instance": "127.0.0.1:8001"}, "127.0.0.1:8001"),
        ({"instance": "127.0.0.1:18001", "host": "10.0.0.5"}, "127.0.0.1:18001"),
        # An address is taken as it is given: it may be that of a proxy.
        ({"instance": "192.0.2.1:9001"}, "192.0.2.1:9001"),
        ({"instance": "[2001:db8::1]:8001"}, "[2001:db8::1]:8001"),
        # No name of this machine: as without the option.
        ({"instance": "no-such-name.invalid:8001"}, f"{HOSTNAME}:8001"),
    ],
)
def test_an_instance_is_called_as_prometheus_calls_it(options: dict[str, Any], expected: str):
    is_found = "no-such-name" not in options.get("instance", "")
    assert instance_name(server(**options)) == (expected, is_found)


def test_of_the_addresses_of_a_service_it_is_the_own_one(monkeypatch: pytest.MonkeyPatch):
    def addresses(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        assert host == "websocket-app"
        found = ("192.0.2.7", "127.0.0.3", "192.0.2.9")
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (one, 0)) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    assert instance_name(server(instance="websocket-app:8001")) == ("127.0.0.3:8001", True)


@pytest.mark.parametrize("text", ["8001", "host:", ":8001", "host:port"])
def test_what_is_no_host_and_port_is_refused(text: str):
    with pytest.raises(ConfigError, match="at which Prometheus scrapes this replica"):
        load(env={"WS_CLUSTER_SERVER__INSTANCE": text, "WS_CLUSTER_CLIENT__INSECURE": "true"})
