"""The operator's commands that only read: rules, runbooks, the history of incidents, logs."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.monitor.incidents.store import IncidentStore
from tests.unit.monitor_services import Ask, Services

# --- rules, runbook, history, logs ---------------------------------------------------------


def test_rules_lists_and_shows_one(ask: Ask, services: Services):
    services.health["ServiceDown"] = "err"
    assert "err" in ask("rules")[1]
    assert "up == 0" in ask("rules", "ServiceDown")[1]
    assert ask("rules", "Nonsense")[0] == 1


def test_runbook_prints_its_address(ask: Ask):
    assert ask("runbook", "SlowShutdownTime", "--url")[1].strip().endswith(
        "SlowShutdownTime.md"
    ) or (ask("runbook", "SlowShutdownTime", "--url")[1] == "http://runbooks/SlowShutdownTime\n")
    assert ask("runbook", "../../etc/passwd")[0] == 1


def incident(store: IncidentStore, name: str, severity: str, ago: float, **columns: object) -> int:
    labels = {"alertname": name, "severity": severity, "n": str(ago)}
    number = store.open_incident(labels, {}, time.time() - ago)
    store.set(number, firing_at=time.time() - ago, **columns)
    return number


@pytest.fixture
def past(tmp_path: Path) -> None:
    """Four incidents: acknowledged in time, acknowledged late, ended by itself, and still open."""
    store = IncidentStore(tmp_path)
    now = time.time()
    with store.change():
        ended = {"state": "resolved", "resolved_at": now - 100}
        incident(store, "ServiceDown", "critical", 5000, acknowledged_at=now - 4900, **ended)
        incident(store, "ServiceDown", "critical", 4000, acknowledged_at=now - 3000, **ended)
        incident(store, "SlowShutdownTime", "warning", 1000, **ended)
        incident(store, "HighErrorRate", "critical", 60, state="firing")
        store.open_incident({"alertname": "Waited", "severity": "info"}, {}, now)
    store.close()


def test_history_measures_against_the_response_times(ask: Ask, past: None):
    found = json.loads(ask("history", "--json")[1])
    assert [one["is_in_target"] for one in found] == [True, False, True, None]
    assert [one["alertname"] for one in found].count("Waited") == 0
    assert round(found[1]["acknowledge_seconds"]) == 1000
    out = ask("history", "--alert", "ServiceDown")[1]
    assert out.count("ServiceDown") == 2
    assert "16m" in out


def test_false_positives_are_marked_and_counted(ask: Ask, past: None):
    assert ask("history", "--false-positive", "1")[0] == 0
    assert ask("history", "--false-positive", "99")[0] == 1
    rates = {rate["alert"]: rate for rate in json.loads(ask("history", "--rates", "--json")[1])}
    assert rates["ServiceDown"]["false_positives"] == 1
    assert rates["ServiceDown"]["firings"] == 2
    assert rates["ServiceDown"]["in_target"] == 1
    assert "1 (50 %)" in ask("history", "--rates")[1]
    ask("history", "--true-positive", "1")
    assert "0 (0 %)" in ask("history", "--rates")[1]


def test_logs_show_lines_and_alerts_in_order_of_time(ask: Ask, tmp_path: Path):
    store = IncidentStore(tmp_path)
    with store.change():
        number = store.open_incident({"alertname": "ServiceDown"}, {}, 1_700_000_000)
        store.record(1_700_000_005, number, "firing", "it is down")
    store.close()
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "alertmanager.log").write_text(
        '{"ts": "2023-11-14T22:13:24.5Z", "msg": "before"}\n'
        "    and its second line\n"
        'ts=2023-11-14T22:13:26.5Z msg="after"\n'
    )
    _, out, _ = ask("logs", "alertmanager")
    order = [out.index(word) for word in ("before", "second", "ALERT", "after")]
    assert order == sorted(order)
    assert ask("logs", "alertmanager", "--grep", "aft")[1].count("\n") == 1
    assert "ALERT" not in ask("logs", "alertmanager", "--no-alerts")[1]
    assert ask("logs", "alertmanager", "--since", "1h")[1] == ""


def test_a_service_without_a_log_is_one_sentence(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    code, _, err = ask("logs", "app")
    assert code == 1
    assert "--cluster-dir" in err
    assert ask("logs", "grafana")[0] == 1


def test_a_cluster_starts_without_importing_monitor():
    program = (
        "import sys; from cluster import cli; cli._parser('up'); "
        "sys.exit(any(name.startswith('cluster.monitor') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_reader_that_stops_early_is_not_an_error(tmp_path: Path):
    file = tmp_path / "long.log"
    file.write_text("2023-11-14T22:13:20Z a line that is read\n" * 20_000)
    command = f"'{sys.executable}' -m cluster monitor logs app --file '{file}' --since 10000d"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} --data-dir '{tmp_path}' | head -1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


async def test_following_a_log_shows_new_lines(tmp_path: Path):
    store = IncidentStore(tmp_path)
    with store.change():
        number = store.open_incident({"alertname": "ServiceDown"}, {}, 1000.0)
        store.record(1000.0, number, "firing", "long ago")
    store.close()
    file = tmp_path / "growing.log"
    file.write_text("2023-11-14T22:13:20Z first\n")
    words = ("monitor", "logs", "app", "-f", "--file", str(file), "--data-dir", str(tmp_path))
    follower = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster", *words), stdout=asyncio.subprocess.PIPE
    )
    assert follower.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert b"first" in await follower.stdout.readline()
            with file.open("a") as log:
                log.write("2023-11-14T22:13:21Z second\n")
            assert b"second" in await follower.stdout.readline()
            file.write_text("2023-11-14T22:13:22Z 3\n")
            assert b"Z 3" in await follower.stdout.readline()
            follower.send_signal(signal.SIGINT)
            assert await follower.wait() in (0, 130)
    finally:
        if follower.returncode is None:
            follower.kill()


def test_a_log_that_was_rotated_is_read_with_its_older_file(ask: Ask, tmp_path: Path):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "prometheus.log.1").write_text("2023-11-14T22:13:20Z older\n")
    (folder / "prometheus.log").write_text("2023-11-14T22:13:21Z newer\n")
    code, out, _ = ask("logs", "prometheus")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()] == ["older", "newer"]


def test_the_response_times_are_those_of_the_tracker(ask: Ask, tmp_path: Path):
    store = IncidentStore(tmp_path)
    with store.change():
        store.set_fact("response_seconds_critical", "600")
        labels = {"alertname": "ServiceDown", "severity": "critical"}
        number = store.open_incident(labels, {}, time.time() - 900)
        store.set(
            number,
            state="resolved",
            firing_at=time.time() - 900,
            acknowledged_at=time.time() - 400,
            resolved_at=time.time() - 100,
        )
    store.close()
    _, out, _ = ask("history", "--json")
    [one] = json.loads(out)
    assert (one["target_seconds"], one["is_in_target"]) == (600, True)
