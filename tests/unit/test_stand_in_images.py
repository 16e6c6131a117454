"""What the stand-in engine takes from a machine, and which images it makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.architecture.tree import ROOT
from tests.compose.stand_in import images, machine

COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text(encoding="utf-8"))


def test_every_image_that_a_story_needs_has_a_stand_in_of_its_name():
    needed = {
        images.default_of(one["image"])
        for one in COMPOSE["services"].values()
        if not set(one.get("profiles", ())) & {"grafana", "logs"}
    }
    assert needed == {*images.stand_ins().values(), images.application()} - {
        images.stand_ins()["python"]
    }
    text = Path(images.__file__).with_name("Dockerfile").read_text(encoding="utf-8")
    for part in images.stand_ins():
        assert f" AS {part}\n" in text


def test_a_root_file_system_has_another_name_when_its_packages_change():
    changed = images.RootFileSystem("services", "sid", (*images.SERVICES.packages, "jq"))
    assert changed.image != images.SERVICES.image


def test_pip_in_a_container_reaches_the_registry_that_this_machine_reaches():
    listing = (
        ":env:.index-url='https://index.example/simple'\n"
        ":env:.find-links='/opt/wheels'\n"
        "global.cert='/home/user/own.pem'\n"
        "global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'\n"
    )
    assert machine.pip_configuration(listing) == (
        "[global]\n"
        f"cert = {machine.CERTIFICATES}\n"
        "index-url = https://index.example/simple\n"
        "extra-index-url = https://one.example/simple\n  https://two.example/simple\n"
    )


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(machine.Unavailable, match=r"dockerd, .* missing: install .* docker\.io"):
        machine.check_programs()


def test_only_root_may_start_an_engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(machine.Unavailable, match="run this as root"):
        machine.check_programs()


def test_certificates_that_are_not_there_are_a_sentence(tmp_path: Path):
    with pytest.raises(machine.Unavailable, match="install Debian's package ca-certificates"):
        machine.certificates({"SSL_CERT_FILE": str(tmp_path / "none")})


def test_without_an_engine_and_without_the_programs_the_reason_is_said(tmp_path: Path):
    (tmp_path / "true").symlink_to("/bin/true")
    done = subprocess.run(
        [sys.executable, "-m", "tests.compose.stand_in", "--root", str(tmp_path), "--", "true"],
        cwd=ROOT,
        # Its own folder of programs, and those of the administrator, have no mmdebstrap and no docker.
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "no Docker engine with Compose answers" in done.stderr
    assert "there can be no engine here: " in done.stderr
    assert done.returncode == 69
