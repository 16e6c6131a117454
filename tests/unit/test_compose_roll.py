"""docker/roll.sh, with a stand-in for `docker`: what it removes, what it stops, and when nginx is reloaded."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

#: Keeps the replicas that run and those that do not in two files, and writes down what it was called with.
DOCKER = r"""#!/usr/bin/env bash
cd "$(dirname "$0")"
echo "$*" >>calls
case "$*" in
    "compose ps --quiet app") cat running ;;
    "compose ps --all --quiet app") cat running others ;;
    "compose ps --quiet nginx") cat nginx ;;
    *" --scale app=4 "*)
        if [ -e fails ]; then
            echo new-1 >>running
            echo new-2 >>others
            exit 1
        fi
        printf '%s\n' new-1 new-2 >>running ;;
    *" nginx cat "*) cat nginx.conf ;;
    *" run "*" nginx-config")
        if [ -e refused ]; then cat refused >&2; exit 1; fi
        cat changed >>nginx.conf ;;
    "rm "*) sed -i "/^${!#}$/d" running others ;;
    "inspect "*State.Health.Log*) echo "no worker is ready" ;;
    "inspect "*) if [ -e unhealthy ]; then echo unhealthy; else echo healthy; fi ;;
esac
"""


@dataclass
class Roll:
    """A folder with the stand-in, two replicas that run and one that does not."""

    folder: Path
    program: Path = ROOT / "docker" / "roll.sh"
    said: str = field(default="", init=False)

    def __post_init__(self) -> None:
        (self.folder / "docker").write_text(DOCKER)
        (self.folder / "docker").chmod(0o755)
        for name, text in {
            "running": "old-1\nold-2\n",
            "others": "",
            "nginx": "",
            "nginx.conf": "workers 2\n",
            "changed": "",
            "calls": "",
        }.items():
            (self.folder / name).write_text(text)

    def has(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def run(self) -> int:
        done = subprocess.run(
            [self.program],
            env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        self.said = done.stdout + done.stderr
        return done.returncode

    def calls(self, word: str) -> list[str]:
        """The calls with a word in them."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if word in line.split()]

    def left(self) -> list[str]:
        text = (self.folder / "running").read_text() + (self.folder / "others").read_text()
        return sorted(text.split())


@pytest.fixture
def roll(tmp_path: Path) -> Roll:
    return Roll(tmp_path)


def test_the_old_replicas_are_stopped_and_removed_with_their_volumes(roll: Roll):
    assert roll.run() == 0, roll.said
    assert roll.left() == ["new-1", "new-2"]
    assert roll.calls("rm") == ["rm --volumes old-1", "rm --volumes old-2"]
    # Without a time of its own it is stop_grace_period, which Compose gives to each container.
    assert roll.calls("stop") == ["stop old-1", "stop old-2"]


def test_new_replicas_that_are_not_healthy_or_not_even_started_are_removed(roll: Roll):
    roll.has("fails")
    assert roll.run() == 1
    assert roll.left() == ["old-1", "old-2"]
    assert roll.calls("rm") == ["rm --force --volumes new-1", "rm --force --volumes new-2"]
    assert roll.calls("stop") == []


def test_new_replicas_that_are_unhealthy_are_removed_and_one_says_why(roll: Roll):
    roll.has("unhealthy")
    assert roll.run() == 1
    assert roll.left() == ["old-1", "old-2"]
    assert roll.calls("stop") == []
    assert "no worker is ready" in roll.said


def test_a_replica_that_has_ended_is_not_taken_for_a_new_one(roll: Roll):
    roll.has("others", "ended\n")
    assert roll.run() == 0, roll.said
    assert roll.left() == ["new-1", "new-2"]
    assert "removing ended, which does not run" in roll.said
    calls = (roll.folder / "calls").read_text()
    assert calls.index("rm --force --volumes ended") < calls.index("--scale app=4")


def test_nginx_is_reloaded_before_the_old_replicas_end_if_its_configuration_has_changed(roll: Roll):
    roll.has("nginx", "ngx\n")
    roll.has("changed", "workers 3\n")
    assert roll.run() == 0, roll.said
    calls = (roll.folder / "calls").read_text()
    [reload] = roll.calls("kill")
    assert reload == "compose kill --signal HUP nginx"
    assert calls.index("--scale app=4") < calls.index(reload) < calls.index("stop old-1")


def test_a_configuration_that_nginx_refuses_is_named_as_the_reason(roll: Roll):
    roll.has("nginx", "ngx\n")
    roll.has("refused", "tls_key is not the key of tls_certificate\n")
    assert roll.run() == 1
    assert roll.left() == ["old-1", "old-2"]
    assert "tls_key is not the key of tls_certificate" in roll.said
    assert "nginx could not be configured" in roll.said
    assert "not healthy" not in roll.said


@pytest.mark.parametrize("has_nginx", [True, False])
def test_nginx_is_left_alone_if_there_is_nothing_new_for_it(has_nginx: bool, roll: Roll):
    roll.has("nginx", "ngx\n" if has_nginx else "")
    assert roll.run() == 0, roll.said
    assert roll.calls("kill") == []
    assert roll.left() == ["new-1", "new-2"]


def test_the_script_among_the_others_is_the_same(tmp_path: Path):
    roll = Roll(tmp_path, ROOT / "scripts" / "compose-roll.sh")
    assert roll.run() == 0, roll.said
    assert roll.left() == ["new-1", "new-2"]
