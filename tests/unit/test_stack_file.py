"""docker/stack.yml says of every service what docker/compose.yml says, as far as a swarm can."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import cli
from cluster.config import DEVELOPMENT_FILE, Config, ShutdownConfig, load
from cluster.durations import seconds_of
from tests.architecture.tree import ROOT

DOCKER = ROOT / "docker"
#: They write a volume, of which each machine of a swarm would have its own: docker/deploy-stack.sh does it.
ONLY_COMPOSE = {"nginx-config", "monitoring-config", "valkey-volume"}
#: Of a config of Swarm, in bytes.
LARGEST_CONFIG = 500 * 1024
#: What both files say, word for word.
SAME = ("image", "environment", "healthcheck", "stop_grace_period", "stop_signal", "ulimits", "read_only", "cap_drop", "logging")  # fmt: skip


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))
    return found


COMPOSE, STACK = document("compose.yml"), document("stack.yml")
TLS, STACK_TLS = document("tls.yml"), document("stack-tls.yml")
SHARED = sorted(set(COMPOSE["services"]) & set(STACK["services"]))


def test_the_services_are_those_that_compose_starts_by_default():
    by_default = {name for name, one in COMPOSE["services"].items() if "profiles" not in one}
    assert set(STACK["services"]) == by_default - ONLY_COMPOSE


@pytest.mark.parametrize("name", SHARED)
def test_a_service_is_the_same_in_both_files(name: str):
    ours, theirs = STACK["services"][name], COMPOSE["services"][name]
    for member in SAME:
        assert ours.get(member) == theirs.get(member), member
    assert sorted(ours.get("secrets", ())) == sorted(theirs.get("secrets", ()))
    assert set(ours["networks"]) == set(theirs["networks"])
    if name != "valkey":
        for member in ("user", "entrypoint", "command"):
            assert ours.get(member) == theirs.get(member), member


@pytest.mark.parametrize("name", SHARED)
def test_a_service_has_the_limits_that_it_has_in_compose(name: str):
    ours, theirs = (
        one["services"][name]["deploy"]["resources"]["limits"] for one in (STACK, COMPOSE)
    )
    assert ours == theirs


def test_valkey_is_started_as_by_compose_after_its_volume_has_its_owner():
    def server(of: dict[str, Any]) -> str:
        [script] = of["services"]["valkey"]["command"]
        return str(script).partition("valkey-server /")[2]

    assert server(STACK) == server(COMPOSE)
    owner = COMPOSE["services"]["valkey"]["user"]
    [script] = STACK["services"]["valkey"]["command"]
    user, group = owner.split(":")
    assert f"chown -R {owner}" in script
    assert f"setpriv --reuid={user} --regid={group} --clear-groups" in script
    assert "--no-new-privs" in script


def named(volumes: list[Any]) -> dict[str, str]:
    """Where the volumes are mounted that both files have; not what is a config in a swarm."""
    texts = [
        one for one in volumes if isinstance(one, str) and not re.match(r"\./|.*-config:", one)
    ]
    return {one.partition(":")[0]: one.partition(":")[2] for one in texts}


def temporary(service: dict[str, Any]) -> dict[str, int]:
    """Paths that are memory, and their size in bytes."""
    units = {"k": 10, "m": 20}

    def size_of(text: str) -> int:
        return int(text[:-1]) << units[text[-1]]

    found = {
        path: size_of(re.findall(r"size=(\w+)", options)[0])
        for path, _, options in (one.partition(":") for one in service.get("tmpfs", ()))
    }
    if "shm_size" in service:
        found["/dev/shm"] = size_of(service["shm_size"])
    for one in service.get("volumes", ()):
        if isinstance(one, dict):
            found[one["target"]] = one["tmpfs"]["size"]
    return found


@pytest.mark.parametrize("name", SHARED)
def test_a_service_writes_to_the_same_places(name: str):
    ours, theirs = STACK["services"][name], COMPOSE["services"][name]
    assert named(ours.get("volumes", [])) == named(theirs.get("volumes", []))
    assert temporary(ours) == temporary(theirs)


def test_a_replica_is_replaced_when_a_new_one_is_healthy_and_an_update_that_fails_is_taken_back():
    app = STACK["services"]["app"]
    update = app["deploy"]["update_config"]
    assert (update["order"], update["failure_action"]) == ("start-first", "rollback")
    grace = seconds_of(app["stop_grace_period"])
    assert grace > ShutdownConfig().stop_grace_period > ShutdownConfig().timeout
    compose = COMPOSE["services"]["app"]["deploy"]["resources"]
    assert app["deploy"]["resources"]["limits"] == compose["limits"]


def test_containers_balance_themselves_and_one_machine_does_not():
    options = "kubernetes/base/options.yaml"
    switch = "WS_CLUSTER_BALANCE__ENABLED"
    for environment in (
        COMPOSE["services"]["app"]["environment"],
        STACK["services"]["app"]["environment"],
        document(options)["data"],
    ):
        assert environment[switch] == "true"
    assert not Config().balance.enabled
    assert not load(str(DEVELOPMENT_FILE)).balance.enabled


def test_no_two_replicas_share_a_directory_of_metrics():
    # They are below /dev/shm, which is each container's own; no volume of the service is named, or they would share it.
    for services in (COMPOSE["services"], STACK["services"]):
        assert named(services["app"].get("volumes", [])) == {}
        assert "ipc" not in services["app"]


def test_no_service_stays_with_an_image_that_does_not_run():
    # Without it Swarm pauses the update, and the service is away.
    for name, service in STACK["services"].items():
        update = service["deploy"].get("update_config", {})
        assert update.get("failure_action") == "rollback", name


def test_only_nginx_is_reached_from_other_machines():
    ports = {name: one["ports"] for name, one in STACK["services"].items() if "ports" in one}
    assert list(ports) == ["nginx"]
    [port] = ports["nginx"]
    assert port == {"target": 8080, "published": "${HTTP_PORT:-80}", "mode": "host"}
    internal = {name for name, one in STACK["networks"].items() if one.get("internal")}
    assert internal == {name for name, one in COMPOSE["networks"].items() if one}
    assert all(one["driver"] == "overlay" for one in STACK["networks"].values())


def test_a_config_or_secret_has_another_name_when_its_content_changes():
    script = (DOCKER / "deploy-stack.sh").read_text(encoding="utf-8")
    exported = set(re.findall(r"\w+_VERSION\b", script.partition("\nexport ")[2]))
    for entries in (STACK["configs"], STACK["secrets"], STACK_TLS["secrets"]):
        for name, one in entries.items():
            [variable] = re.findall(rf"^ws-cluster-{name}-\$\{{(\w+):-0\}}$", one["name"])
            assert variable in exported
    for ours, theirs in ((STACK, COMPOSE), (STACK_TLS, TLS)):
        files = {name: one["file"] for name, one in ours["secrets"].items()}
        assert files == {name: one["file"] for name, one in theirs["secrets"].items()}


def files_in(service: str) -> dict[str, str]:
    """Path in the container of a service, and the file of docker/ that is there as a config."""
    files = {name: one["file"] for name, one in STACK["configs"].items()}
    configs = STACK["services"][service].get("configs", ())
    return {one["target"]: files[one["source"]] for one in configs}


def test_grafana_has_every_file_that_it_has_in_compose_at_the_same_path():
    folders = [one.split(":") for one in COMPOSE["services"]["grafana"]["volumes"] if one[0] == "."]
    mounted = {
        f"{target}/{path.relative_to(DOCKER / source)}": str(path.relative_to(DOCKER))
        for source, target, _ in folders
        for path in (DOCKER / source).rglob("*.*")
    }
    assert files_in("grafana") == mounted
    assert max((DOCKER / file).stat().st_size for file in mounted.values()) < LARGEST_CONFIG


def test_with_a_certificate_nginx_has_it_and_a_second_port_as_in_compose():
    assert set(STACK_TLS["services"]) == {"nginx"}
    ours, theirs = STACK_TLS["services"]["nginx"], TLS["services"]["nginx"]
    assert ours["secrets"] == theirs["secrets"]
    [port] = ours["ports"]
    # As the port without TLS: of the machine.
    assert port == {"target": 8443, "published": "${HTTPS_PORT:-443}", "mode": "host"}
    assert theirs["ports"] == [f"{port['published']}:{port['target']}"]
    assert set(ours) == {"secrets", "ports"}


def test_prometheus_and_alertmanager_have_every_file_that_is_rendered(tmp_path: Path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "slack_api_url").write_text("https://hooks.slack.com/services/T/B/x\n")
    (secrets / "pagerduty_routing_key").write_text("key\n")
    out = tmp_path / "generated"
    flags = ["--swarm", "--secrets-dir", str(secrets)]
    assert cli.main(["monitoring", "render", str(out), *flags]) == 0
    written = {f"generated/{path.relative_to(out)}" for path in out.rglob("*.*")}
    generated = {one["file"] for one in STACK["configs"].values()} - set(
        files_in("grafana").values()
    )
    assert generated == written | {"generated/nginx.conf"}
    for name in set(STACK["services"]) - {"grafana"}:
        for target, file in files_in(name).items():
            assert target == f"/etc/ws-cluster/{file}"
    prometheus = yaml.safe_load((out / "prometheus.yml").read_text())
    jobs = {one["job_name"]: one for one in prometheus["scrape_configs"]}
    for job, name, port in (
        ("websocket-app", "tasks.websocket-app", 8001),
        ("node", "tasks.node-exporter", 9100),
    ):
        [found] = jobs[job]["dns_sd_configs"]
        assert (found["names"], found["type"], found["port"]) == ([name], "A", port)
        assert "static_configs" not in jobs[job]


def test_variables_of_the_file_are_read_as_compose_reads_them(tmp_path: Path):
    for name in ("deploy-stack.sh", "env-file.sh", "certificate-check.sh"):
        shutil.copy(DOCKER / name, tmp_path)
    (tmp_path / ".env").write_text(
        "# a comment\nCHANNEL_NAMESPACES=[{\"name\": \"chat\"}]\nWORKERS=3\nHSTS='1d'\nPUBLIC_URL='a b $(id)'\n"
    )
    stand_in = tmp_path / "docker"
    names = ("CHANNEL_NAMESPACES", "WORKERS", "HSTS", "PUBLIC_URL")
    prints = "; ".join(f'echo "${name}"' for name in names)
    stand_in.write_text(f'#!/usr/bin/env bash\n{{ {prints}; }} >"{tmp_path}/seen"\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        [tmp_path / "deploy-stack.sh"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "WORKERS": "5"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1, "the stand-in is no manager of a swarm"
    assert (tmp_path / "seen").read_text().splitlines() == [
        '[{"name": "chat"}]', "5", "1d", "a b $(id)",
    ]  # fmt: skip
