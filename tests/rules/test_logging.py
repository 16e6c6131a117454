"""Central logging: Alloy reads fields that a line has, and Loki accepts the labels that it gets."""

from __future__ import annotations

import io
import json
import re

import structlog
import yaml

from cluster import log
from cluster.config import LogConfig
from tests.architecture.tree import ROOT

LOKI = yaml.safe_load((ROOT / "docker" / "loki.yml").read_text())
ALLOY = (ROOT / "docker" / "alloy" / "config.alloy").read_text()
LABELS = {"service", "instance", "level"}


def block(name: str) -> str:
    """The text between the braces of a block that contains no other blocks."""
    found = re.search(rf"^\t?{re.escape(name)} \{{\n(.*?)^\t?\}}", ALLOY, re.MULTILINE | re.DOTALL)
    assert found, f"docker/alloy/config.alloy has no block {name}"
    return found[1]


def line() -> dict[str, str]:
    stream = io.StringIO()
    log.configure(LogConfig(format="json"), instance="10.0.0.2:8001", worker="w0a", stream=stream)
    log.get_logger().warning("child_exited")
    structlog.reset_defaults()
    fields: dict[str, str] = json.loads(stream.getvalue())
    return fields


def test_alloy_reads_only_what_a_line_of_ours_has():
    read = set(re.findall(r'= "(\w+)"', block("stage.json")))
    assert read == {"ts", "level", "instance", "worker", "event"}
    assert read <= set(line())
    assert set(re.findall(r'(\w+) += ""', block("stage.labels"))) < LABELS
    assert set(re.findall(r'(\w+) += ""', block("stage.structured_metadata"))) < read


def test_a_stream_has_three_labels_and_loki_lets_no_more_in():
    assert set(re.findall(r'"(\w+)"', block("stage.label_keep"))) == LABELS
    assert LOKI["limits_config"]["max_label_names_per_series"] == len(LABELS)
    assert LOKI["limits_config"]["discover_service_name"] == []


def test_alloy_pushes_to_the_port_on_which_loki_listens():
    url = re.search(r'url += "http://loki:(\d+)/loki/api/v1/push"', block('loki.write "loki"'))
    assert url
    assert int(url[1]) == LOKI["server"]["http_listen_port"]


def test_a_line_s_time_is_of_the_form_that_alloy_reads():
    assert 'format            = "RFC3339Nano"' in block("stage.timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line()["ts"])


def test_loki_deletes_logs_after_thirty_days():
    assert LOKI["compactor"]["retention_enabled"] is True
    assert LOKI["limits_config"]["retention_period"] == "720h"
    assert LOKI["compactor"]["delete_request_store"] in LOKI["common"]["storage"]
