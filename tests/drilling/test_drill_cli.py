"""The command line of the drills: what it takes, and what it says of what it does not."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys

import pytest

from loadtest.drilling import drill_cli
from loadtest.drilling.drill import names
from loadtest.drills import registered
from tests.architecture.tree import ROOT
from tests.rules import promtool
from tests.rules.test_square import SQUARE


def test_every_alert_of_the_rules_has_a_drill_under_its_name():
    found = names(registered())
    first = {name: drill for name, drill in found.items() if "/" not in name}
    assert set(first) == set(promtool.alerts())
    assert first == {alert: entry["drill"] for alert, entry in SQUARE["alerts"].items()}


def test_a_further_drill_of_an_alert_is_named_after_it_and_its_cause():
    variants = {name: file for name, file in names(registered()).items() if "/" in name}
    assert variants == SQUARE["variants"]
    assert set(variants) == {one.name for one in registered().values() if one.variant}
    assert {one.split("/")[0] for one in variants} <= set(promtool.alerts())


def test_a_name_that_two_drills_have_and_a_variant_without_a_drill_of_its_alert_are_refused(
    monkeypatch: pytest.MonkeyPatch,
):
    handler = importlib.import_module("loadtest.drills.high_error_rate_handler")
    one = handler.DRILL
    monkeypatch.setattr(handler, "DRILL", dataclasses.replace(one, variant=""))
    with pytest.raises(ValueError, match="two drills are named HighErrorRate"):
        registered()
    monkeypatch.setattr(handler, "DRILL", dataclasses.replace(one, alert="HasNoDrill"))
    with pytest.raises(ValueError, match="only variants prove HasNoDrill"):
        registered()


def test_one_drill_of_each_severity_is_acknowledged():
    severities = {
        rule["labels"]["severity"]
        for name, rule in promtool.alerts().items()
        if registered()[name].is_acknowledged
    }
    assert severities == {"critical", "warning", "info"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["HighDiskUsag"], "did you mean HighDiskUsage?"),
        (["HighErrorRate/handlr"], "did you mean HighErrorRate/handler?"),
        ([], "name alerts, or give --seed or --all"),
        (["HighDiskUsage", "--metrics-listen", "9646"], "give HOST:PORT, such as 127.0.0.1:9646"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
):
    assert drill_cli.drill(words, registered()) == 78
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--compress", "100"], ["--stages", "0"], ["--profile", "fast"]])
def test_a_mistake_of_the_command_line_is_bad_input(words: list[str]):
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "drill", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 78
    assert done.stderr.startswith("usage: ws-cluster drill")


@pytest.mark.parametrize("target", ["drill", "drill-short", "drill-production", "soak"])
def test_the_makefile_gives_only_options_that_exist(target: str):
    recipe = (ROOT / "Makefile").read_text().partition(f"\n{target}: ")[2].partition("\n\n")[0]
    commands = re.findall(r"ws-cluster (drill|soak) (.+?) ?(?:\$\(ARGS\)|$)", recipe, re.MULTILINE)
    assert commands
    for command, options in commands:
        done = subprocess.run(
            [sys.executable, "-m", "cluster", command, *options.split(), "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        unknown = set(re.findall(r"--[a-z-]+", options)) - set(
            re.findall(r"--[a-z-]+", done.stdout)
        )
        assert unknown == set()


def test_the_list_names_every_drill(capsys: pytest.CaptureFixture[str]):
    assert drill_cli.drill(["--list"], registered()) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in registered())
