"""Text of others on a terminal: nothing in it acts, everything in it is shown."""

from __future__ import annotations

import json
import re
import time

import pytest

from cluster.cli import main
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
