"""What a real Alertmanager inhibits, and what it does not."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.monitor.stack.render import Profile, render
from tests.rules import promtool
from tests.rules.promtool import DOCKER
from tests.rules.test_routes import configuration, inhibited

WITHIN_SECONDS = 30

# What fires at the same time -> which of it is inhibited.
SITUATIONS: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    "no replica is healthy": (
        [("ServiceDown", ""), ("ServiceDown", "a"), ("NoActiveConnections", "")],
        [("NoActiveConnections", "")],
    ),
    "one replica is down and no client is connected": (
        [("ServiceDown", "a"), ("NoActiveConnections", ""), ("ReplicaLost", "")],
        [("ReplicaLost", "")],
    ),
    "a replica is down and another is slow": (
        [("ServiceDown", "a"), ("AppScrapeSlow", "a"), ("AppScrapeSlow", "b")],
        [("AppScrapeSlow", "a")],
    ),
    "one lost its broker, another is deaf": (
        [("BrokerDisconnected", "a"), ("BrokerDeaf", "a"), ("BrokerDeaf", "b")],
        [("BrokerDeaf", "a")],
    ),
    "errors everywhere": (
        [("HighErrorRate", ""), ("ErrorBudgetFastBurn", ""), ("HighLogErrorRate", "")],
        [("ErrorBudgetFastBurn", ""), ("HighLogErrorRate", "")],
    ),
    "errors in the log only": (
        [("HighLogErrorRate", ""), ("ErrorBudgetFastBurn", "")],
        [],
    ),
    "memory is full, and will be elsewhere": (
        [("HighMemoryUsage", "a"), ("MemoryWillHitLimit", "a"), ("MemoryWillHitLimit", "b")],
        [("MemoryWillHitLimit", "a")],
    ),
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(url: str, document: object = None) -> str:
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while True:
        try:
            ask(f"{url}/-/ready")
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "Alertmanager ended"
            assert time.monotonic() < deadline, "Alertmanager is not ready"
            time.sleep(0.05)


@pytest.fixture(params=SITUATIONS)
def situation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    profile = Profile(
        secrets_dir=tmp_path,
        pagerduty_url="http://127.0.0.1:9/",
        dead_mans_switch_url="http://127.0.0.1:9/",
    )
    for name in ("slack_api_url", "pagerduty_routing_key"):
        (tmp_path / name).write_text("http://127.0.0.1:9/\n")
    rendered = render(DOCKER, tmp_path / "rendered", profile=profile)
    url = f"127.0.0.1:{free_port()}"
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    assert program, "install Debian's package prometheus-alertmanager"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={rendered.alertmanager}",
            f"--storage.path={tmp_path / 'data'}",
            f"--web.listen-address={url}",
            "--cluster.listen-address=",
            "--log.level=error",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(f"http://{url}", process)
        yield f"http://{url}"
    finally:
        process.terminate()
        process.wait(WITHIN_SECONDS)


def test_only_what_another_alert_reports_is_inhibited(situation: str, alertmanager: str):
    alerts = promtool.alerts()
    fire, held = SITUATIONS[situation]
    sent = [
        {
            "labels": {"alertname": name, **alerts[name]["labels"]}
            | ({"instance": instance} if instance else {})
        }
        for name, instance in fire
    ]
    ask(f"{alertmanager}/api/v2/alerts", sent)
    seen: list[dict] = []
    deadline = time.monotonic() + WITHIN_SECONDS
    while len(seen) < len(fire):
        assert time.monotonic() < deadline
        seen = json.loads(ask(f"{alertmanager}/api/v2/alerts"))
    # The inhibitor learns of an alert beside the store that answers this question.
    while True:
        suppressed = sorted(
            (one["labels"]["alertname"], one["labels"].get("instance", ""))
            for one in json.loads(ask(f"{alertmanager}/api/v2/alerts"))
            if one["status"]["inhibitedBy"]
        )
        if suppressed == sorted(held) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert suppressed == sorted(held)


def test_every_inhibition_has_a_situation():
    shown = {name for _, held in SITUATIONS.values() for name, _ in held}
    assert shown == {target for _, target in inhibited(configuration()["inhibit_rules"])}
