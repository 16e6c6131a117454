"""Text of others on a terminal: nothing in it acts, everything in it is shown."""

from __future__ import annotations

import json
import re
import time
import tomllib
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.import_config.toml_text import toml
from cluster.monitor.incidents.store import IncidentStore
from tests.unit.monitor_services import Ask, Services, moment

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]8;;http://x\x1b\\link"  # CSI, a window title, a link
    "\x9b31m\x9d0;t\x9c"  # the same as C1 controls
    "\u202eevil\u202c\u2066\u2069"  # changes of direction
    "\r\nOK: nothing needs attention\u2028\x7f\x08"
)
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def assert_inert(text: str) -> None:
    assert not ACTS.search(text), repr(text)
    assert not [line for line in text.split("\n") if line.startswith("OK: nothing needs")]
    assert "\\x1b[2J" in text


@pytest.mark.parametrize(
    "command",
    [
        ("check-alerts",),
        ("status",),
        ("rules",),
        ("rules", "ServiceDown"),
        ("silence",),
        ("targets",),
    ],
    ids=" ".join,
)
def test_labels_annotations_and_authors_are_shown_escaped(
    ask: Ask, services: Services, command: tuple[str, ...]
):
    labels = services.fire("ServiceDown", since=time.time() - 60, instance=HOSTILE)
    services.alerts["ServiceDown"][0]["annotations"]["summary"] = HOSTILE
    services.fire(f"Bad{HOSTILE}", since=time.time() - 60)
    rules = services._document("/api/v1/rules")
    rules["data"]["groups"][0]["rules"][0]["annotations"]["summary"] = HOSTILE
    services.answers["/api/v1/rules"] = (200, json.dumps(rules).encode())
    number = services.silence({"alertname": "Other", "instance": HOSTILE}, HOSTILE, since=0)
    services.silences[number]["createdBy"] = HOSTILE
    target: dict[str, object] = {"labels": {"job": HOSTILE, "instance": HOSTILE}, "health": "down"}
    target |= {"lastError": HOSTILE, "scrapeUrl": HOSTILE, "lastScrape": moment(0)}
    target |= {"lastScrapeDuration": 0.1, "scrapePool": "a"}
    targets = {"status": "success", "data": {"activeTargets": [target]}}
    services.answers["/api/v1/targets"] = (200, json.dumps(targets).encode())
    _, out, err = ask(*command)
    assert_inert(out + err)
    assert labels["instance"] == HOSTILE


def test_the_author_of_an_acknowledgement_is_shown_escaped(ask: Ask, services: Services):
    services.fire("ServiceDown", since=time.time() - 60, instance=HOSTILE)
    code, out, err = ask("ack", "ServiceDown", "--author", HOSTILE, "--note", "x")
    assert code == 0, err
    assert_inert(out + err)


def test_an_error_that_quotes_a_configuration_file_is_shown_escaped(
    tmp_path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "cluster.toml"
    file.write_text('[server]\nhost = 1\n"\\u001b[2J\\n\\u202e" = 1\n', encoding="utf-8")
    assert main(["check-config", str(file)]) == 78
    shown = capsys.readouterr()
    assert not ACTS.search(shown.out + shown.err)
    assert "\\x1b[2J\\n\\u202e" in shown.err


def test_what_import_config_writes_is_escaped_and_reads_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    hostile = HOSTILE + "\u200b\ufeff\U000e0041"
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"client": {"allowed_origins": [hostile]}, hostile: hostile}))
    main(["import-config", str(file)])
    shown = capsys.readouterr()
    assert not ACTS.search(shown.out + shown.err)
    assert not re.search("[\u200b\ufeff\U000e0041]", shown.out + shown.err)
    assert tomllib.loads(shown.out)["client"]["allowed_origins"] == [hostile]


def test_a_key_is_escaped_as_its_value():
    tree = {HOSTILE: {HOSTILE: HOSTILE}}
    assert not ACTS.search(toml(tree))
    assert tomllib.loads(toml(tree)) == tree


def test_the_history_of_incidents_is_shown_escaped(ask: Ask, tmp_path: Path):
    now = time.time()
    store = IncidentStore(tmp_path)
    with store.change():
        labels = {"alertname": f"Bad{HOSTILE}", "severity": "critical", "instance": HOSTILE}
        number = store.open_incident(labels, {"summary": HOSTILE}, now - 60)
        store.set(number, firing_at=now - 60, acknowledged_at=now, acknowledged_by=HOSTILE)
        store.record(now, number, "acknowledged", HOSTILE)
    store.close()
    for options in ((), ("--rates",), ("--json",), ("--rates", "--json")):
        code, out, err = ask("history", *options)
        assert code == 0, err
        assert not ACTS.search(out + err), options
        assert "[2J" in out


def test_lines_of_logs_and_of_alerts_are_shown_escaped(ask: Ask, tmp_path: Path):
    store = IncidentStore(tmp_path)
    with store.change():
        labels = {"alertname": f"Bad{HOSTILE}", "severity": "critical"}
        number = store.open_incident(labels, {}, time.time())
        store.record(time.time(), number, "acknowledged", HOSTILE)
    store.close()
    log = tmp_path / "log" / "prometheus.log"
    log.parent.mkdir(exist_ok=True)
    # A break of lines in a file is one.
    text = HOSTILE.replace("\r\n", "")
    log.write_text(f"ts={moment(time.time() - 5)} {text}\n", encoding="utf-8")
    code, out, err = ask("logs", "prometheus")
    assert code == 0, err
    assert_inert(out + err)
    assert "ALERT" in out
