"""State is closed to other users, also where it was open before, and nothing else is touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cluster.monitor.incidents.store import IncidentStore
from cluster.monitor.stack.setup import locked
from cluster.private_files import make_private
from cluster.supervisor.paths import Paths


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_incident_store_and_its_journals_are_private_also_if_they_were_open(tmp_path: Path):
    folder = tmp_path / "monitoring"
    folder.mkdir()
    folder.chmod(0o755)
    for name in ("incidents.sqlite3", "received.jsonl"):
        (folder / name).touch()
        (folder / name).chmod(0o644)
    store = IncidentStore(folder)
    with store.change():
        store.set_fact("a", "b")
    assert mode(folder) == 0o700
    assert (folder / "incidents.sqlite3-wal").exists()
    assert {mode(path) for path in folder.iterdir()} == {0o600}
    store.close()


def test_the_state_of_monitoring_is_private_also_if_it_was_open(tmp_path: Path):
    folder = tmp_path / "monitoring"
    for name in ("log", "secrets", "config/targets"):
        (folder / name).mkdir(parents=True)
    secret = folder / "secrets/slack_api_url"
    secret.write_text("https://hooks.example/secret")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    os.close(locked(folder))
    assert {mode(path) for path in (folder, *folder.rglob("*")) if path.is_dir()} == {0o700}
    assert {mode(path) for path in folder.rglob("*") if path.is_file()} == {0o600}


def test_a_cluster_s_directories_are_private_also_if_they_were_open(tmp_path: Path):
    data = tmp_path / "data"
    for name in ("log", "valkey"):
        (data / name).mkdir(parents=True)
        (data / name).chmod(0o755)
    data.chmod(0o755)
    paths = Paths(str(data))
    assert {mode(path) for path in (data, data / "log", data / "valkey")} == {0o700}
    paths.close()


@pytest.mark.parametrize("opened", ["store", "stack", "cluster"])
def test_a_directory_that_holds_other_things_keeps_its_mode(tmp_path: Path, opened: str):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    other = shared / "other"
    other.touch()
    other.chmod(0o644)
    if opened == "store":
        IncidentStore(shared).close()
    elif opened == "stack":
        os.close(locked(shared))
    else:
        Paths(str(shared)).close()
    assert (mode(shared), mode(other)) == (0o1777, 0o644)


def test_links_are_not_followed(tmp_path: Path):
    target = tmp_path / "target"
    target.touch()
    target.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(target)
    assert not make_private(link)
    assert mode(target) == 0o644
