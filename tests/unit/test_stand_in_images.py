"""What the stand-in engine takes from a machine, and which images it makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.architecture.tree import ROOT
from tests.compose import stack
from tests.compose.stand_in import images, machine

COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text(encoding="utf-8"))


def test_every_image_that_a_story_needs_has_a_stand_in_of_its_name():
    needed = {
        images.default_of(one["image"])
        for one in COMPOSE["services"].values()
        if "logs" not in one.get("profiles", ())
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
    monkeypatch.setattr(machine, "_INSTALL", Path("/bin/false"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(machine.Unavailable, match=r"dockerd, .* missing: install .* docker\.io"):
        machine.install_programs()


def test_only_root_may_start_an_engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(machine.NotPermitted, match="run this as root"):
        machine.check_user()


def test_what_the_kernel_does_not_allow_is_told_from_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\necho 'unshare: Operation not permitted' >&2\nexit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(machine.NotPermitted, match=r"does not let root .*not permitted"):
        machine.check_rights()


@pytest.mark.parametrize(("option", "status"), [((), 69), (("--if-permitted",), 0)])
def test_only_what_is_not_permitted_may_be_skipped_and_that_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], option: tuple[str, ...], status: int
):
    user = "import os; os.geteuid = lambda: 1000\n"
    program = "import sys; from tests.compose.stand_in.__main__ import main; sys.exit(main())"
    words = ["--always", *option, "--root", str(tmp_path), "--", "true"]
    done = subprocess.run(
        [sys.executable, "-c", user + program, *words], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == status
    said = capfd.readouterr().err
    assert ("SKIPPED" in said) == (status == 0)
    assert "run this as root" in said


def test_the_stories_neither_use_nor_replace_the_keys_of_a_checkout(tmp_path: Path):
    folder = stack.copied(tmp_path)
    assert (folder / "compose.yml").exists()
    assert (folder / "prepare.sh").stat().st_mode & 0o100
    assert not [name for name in ("secrets", "generated", ".env") if (folder / name).exists()]
    ours = Path(stack.__file__).parent
    for path in ours.glob("*.py"):
        # Only what copies it, and what builds an image of it, may name the folder.
        if path.name != "stack.py":
            assert "REPOSITORY" not in path.read_text(encoding="utf-8"), path


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
