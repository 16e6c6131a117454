"""What Grafana is given at its start: it finds the dashboards, and they find their data sources."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.architecture.tree import ROOT

DOCKER = ROOT / "docker"
PROVISIONING = DOCKER / "grafana" / "provisioning"
SERVICES: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yml").read_text())["services"]
GRAFANA = SERVICES["grafana"]
#: The data source that Grafana has for its own annotations.
BUILT_IN = "-- Grafana --"


def provisioned(kind: str) -> list[dict[str, Any]]:
    """The entries of all files of one kind."""
    name = "providers" if kind == "dashboards" else kind
    files = sorted((PROVISIONING / kind).glob("*.yml"))
    documents = [yaml.safe_load(path.read_text()) for path in files]
    assert documents
    assert [document["apiVersion"] for document in documents] == [1] * len(documents)
    return [one for document in documents for one in document[name]]


SOURCES = provisioned("datasources")


def in_container(folder: PurePosixPath) -> PurePosixPath:
    """The folder of docker/ that Grafana's container has at a path."""
    for volume in GRAFANA["volumes"]:
        source, target, *_ = volume.split(":")
        if folder.is_relative_to(target):
            return PurePosixPath(source) / folder.relative_to(target)
    raise AssertionError(f"{folder} is not in the container")


def test_grafana_reads_the_folder_of_the_repository_where_its_image_looks():
    assert in_container(PurePosixPath("/etc/grafana/provisioning")) == PurePosixPath(
        "grafana/provisioning"
    )
    # No other folder of that kind is known to Grafana, so nothing in it would be read.
    assert {path.name for path in PROVISIONING.iterdir()} == {"dashboards", "datasources"}


def test_the_provider_reads_the_folder_that_has_the_dashboards():
    [provider] = provisioned("dashboards")
    folder = in_container(PurePosixPath(provider["options"]["path"]))
    assert folder == PurePosixPath("grafana/dashboards")
    assert provider["type"] == "file"
    # They are written by a program, and its next run would overwrite what was changed.
    assert provider["allowUiUpdates"] is False


def test_the_first_page_is_one_of_the_dashboards():
    home = PurePosixPath(GRAFANA["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (DOCKER / in_container(home)).is_file()


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: str(one["name"]))
def test_a_data_source_is_a_service_that_grafana_reaches(source: dict[str, Any]):
    address = urlsplit(source["url"])
    service = SERVICES[str(address.hostname)]
    assert set(service["networks"]) & set(GRAFANA["networks"])
    listens = yaml.safe_load((DOCKER / "loki.yml").read_text())["server"]["http_listen_port"]
    # That of Prometheus is published.
    ports = {listens} if address.hostname == "loki" else {int(service["ports"][0].split(":")[-1])}
    assert {address.port} == ports


def test_one_data_source_is_the_default():
    assert [one["uid"] for one in SOURCES if one.get("isDefault")] == ["prometheus"]


@pytest.mark.parametrize(
    "path", sorted((DOCKER / "grafana" / "dashboards").glob("*.json")), ids=lambda path: path.stem
)
def test_a_dashboard_asks_only_data_sources_that_are_there(path: Path):
    dashboard = json.loads(path.read_text())
    variables = {
        f"${{{one['name']}}}": one["query"]
        for one in dashboard["templating"]["list"]
        if one["type"] == "datasource"
    }
    types = {one["type"] for one in SOURCES}
    # A variable chooses among the data sources of one type.
    there = {(one["type"], one["uid"]) for one in SOURCES} | {
        (type_, name) for name, type_ in variables.items() if type_ in types
    }
    asked = set(data_sources(dashboard))
    assert asked
    assert {one for one in asked if one[1] != BUILT_IN} <= there


def data_sources(node: Any) -> Iterator[tuple[str, str]]:
    """Type and uid of every data source in a document."""
    if isinstance(node, dict):
        given = node.get("datasource")
        if isinstance(given, dict):
            yield given["type"], given["uid"]
        for value in node.values():
            yield from data_sources(value)
    elif isinstance(node, list):
        for value in node:
            yield from data_sources(value)
