"""The operator's commands: what they print, what they change, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.monitor.incidents.store import IncidentStore
from tests.unit.monitor_services import Ask, Services

# --- check-alerts --------------------------------------------------------------------------


def test_nothing_that_fires_is_0(ask: Ask):
    assert ask("check-alerts")[:2] == (0, "OK: nothing needs attention\n")


@pytest.mark.parametrize(
    ("name", "code"),
    [("ServiceDown", 2), ("SlowShutdownTime", 1), ("HighSessionCount", 0), ("Watchdog", 0)],
)
def test_the_exit_code_is_the_worst_that_fires(ask: Ask, services: Services, name: str, code: int):
    services.fire(name, since=time.time() - 60)
    assert ask("check-alerts")[0] == code


def test_what_is_pending_does_not_count_and_is_shown(ask: Ask, services: Services):
    services.fire("ServiceDown", since=time.time(), state="pending")
    code, out, _ = ask("check-alerts")
    assert code == 0
    assert "pending" in out
    assert "ServiceDown" in out


@pytest.mark.parametrize(("comment", "state"), [("ack: on it", "acknowledged"), ("x", "silenced")])
def test_what_is_acknowledged_or_silenced_does_not_count(
    ask: Ask, services: Services, comment: str, state: str
):
    labels = services.fire("ServiceDown", since=time.time() - 60)
    services.silence(labels, comment, since=time.time())
    code, out, _ = ask("check-alerts")
    assert code == 0
    assert state in out


def test_an_alert_that_has_not_reached_alertmanager_counts_and_says_so(
    ask: Ask, services: Services
):
    services.fire("ServiceDown", since=time.time() - 60, at_alertmanager=False)
    code, out, _ = ask("check-alerts")
    assert code == 2
    assert "not at Alertmanager" in out


def test_check_alerts_prints_json(ask: Ask, services: Services):
    services.fire("ServiceDown", since=time.time() - 60, instance="a:8001")
    code, out, _ = ask("check-alerts", "--json")
    document = json.loads(out)
    assert code == document["exit_code"] == 2
    [alert] = document["alerts"]
    assert (alert["alert"], alert["instance"], alert["state"]) == (
        "ServiceDown",
        "a:8001",
        "firing",
    )


# --- services that do not answer -----------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "answer", "says"),
    [
        ("/api/v1/rules", (500, b'{"error": "tsdb is broken"}'), "answered 500"),
        ("/api/v1/rules", (200, b"<html>"), "no JSON"),
        ("/api/v1/rules", (200, b'{"status": "error"}'), "no status success"),
        ("/api/v1/rules", (200, b'{"status": "success", "data": {}}'), "cannot be understood"),
        ("/api/v2/alerts", (500, b""), "Alertmanager"),
        ("/api/v2/alerts", (200, b'{"a": 1}'), "cannot be understood"),
        ("/api/v2/silences", (410, b"gone"), "answered 410"),
    ],
)
def test_a_service_with_a_malformed_answer_is_one_sentence_and_3(
    ask: Ask, services: Services, path: str, answer: tuple[int, bytes], says: str
):
    services.answers[path] = answer
    code, out, err = ask("check-alerts")
    assert (code, out) == (3, "")
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_without_rules_or_without_an_evaluation_the_state_is_unknown(ask: Ask, services: Services):
    services.health["SlowShutdownTime"] = "err"
    code, _, err = ask("check-alerts")
    assert code == 3
    assert "has not evaluated SlowShutdownTime" in err
    services.fire("ServiceDown", since=time.time())
    assert ask("check-alerts")[0] == 2, "a critical alert counts in any case"
    services.alerts.clear()
    services.active.clear()
    code, out, _ = ask("check-alerts", "--json")
    assert (code, json.loads(out)["state"]) == (3, "unknown")
    assert "no alert rules" in out


def test_the_exit_code_is_right_for_a_reader_of_the_first_line_only(
    services: Services, tmp_path: Path
):
    for number in range(3000):
        services.fire("ServiceDown", since=time.time(), instance=f"{number}:8001")
    command = f"{sys.executable} -m cluster monitor check-alerts --data-dir {tmp_path}"
    command += f" --prometheus-url {services.url} --alertmanager-url {services.url}"
    words = f"set -o pipefail; {command} | head -1"
    done = subprocess.run(["bash", "-c", words], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, b"")


def test_status_is_one_screen_and_says_what_does_not_answer(
    ask: Ask, services: Services, tmp_path: Path
):
    services.fire("ServiceDown", since=time.time(), instance="a:8001")
    store = IncidentStore(tmp_path)
    with store.change():
        store.add_notification("x", "pagerduty", {}, time.time())
        store.mark_failed("x", next_try_at=0, given_up="answered 400")
    store.close()
    code, out, err = ask("status", "--admin-url", "http://127.0.0.1:1")
    assert code == 3
    assert "cluster      unknown" in out
    assert "whole cluster, from Prometheus" in out
    assert "1 critical firing" in out
    assert "1 notifications of the incident tracker were not delivered" in err
    assert "answered 400" in err
    assert "http://127.0.0.1:1 cannot be reached" in err


def test_a_service_that_does_not_listen_is_one_sentence_and_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    closed = ["--prometheus-url", "http://127.0.0.1:1", "--data-dir", str(tmp_path)]
    assert main(["monitor", "rules", *closed]) == 3
    err = capsys.readouterr().err
    assert "Prometheus at http://127.0.0.1:1 cannot be reached (Connection refused)" in err
    assert "ws-cluster monitoring up" in err


def test_an_invalid_address_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for address in ("localhost:9090", "ftp://x", "http://[broken"):
        assert main(["monitor", "rules", "--prometheus-url", address]) == 3
        assert "is no address of Prometheus" in capsys.readouterr().err


def test_unknown_is_printed_as_json_too(ask: Ask, services: Services):
    services.answers["/api/v2/alerts"] = (500, b"")
    code, out, _ = ask("check-alerts", "--json")
    assert code == 3
    assert json.loads(out)["state"] == "unknown"


def test_an_invalid_command_line_is_3_and_not_a_critical_alert(ask: Ask):
    assert ask("check-alerts", "--jason")[0] == 3
    assert ask("ack", "ServiceDown")[0] == 3
    assert ask("ack", "ServiceDown", "--note", " ")[0] == 3
    assert ask("ack", "ServiceDown", "--note", "x", "--for", "soon")[0] == 3
    assert ask("silence", "a=~[", "--note", "x")[0] == 3
    assert ask("logs", "prometheus", "--grep", "[")[0] == 3
    assert ask("frobnicate")[0] == 3


# --- ack, resolve, silence -----------------------------------------------------------------


def test_ack_silences_exactly_what_fires(ask: Ask, services: Services):
    labels = services.fire("ServiceDown", since=time.time(), instance="a:8001")
    services.fire("ServiceDown", since=time.time(), instance="b:8001")
    words = ("--note", "on it", "--author", "ann", "--match", "instance=a:8001", "--for", "30m")
    code, out, err = ask("ack", "ServiceDown", *words)
    assert code == 0, err
    [silence] = services.silences.values()
    assert {m["name"]: m["value"] for m in silence["matchers"]} == labels
    assert (silence["comment"], silence["createdBy"]) == ("ack: on it", "ann")
    assert "acknowledged by ann until" in out
    assert "no incident tracker" in err


def test_a_second_ack_replaces_the_first(ask: Ask, services: Services):
    services.fire("ServiceDown", since=time.time())
    ask("ack", "ServiceDown", "--note", "on it", "--author", "ann")
    _, out, _ = ask("ack", "ServiceDown", "--note", "mine", "--author", "bob")
    assert "was acknowledged by ann; now by bob" in out
    assert [s["status"]["state"] for s in services.silences.values()] == ["expired", "active"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ServiceDwon", "did you mean ServiceDown?"),
        ("Nonsense", "no alert is called Nonsense"),
        ("SlowShutdownTime", "there is nothing to acknowledge"),
    ],
)
def test_ack_of_what_does_not_fire_changes_nothing(
    ask: Ask, services: Services, name: str, says: str
):
    code, _, err = ask("ack", name, "--note", "on it")
    assert code == 1
    assert says in err
    assert services.silences == {}


def test_ack_of_what_is_pending_says_so(ask: Ask, services: Services):
    services.fire("ServiceDown", since=time.time(), state="pending")
    code, _, err = ask("ack", "ServiceDown", "--note", "on it")
    assert code == 1
    assert "pending" in err


def store_with_incident(folder: Path, labels: dict[str, str]) -> None:
    store = IncidentStore(folder)
    with store.change():
        number = store.open_incident(labels, {}, time.time() - 100)
        store.set(number, state="firing", firing_at=time.time() - 90, dedup_keys=["k"])
    store.close()


def test_resolve_closes_the_incident_and_warns_if_the_condition_holds(
    ask: Ask, services: Services, tmp_path: Path
):
    labels = services.fire("ServiceDown", since=time.time())
    store_with_incident(tmp_path, labels)
    code, out, err = ask("resolve", "ServiceDown", "--note", "known", "--author", "ann")
    assert code == 0
    assert "incident 1 (ServiceDown) is closed by ann" in out
    assert "still holds" in err
    store = IncidentStore(tmp_path)
    assert store.incident(1).state == "resolved"
    assert "resolve:1:k" in [one.name for one in store.notifications(time.time())]
    store.close()
    assert ask("resolve", "ServiceDown", "--note", "again")[0] == 1


def test_resolve_without_an_incident_store_says_how_to_get_one(ask: Ask):
    code, _, err = ask("resolve", "ServiceDown", "--note", "x")
    assert code == 1
    assert "monitoring up" in err


def test_silence_and_unsilence(ask: Ask, services: Services):
    services.fire("ServiceDown", since=time.time(), instance="a")
    words = ("ServiceDown", "instance=~a|b", 'team!="infrastructure"')
    code, out, _ = ask("silence", *words, "--note", "roll", "--for", "1h")
    assert code == 0
    assert "(1 of the alerts that fire now)" in out
    [silence] = services.silences.values()
    assert [(m["name"], m["isRegex"], m["isEqual"]) for m in silence["matchers"]] == [
        ("alertname", False, True),
        ("instance", True, True),
        ("team", False, False),
    ]
    assert "roll" in ask("silence")[1]
    assert ask("unsilence", "HighSessionCount")[0] == 1
    assert ask("unsilence", "ServiceDown")[0] == 0
    assert ask("silence")[1] == "nothing is silenced\n"


def test_silence_without_a_note_is_refused(ask: Ask, services: Services):
    assert ask("silence", "ServiceDown")[0] == 3
    assert services.silences == {}
