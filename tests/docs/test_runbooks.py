"""Runbooks say what is there: each alert has one, and its queries, commands and names are real."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import cli, durations
from cluster.metrics.catalogue import FAMILIES, Family
from cluster.monitor.commands import logs
from loadtest.drilling import drill_cli as drill_command
from loadtest.drills import registered
from tests.architecture.tree import ROOT
from tests.docs.pages import Block, anchors, blocks, links, prose
from tests.harness.needs import needs

FOLDER = ROOT / "docs" / "runbooks"
SECTIONS = [
    "Meaning",
    "Impact",
    "First five minutes",
    "Diagnosis",
    "Mitigation",
    "How to verify it ended",
    "How to drill it",
    "When it misleads",
]
SHORTEST_LINES, LONGEST_LINES = 40, 90
PRIORITIES = {"critical": " (P0)", "warning": " (P1)", "info": " (P2)"}

# What others export: Prometheus with each scrape, itself, Alertmanager, node_exporter.
FOREIGN_METRICS = {
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "prometheus_config_last_reload_successful",
    "prometheus_notifications_alertmanagers_discovered",
    "prometheus_notifications_dropped_total",
    "prometheus_notifications_errors_total",
    "prometheus_notifications_sent_total",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_rule_group_iterations_missed_total",
    "prometheus_rule_group_last_duration_seconds",
    "alertmanager_notification_latency_seconds_bucket",
    "alertmanager_notification_requests_failed_total",
    "alertmanager_notifications_failed_total",
    "alertmanager_notifications_total",
    "node_cpu_seconds_total",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
}
# What others call something: fields of cgroups, Valkey, Slack, logs and our own JSON.
FOREIGN_WORDS = {
    "channel_not_found",
    "exc_info",
    "invalid_token",
    "is_alive",
    "no_service",
    "nr_throttled",
    "supervisor_pid",
    "used_memory",
}
# What they say is that there is no Alertmanager.
NOWHERE_TO_ACKNOWLEDGE = {"AlertmanagerDown", "NotConnectedToAlertmanager"}
TARGET_LABELS = {"job", "instance"}
KEYWORDS = {"and", "or", "unless", "offset", "bool"}

_STRING = r'"(?:\\.|[^"\\])*"'
_MATCHER = re.compile(rf"(\w+)\s*(=~|!~|!=|=)\s*({_STRING})")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_METRIC = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*\b(?![\w:]|\s*\()")
_WORD = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")
_OPTION = re.compile(r"`((?:client|channel|websocket|session|broker|shutdown|server|log)\.[\w.]+)`")


@cache
def rules() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "docker" / "alert_rules.yml").read_text())
    return {
        rule.get("alert", rule.get("record")): rule
        for group in document["groups"]
        for rule in group["rules"]
    }


ALERTS = [name for name, rule in rules().items() if "alert" in rule]
everywhere = pytest.mark.parametrize("alert", ALERTS)


@cache
def square() -> dict[str, dict[str, str]]:
    document = yaml.safe_load((ROOT / "docker" / "square.yml").read_text())
    alerts: dict[str, dict[str, str]] = document["alerts"]
    return alerts


def page(alert: str) -> Path:
    return FOLDER / f"{alert}.md"


def runbooks() -> list[Path]:
    return sorted(FOLDER.glob("*.md"))


def sections(alert: str) -> dict[str, str]:
    parts = re.split(r"(?m)^## (.+)$", page(alert).read_text(encoding="utf-8"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# --- what is there -----------------------------------------------------------------------


def test_every_page_belongs_to_an_alert():
    assert {path.stem for path in runbooks()} - {"README"} == set(ALERTS)


@everywhere
def test_the_rule_leads_to_its_page(alert: str):
    assert rules()[alert]["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"


@everywhere
def test_a_page_has_every_section_and_can_be_read_at_night(alert: str):
    found = sections(alert)
    assert list(found) == SECTIONS
    assert [name for name, text in found.items() if not text.strip()] == []
    assert SHORTEST_LINES <= len(page(alert).read_text().splitlines()) <= LONGEST_LINES


@everywhere
def test_a_page_names_severity_team_and_duration_as_the_rule_has_them(alert: str):
    rule = rules()[alert]
    severity, team = rule["labels"]["severity"], rule["labels"]["team"]
    fires = f"after {rule['for']}" if "for" in rule else "at once"
    panel = square()[alert]["panel"]
    head = f"Severity **{severity}**{PRIORITIES.get(severity, '')} · team {team} · fires {fires} · "
    assert f"{head}panel `{panel}` · " in page(alert).read_text()


@everywhere
def test_a_page_names_its_drill(alert: str):
    assert f"Drill `{square()[alert]['drill']}`" in sections(alert)["How to drill it"]


def test_the_index_lists_every_alert_with_its_severity():
    index = (FOLDER / "README.md").read_text()
    rows = re.findall(r"(?m)^\| \[(\w+)\]\(\1\.md\) \| (\w+) \|", index)
    assert rows == [(name, rules()[name]["labels"]["severity"]) for name in ALERTS]


@pytest.mark.parametrize("path", runbooks(), ids=lambda path: path.stem)
def test_every_link_leads_to_a_file_or_a_heading(path: Path):
    lost = []
    for target in links(path):
        name, _, anchor = target.partition("#")
        goal = (path.parent / name).resolve() if name else path
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            lost.append(target)
    assert lost == []


# --- queries -----------------------------------------------------------------------------


def queries(path: Path) -> list[str]:
    """One on each line of a promql block that is no comment."""
    found = [block.text for block in blocks(path) if block.kind == "promql"]
    lines = [line.strip() for text in found for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@cache
def families() -> dict[str, Family]:
    """Every series name and its family."""
    found = {family.name: family for family in FAMILIES}
    for family in FAMILIES:
        if family.kind == "histogram":
            found |= {f"{family.name}_{part}": family for part in ("bucket", "sum", "count")}
    return found


def metrics(query: str) -> set[str]:
    bare = _GROUPING.sub("", re.sub(r"\{[^}]*\}|\[[^]]*\]", "", re.sub(_STRING, "", query)))
    return set(_METRIC.findall(bare)) - KEYWORDS


def faults_of_labels(query: str) -> list[str]:
    """What a query asks of our metrics that they do not have."""
    faults = []
    for name, inside in _SELECTOR.findall(query):
        if (family := families().get(name)) is not None:
            for label, _, text in _MATCHER.findall(inside):
                faults += [f"{name} has no {fault}" for fault in _faults(family, label, text[1:-1])]
    return faults


def _faults(family: Family, label: str, text: str) -> list[str]:
    if label in TARGET_LABELS:
        return []
    if label not in family.labels:
        return [label]
    known = family.labels[label]
    return [f"{label}={value}" for value in text.split("|") if known and value not in known]


def labels_grouped_by(query: str) -> set[str]:
    return {label.strip() for inside in _GROUPING.findall(query) for label in inside.split(",")} - {
        ""
    }


def test_metrics_and_labels_of_a_query_are_found():
    query = 'sum by (le, x) (rate(a_bucket{job="b",type=~"c|d"}[5m] offset 1w)) / e:f and on () g'
    assert metrics(query) == {"a_bucket", "e:f", "g"}
    assert labels_grouped_by(query) == {"le", "x"}
    wrong = 'app_errors_total{type="broker",kind="x"} + app_errors_total{type=~"store|moon"}'
    assert faults_of_labels(wrong) == [
        "app_errors_total has no kind",
        "app_errors_total has no type=moon",
    ]


@everywhere
def test_a_page_asks_for_metrics_that_exist(alert: str):
    asked = {name for query in queries(page(alert)) for name in metrics(query)}
    assert asked - set(families()) - FOREIGN_METRICS - set(rules()) == set()
    assert queries(page(alert)), "a diagnosis needs queries"


@everywhere
def test_a_page_asks_for_labels_that_exist(alert: str):
    assert [fault for query in queries(page(alert)) for fault in faults_of_labels(query)] == []
    foreign = {"le", "mode", "mountpoint", "alertmanager", "integration", "rule_group"}
    ours = {label for family in FAMILIES for label in family.labels}
    grouped = {label for query in queries(page(alert)) for label in labels_grouped_by(query)}
    assert grouped - ours - TARGET_LABELS - foreign == set()


@needs(shutil.which("promtool"), "Debian's package prometheus brings it")
def test_promtool_can_parse_every_query(tmp_path: Path):
    found = [(path.stem, query) for path in runbooks() for query in queries(path)]
    names = [f"q{number}:{stem}" for number, (stem, _) in enumerate(found)]
    recorded = [{"record": n, "expr": q} for n, (_, q) in zip(names, found, strict=True)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": recorded}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint=none", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(found)} rules found" in done.stdout + done.stderr


# --- commands ----------------------------------------------------------------------------


def commands(path: Path) -> Iterator[str]:
    """Every command of a console block, and every `ws-cluster …` in the text."""
    for block in blocks(path):
        if block.kind == "console":
            yield from commands_of(block)
    yield from re.findall(r"`(ws-cluster [^`]+)`", prose(path))


def commands_of(block: Block) -> Iterator[str]:
    for line in block.text.splitlines():
        if line.startswith("$ "):
            yield line[2:]


def of_ours(command: str) -> list[list[str]]:
    """The arguments of each `ws-cluster` in a shell command."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = []
    is_ours = False
    for word in lexer:
        if word == "ws-cluster":
            found.append([])
            is_ours = True
        elif word[0] in ";&|":
            is_ours = False
        elif is_ours:
            found[-1].append(word)
    return [words for words in found if words]


def parsed(words: list[str]) -> argparse.Namespace | None:
    try:
        if words[0] == "drill":
            found = drill_command._parser().parse_args(words[1:])
            return found if set(found.alerts) <= set(registered()) else None
        return cli._parser(words[0]).parse_args(words)
    except SystemExit:
        return None


@pytest.mark.parametrize("path", runbooks(), ids=lambda path: path.stem)
def test_every_command_of_ours_is_accepted_by_the_real_parser(path: Path):
    found = [words for command in commands(path) for words in of_ours(command)]
    assert [words for words in found if parsed(words) is None] == []


def test_a_command_that_is_none_is_noticed():
    assert of_ours("sleep 1; ws-cluster monitor acc X & ws-cluster up") == [
        ["monitor", "acc", "X"],
        ["up"],
    ]
    assert parsed(["monitor", "acc", "X"]) is None
    assert parsed(["drill", "NoSuchAlert"]) is None


@everywhere
def test_a_page_acknowledges_its_own_alert(alert: str):
    found = [words for command in commands(page(alert)) for words in of_ours(command)]
    acked = {words[2] for words in found if words[:2] == ["monitor", "ack"]}
    calls = rules()[alert]["labels"]["severity"] in ("critical", "warning")
    if calls and alert not in NOWHERE_TO_ACKNOWLEDGE:
        assert acked == {alert}
    else:
        assert acked <= {alert}


@cache
def events() -> set[str]:
    reference = (ROOT / "docs" / "reference" / "events.md").read_text()
    return set(re.findall(r"(?m)^\| `(\w+)`", reference))


@pytest.mark.parametrize("path", runbooks(), ids=lambda path: path.stem)
def test_a_page_reads_logs_that_exist_for_events_that_exist(path: Path):
    for words in (words for command in commands(path) for words in of_ours(command)):
        asked = vars(parsed(words) or argparse.Namespace())
        if words[:2] in (["monitor", "logs"], ["monitor", "history"]) and asked.get("since"):
            durations.seconds_of(asked["since"])
        if words[:2] == ["monitor", "logs"]:
            assert asked["service"] in logs.SERVICES
            pattern = asked["grep"] or ""
            re.compile(pattern)
            named = {
                part for part in pattern.split("|") if re.fullmatch(r"[a-z]+(_[a-z]+)+_?", part)
            }
            assert {n for n in named if not any(e.startswith(n) for e in events())} == set()


def test_the_crowd_is_told_only_what_it_understands():
    [crowd] = [block.text for block in blocks(FOLDER / "README.md") if block.kind == "python"]
    known = set(re.findall(r'add\("(--[a-z]+)"', crowd))
    given = {
        flag
        for path in runbooks()
        for command in commands(path)
        for use in re.findall(r"crowd\.py([^;&]*)", command)
        for flag in re.findall(r"--[a-z]+", use)
    }
    assert given - known - {"--help"} == set()


# --- words -------------------------------------------------------------------------------


@cache
def options() -> set[str]:
    reference = (ROOT / "docs" / "reference" / "config.md").read_text()
    return set(re.findall(r"(?m)^\| `([\w.\[\]]+)`", reference))


@pytest.mark.parametrize("path", runbooks(), ids=lambda path: path.stem)
def test_events_metrics_and_options_that_are_named_exist(path: Path):
    values = {v for family in FAMILIES for known in family.labels.values() for v in known}
    leaves = {option.rpartition(".")[2] for option in options()}
    known = events() | values | leaves | set(families()) | FOREIGN_METRICS | FOREIGN_WORDS
    text = prose(path)
    assert set(_WORD.findall(text)) - known - set({e["drill"] for e in square().values()}) == set()
    assert set(_OPTION.findall(text)) - options() == set()
