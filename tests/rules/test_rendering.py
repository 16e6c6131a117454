"""Variants of docker/ are valid, and compressed time divides every duration."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.monitor.stack.render import (
    Profile,
    compressed,
    duration_text,
    preflight,
    render,
    seconds,
)
from tests.rules import promtool
from tests.rules.promtool import DOCKER
from tests.rules.test_routes import amtool

ONE_MACHINE = Profile(
    runbook_base_url="https://runbooks.example/ws/",
    websocket_apps=("127.0.0.1:8001", "127.0.0.1:9001"),
    prometheus="127.0.0.1:9090",
    alertmanager="127.0.0.1:9093",
    node_exporter="127.0.0.1:9100",
    tracker="127.0.0.1:9098",
    secrets_dir=Path("/nowhere/secrets"),
    pagerduty_url="http://127.0.0.1:9099/v2/enqueue",
    dead_mans_switch_url="http://127.0.0.1:9099/watchdog",
)
DURATION = re.compile(r"\b(?:\d+(?:ms|[smhdwy]))+\b")


def document(path: Path) -> dict:
    return dict(yaml.safe_load(path.read_text()))


def durations_of(node: object, path: str = "") -> list[tuple[str, float]]:
    """Every duration of a document outside expressions, with its path."""
    if isinstance(node, dict):
        return [d for key, value in node.items() for d in durations_of(value, f"{path}.{key}")]
    if isinstance(node, list):
        return [d for i, value in enumerate(node) for d in durations_of(value, f"{path}[{i}]")]
    if isinstance(node, str) and DURATION.fullmatch(node):
        return [(path, seconds(node))]
    return []


def accepted(folder: Path) -> bool:
    return (
        promtool.promtool("check", "config", folder / "prometheus.yml").returncode == 0
        and promtool.promtool("check", "rules", folder / "alert_rules.yml").returncode == 0
        and amtool("check-config", folder / "alertmanager.yml").returncode == 0
    )


def test_what_is_in_docker_is_valid():
    assert accepted(DOCKER)


@pytest.mark.parametrize("compress", [1, 2.5, 15, 30])
@pytest.mark.parametrize("one_machine", [False, True])
def test_every_variant_is_valid(compress: float, one_machine: bool, tmp_path: Path):
    base = ONE_MACHINE if one_machine else Profile()
    render(DOCKER, tmp_path, profile=dataclasses.replace(base, compress=compress))
    assert accepted(tmp_path)


def test_a_variant_that_changes_nothing_is_the_same(tmp_path: Path):
    render(DOCKER, tmp_path, profile=Profile())
    for name in ("prometheus.yml", "alert_rules.yml", "alertmanager.yml"):
        assert document(tmp_path / name) == document(DOCKER / name)
    template = "templates/notifications.tmpl"
    assert (tmp_path / template).read_bytes() == (DOCKER / template).read_bytes()


@pytest.mark.parametrize("compress", [5, 15])
def test_every_duration_of_the_files_is_compressed_alike(compress: int, tmp_path: Path):
    render(DOCKER, tmp_path, profile=Profile(compress=compress))
    for name in ("prometheus.yml", "alert_rules.yml", "alertmanager.yml"):
        before, after = (durations_of(document(f / name)) for f in (DOCKER, tmp_path))
        assert [where for where, _ in before] == [where for where, _ in after]
        for (where, was), (_, became) in zip(before, after, strict=True):
            if not where.endswith("scrape_timeout"):
                assert became == pytest.approx(was / compress, abs=0.001), where
    paces = document(tmp_path / "prometheus.yml")["global"]
    assert seconds(paces["scrape_timeout"]) <= seconds(paces["scrape_interval"])


@pytest.mark.parametrize("compress", [5, 15])
def test_every_range_and_every_marked_number_is_compressed_alike(compress: int, tmp_path: Path):
    rendered = render(DOCKER, tmp_path, profile=Profile(compress=compress))
    for ours, theirs in zip(
        [r for g in promtool.groups() for r in g["rules"]],
        [r for g in promtool.groups(rendered.alert_rules) for r in g["rules"]],
        strict=True,
    ):
        for pattern, value in (
            (r"\[(\w+)[\]:]", seconds),
            (r":(\w+)\]", seconds),
            (r"([\d.]+) *# seconds", float),
        ):
            was, became = (
                [value(text) for text in re.findall(pattern, rule["expr"])]
                for rule in (ours, theirs)
            )
            assert became == pytest.approx([one / compress for one in was], abs=0.001)
        assert re.sub(r"\[.*?\]|[\d.]+ *# seconds", "", ours["expr"]) == re.sub(
            r"\[.*?\]|[\d.]+ *# seconds", "", theirs["expr"]
        ), "something else was changed"


def test_every_number_that_is_compared_with_time_is_marked():
    timed = [
        r
        for r in promtool.alerts().values()
        if re.search(r"\btime\(|timestamp\(|predict_", r["expr"])
    ]
    assert {rule["alert"] for rule in timed} == {
        "DeploymentCompleted",
        "BrokerDeaf",
        "MemoryWillHitLimit",
    }
    assert all("# seconds" in rule["expr"] for rule in timed)


@given(st.integers(1, 10**7), st.sampled_from([1, 2, 5, 10, 15]))
def test_compressing_in_steps_is_compressing_at_once(milliseconds: int, factor: int):
    text = duration_text(milliseconds * factor * factor / 1000)
    once = compressed(f"x[{text}] > 9 # no", factor * factor)
    assert compressed(compressed(f"x[{text}] > 9 # no", factor), factor) == once
    assert seconds(once[2:].partition("]")[0]) == pytest.approx(milliseconds / 1000)


def test_texts_comments_names_and_thresholds_are_left_alone():
    text = "a:rate5m{x=\"5m\", y='1h'} > 60 # 5m, not a length\n  or b_5m offset 5m < 300 # seconds"
    assert compressed(text, 15) == text.replace("offset 5m < 300", "offset 20s < 20")


def test_load_tests_are_scraped_where_they_are_named(tmp_path: Path):
    profile = dataclasses.replace(ONE_MACHINE, load_tests=("127.0.0.1:9646", "127.0.0.1:9647"))
    prometheus = document(render(DOCKER, tmp_path, profile=profile).prometheus)
    [load] = [job for job in prometheus["scrape_configs"] if job["job_name"] == "load"]
    assert load == {
        "job_name": "load",
        "static_configs": [{"targets": ["127.0.0.1:9646", "127.0.0.1:9647"]}],
    }


def test_one_machine_has_its_addresses_secrets_and_runbooks(tmp_path: Path):
    rendered = render(DOCKER, tmp_path, profile=ONE_MACHINE)
    prometheus = document(rendered.prometheus)
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    assert jobs["prometheus"]["static_configs"] == [{"targets": ["127.0.0.1:9090"]}]
    assert jobs["alertmanager"]["static_configs"] == [{"targets": ["127.0.0.1:9093"]}]
    assert jobs["node"]["static_configs"] == [{"targets": ["127.0.0.1:9100"]}]
    assert "dns_sd_configs" not in jobs["websocket-app"]
    assert jobs["tracker"]["static_configs"] == [{"targets": ["127.0.0.1:9098"]}]
    assert not {"nginx", "redis", "load"} & set(jobs)
    assert rendered.targets is not None
    assert yaml.safe_load(rendered.targets.read_text()) == [
        {"targets": ["127.0.0.1:8001", "127.0.0.1:9001"]}
    ]
    alerting = prometheus["alerting"]["alertmanagers"][0]["static_configs"]
    assert alerting == [{"targets": ["127.0.0.1:9093"]}]
    names = {path.name for path in rendered.secret_files}
    assert names == {"slack_api_url", "pagerduty_routing_key"}
    assert {path.parent for path in rendered.secret_files} == {Path("/nowhere/secrets")}
    text = rendered.alertmanager.read_text()
    assert "http://127.0.0.1:9099/v2/enqueue" in text
    assert "http://127.0.0.1:9099/watchdog" in text
    for alert, rule in promtool.alerts(rendered.alert_rules).items():
        assert rule["annotations"]["runbook_url"] == f"https://runbooks.example/ws/{alert}.md"


def test_prometheus_flags_are_compressed_too(tmp_path: Path):
    assert render(DOCKER, tmp_path, profile=Profile()).prometheus_flags == ()
    flags = render(DOCKER, tmp_path, profile=Profile(compress=15)).prometheus_flags
    assert flags == ("--query.lookback-delta=20s", "--rules.alert.resend-delay=4s")


@pytest.mark.parametrize(("compress", "says"), [(0.5, "give 1 or more"), (1000, "give at most 30")])
def test_a_compression_that_cannot_be_kept_is_refused(compress: float, says: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=says):
        render(DOCKER, tmp_path, profile=Profile(compress=compress))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("alert_rules.yml", "groups: [", "alert_rules.yml: line 1 is not allowed"),
        ("alert_rules.yml", "groups: [{name: g, rules: [{alert: X}]}]", "promtool check rules"),
        ("alert_rules.yml", "rules: []", "promtool check rules"),
        ("alertmanager.yml", "- a list", "write a YAML mapping"),
        ("prometheus.yml", "global: {}", "promtool check config"),
        ("prometheus.yml", "global: {scrape_interval: soon}", "write it like 30s"),
    ],
)
def test_a_malformed_file_is_one_sentence(name: str, text: str, says: str, tmp_path: Path):
    source = tmp_path / "docker"
    render(DOCKER, source, profile=Profile())
    (source / name).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        render(source, tmp_path / "out", profile=Profile(compress=15, dead_mans_switch_url="x"))
    assert str(caught.value).count("\n") == 0
    assert caught.value.exit_code == 78


def test_a_missing_file_is_one_sentence(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"prometheus\.yml: a file that cannot be read"):
        render(tmp_path, tmp_path / "out", profile=Profile())


# --- preflight ---------------------------------------------------------------------------


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "slack_api_url").write_text("https://hooks.example/services/T/B/x\n")
    (folder / "pagerduty_routing_key").write_text("0123456789abcdef\n")
    render(DOCKER, tmp_path, profile=Profile(secrets_dir=folder))
    return folder


def test_secrets_that_are_there_are_fine(secrets: Path):
    assert preflight(secrets.parent) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("not an address", "holds no http or https address"),
        ("https://a.example/\nhttps://b.example/", "holds more than one line"),
        (b"\xff\xfe", "cannot be read as text"),
    ],
)
def test_a_secret_that_is_not_there_is_named(text: str | bytes | None, why: str, secrets: Path):
    path = secrets / "slack_api_url"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (sentence,) = preflight(secrets.parent)
    assert why in sentence
    assert str(path) in sentence


def test_a_folder_in_place_of_a_secret_is_named(secrets: Path):
    (secrets / "pagerduty_routing_key").unlink()
    (secrets / "pagerduty_routing_key").mkdir()
    assert "is not a file" in preflight(secrets.parent)[0]


def test_amtool_would_not_have_noticed(secrets: Path):
    (secrets / "slack_api_url").unlink()
    assert amtool("check-config", secrets.parent / "alertmanager.yml").returncode == 0
