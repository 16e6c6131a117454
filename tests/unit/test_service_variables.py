"""Variables of a Service of Kubernetes, whose name may have any hyphens, are told from options."""

from __future__ import annotations

import pytest

from cluster import config
from cluster.errors import ConfigError


def of_service(name: str) -> dict[str, str]:
    """The variables that Kubernetes makes for a Service, with one port of TCP."""
    first = name.upper().replace("-", "_")
    return {
        f"{first}_SERVICE_HOST": "10.0.0.1",
        f"{first}_SERVICE_PORT": "80",
        f"{first}_SERVICE_PORT_HTTP": "80",
        f"{first}_PORT": "tcp://10.0.0.1:80",
        f"{first}_PORT_80_TCP": "tcp://10.0.0.1:80",
        f"{first}_PORT_80_TCP_PROTO": "tcp",
        f"{first}_PORT_80_TCP_PORT": "80",
        f"{first}_PORT_80_TCP_ADDR": "10.0.0.1",
    }


@pytest.mark.parametrize(
    "name",
    ["ws-cluster", "ws-cluster-a", "ws-cluster-a--b", "ws-cluster--a", "ws-cluster---a----b",
     "ws-cluster-server--x"],
)  # fmt: skip
def test_a_service_with_any_name_does_not_stop_the_start(name: str):
    env = of_service(name)
    assert config.service_variables(env) == sorted(env)
    assert config.load(env=env, needs_keys=False) == config.load(needs_keys=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WS_CLUSTER_SERVER__PORT", "tcp://10.0.0.1:80"),
        ("WS_CLUSTER_SERVRE__PORT", "80"),
        ("WS_CLUSTER_A__B", "tcp://10.0.0.1:80"),
        ("WS_CLUSTER_A__B_PORT", "80"),
    ],
)
def test_what_is_an_option_or_looks_like_no_service_is_still_a_mistake(name: str, value: str):
    assert config.service_variables({name: value}) == []
    with pytest.raises(ConfigError):
        config.load(env={name: value}, needs_keys=False)
