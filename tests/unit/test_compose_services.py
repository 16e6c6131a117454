"""How the services of docker/compose.yml depend on one another: order, common values, what is made again."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from cluster import __version__
from tests.unit.test_compose_files import DOCKER
from tests.unit.test_hold import capacity_rules_in


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))
    return document


def test_what_needs_another_starts_when_that_is_healthy(compose: dict[str, Any]):
    services = compose["services"]
    for service, needed in (
        ("nginx", "app"), ("app", "valkey"), ("redis-exporter", "valkey"), ("tracker", "prometheus"),
        ("grafana", "prometheus"),
    ):  # fmt: skip
        assert services[service]["depends_on"][needed] == {"condition": "service_healthy"}, service


#: Who writes a configuration, and who reads it.
CONFIGURED = {"nginx-config": ("nginx",), "monitoring-config": ("prometheus",)}


@pytest.mark.parametrize("writer", CONFIGURED)
def test_what_reads_a_configuration_is_made_again_with_another_value_in_it(
    writer: str, compose: dict[str, Any]
):
    """Compose makes a container again only if its own definition has changed."""
    services = compose["services"]
    variables = set(re.findall(r"\$\{([A-Z_]+)", json.dumps(services[writer]["command"])))
    assert variables
    for reader in CONFIGURED[writer]:
        assert variables <= set(re.findall(r"\$\{([A-Z_]+)", json.dumps(services[reader]))), reader


def test_replicas_and_nginx_agree_on_the_number_of_workers(compose: dict[str, Any]):
    services = compose["services"]
    assert services["app"]["environment"]["WS_CLUSTER_SERVER__WORKERS"] == "${WORKERS:-2}"
    assert "--workers=${WORKERS:-2}" in services["nginx-config"]["command"]


def test_nginx_ends_at_once_although_its_image_asks_for_a_slow_end(compose: dict[str, Any]):
    assert compose["services"]["nginx"]["stop_signal"] == "SIGTERM"


def test_an_image_built_by_compose_is_labelled_with_this_version(compose: dict[str, Any]):
    assert compose["services"]["app"]["build"]["args"]["VERSION"] == f"${{VERSION:-{__version__}}}"
    dockerfile = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^ARG VERSION=(.*)$", dockerfile, re.MULTILINE) == [__version__]


def test_a_worker_takes_about_as_many_connections_as_one_has_held(compose: dict[str, Any]):
    limit = compose["services"]["app"]["environment"]["WS_CLUSTER_CLIENT__CONNECTION_LIMIT"]
    [default] = re.findall(r"^\$\{CONNECTION_LIMIT:-(\d+)\}$", limit)
    measured = capacity_rules_in(DOCKER / "capacity.yml")
    held = measured["app_capacity_connections_per_worker", ""]
    assert int(default) == pytest.approx(held, rel=0.02)
