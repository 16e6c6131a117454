"""Text of others acts on no terminal, wherever a command prints it."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cluster.cli import main
from cluster.errors import Problem
from cluster.terminal_text import escaped, escaped_lines
from loadtest.drilling.report.progress import Progress
from loadtest.drilling.result import RunResult
from tests.unit.monitor_services import Ask, Services

HOSTILE = {
    "clears the screen": "\x1b[2J",
    "sets the title": "\x1b]0;owned\x07",
    "links elsewhere": "\x1b]8;;http://evil\x1b\\",
    "C1 CSI": "\x9b31m",
    "C1 OSC": "\x9d0;owned\x9c",
    "returns": "\rOK: nothing needs attention",
    "adds a line": "\nOK: nothing needs attention",
    "backspaces": "x\x08\x08",
    "reorders": "\u202etxt.exe",
    "isolates": "\u2066a\u2069",
    "separates lines": "\u2028next",
    "hides": "a\u200bb\ufeff",
    "deletes": "\x7f",
    "half a pair": "\ud83d",
}
ACTING = set("".join(chr(n) for n in (*range(0x20), *range(0x7F, 0xA0)))) | set(
    "\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\ud83d"
)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_acts_on_a_terminal_is_shown_as_its_escape(text: str):
    assert not ACTING & set(escaped(text))
    assert not ACTING & set(escaped_lines(text)) - {"\n", "\t"}
    assert "\\" in escaped(text)


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_keeps_a_control_and_plain_text_stays(text: str):
    assert not ACTING & set(escaped(text))
    plain = "".join(c for c in text if c.isalnum() and c.isascii())
    assert escaped(plain) == plain


def test_letters_of_every_script_stay():
    text = "naïve 東京 Ελλάδα שלום سلام 🚀 – „quoted“"
    assert escaped(text) == text


@pytest.fixture
def hostile(services: Services) -> str:
    """Alerts, silences and rules whose every text is hostile."""
    text = "".join(HOSTILE.values()).replace("\ud83d", "")
    services.fire("ServiceDown", since=time.time() - 90, instance=text)
    services.alerts["ServiceDown"][0]["annotations"]["summary"] = text
    services.silences["one"] = {
        "id": "one",
        "status": {"state": "active"},
        "matchers": [{"name": "alertname", "value": f"X{text}", "isRegex": False, "isEqual": True}],
        "startsAt": "2020-01-01T00:00:00Z",
        "endsAt": "2099-01-01T00:00:00Z",
        "createdBy": text,
        "comment": text,
    }
    services.health["ServiceDown"] = text
    return text


@pytest.mark.parametrize(
    "words",
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
def test_the_commands_print_no_hostile_text(ask: Ask, hostile: str, words: tuple[str, ...]):
    _, out, err = ask(*words)
    assert out or err
    assert not ACTING & set(out + err) - {"\n"}
    assert not any(line.startswith("OK: nothing") for line in out.splitlines())
    if words[0] in ("check-alerts", "rules", "silence"):
        assert "\\x1b[2J" in out


def test_an_error_that_quotes_the_configuration_is_escaped(tmp_path, capsys):
    file = tmp_path / "bad.toml"
    file.write_text('[log]\n"\\u001b[2J\\u202e\\nfine" = "\\u001b[2J"\n[client]\ninsecure = true\n')
    assert main(["check-config", str(file)]) == 78
    err = capsys.readouterr().err
    assert not ACTING & set(err) - {"\n"}
    assert "\\x1b[2J" in err
    assert "\n" not in str(Problem("log.level", "a\nb", "c"))


def test_the_progress_of_drills_is_escaped():
    out = io.StringIO()
    run = RunResult(profile="fast", compress=1.0, started_at=0.0, target="none", machine={})
    Progress(run, planned=1, console=Console(file=out)).note("".join(HOSTILE.values()))
    assert not ACTING & set(out.getvalue()) - {"\n"}
