"""Nothing in the tracked files belongs to one machine: no registry host, no local path.

What must not stand in a file is asked of the tools of the machine that runs the test, so that
this file names none of it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, files, texts

HOST = re.compile(r"://(?:[^/@\s]*@)?([A-Za-z0-9.-]+)")
HOME_FOLDERS = re.compile(r"/(?:home|Users)/(?!user/)[a-z][\w.-]+/")
# Written so that they do not find themselves: this file is looked at, too.
UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b")
MARKETING = re.compile(
    r"\b(?:blazing(?:ly)?|seamless(?:ly)?|robust|cutting-edge|world-class|effortless(?:ly)?|"
    r"powerful|leverages?|state-of-the-art|battle-tested|game-chang\w+|enterprise-grade)\b",
    re.IGNORECASE,
)


def output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout


@cache
def registry_hosts() -> frozenset[str]:
    from pip._internal.models.index import PyPI

    told = f"{PyPI.url} ://{PyPI.file_storage_domain} "
    told += output("npm", "config", "get", "registry") + output("go", "env", "GOPROXY")
    for listing in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if listing.is_file():
            told += re.sub(r"(?m)^\s*#.*$", "", listing.read_text(errors="replace"))
    return frozenset(HOST.findall(told))


def lines_with(found: re.Pattern[str], suffixes: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path, text in texts()
        if not suffixes or path.suffix in suffixes
        for number, line in enumerate(text.splitlines(), 1)
        if found.search(line)
    ]


def test_no_registry_host_is_named():
    hosts = registry_hosts()
    assert hosts, "pip itself names one"
    assert lines_with(re.compile("|".join(map(re.escape, sorted(hosts))))) == []


def test_no_path_of_this_machine_is_named():
    assert lines_with(re.compile(re.escape(f"{ROOT}/"))) == []
    assert lines_with(HOME_FOLDERS) == []


def test_nothing_is_marked_as_unfinished():
    assert lines_with(UNFINISHED, (".py", ".lua", ".sh", ".md", ".toml", ".js", ".conf")) == []


def test_the_documentation_advertises_nothing():
    assert lines_with(MARKETING, (".md",)) == []


def test_locks_carry_hashes_and_no_address():
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        text = lock.read_text()
        pins = re.findall(r"(?m)^[a-z0-9].*==", text)
        entries = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
        assert pins, lock
        assert len(entries) == len(pins), f"{lock.name} has an entry that is not pinned"
        assert all("--hash=sha256:" in entry for entry in entries), lock.name
        assert "://" not in text, lock.name


@pytest.mark.parametrize(
    "lock", [p for p in files() if p.name == "package-lock.json"], ids=lambda p: p.parent.name
)
def test_npm_locks_carry_hashes_and_no_address(lock: Path):
    packages = json.loads(lock.read_text())["packages"]
    foreign = {name: entry for name, entry in packages.items() if name}
    assert foreign
    assert all("integrity" in entry for entry in foreign.values())
    assert all("resolved" not in entry for entry in foreign.values())


def test_no_file_is_large():
    large = {str(p.relative_to(ROOT)): p.stat().st_size for p in files()}
    assert {name: size for name, size in large.items() if size > 512 * 1024} == {}
