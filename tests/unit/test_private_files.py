"""Files of the monitoring can be read by their owner only, also when they existed before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.monitor.incidents.store import FILE_NAME, IncidentStore
from cluster.monitor.stack import setup


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "monitoring"
    path.mkdir()
    path.chmod(0o755)
    return path


def test_the_incident_store_and_its_journals_are_private(folder: Path):
    (folder / FILE_NAME).touch()
    (folder / FILE_NAME).chmod(0o644)
    store = IncidentStore(folder)
    try:
        store.record(0.0, 1, "note", "x")
        found = {path.name: mode(path) for path in folder.iterdir()}
    finally:
        store.close()
    ends = ("", "-wal", "-shm")
    assert found == {f"{FILE_NAME}{end}": 0o600 for end in ends}
    assert mode(folder) == 0o700


def test_the_journals_of_a_store_that_is_in_use_become_private(folder: Path):
    first = IncidentStore(folder)
    first.record(0.0, 1, "note", "x")
    for path in folder.iterdir():
        path.chmod(0o644)
    second = IncidentStore(folder)
    assert {mode(path) for path in folder.iterdir()} == {0o600}
    second.close()
    first.close()


def test_a_data_directory_that_existed_becomes_private_with_all_that_was_made_there(folder: Path):
    config = folder / "config"
    config.mkdir()
    (config / "alertmanager.yml").touch()
    for path, given in ((config, 0o755), (config / "alertmanager.yml", 0o644)):
        path.chmod(given)
    lock = setup.locked(folder)
    with pytest.raises(ConfigError):
        setup.locked(folder)
    os.close(lock)
    assert (mode(folder), mode(config)) == (0o700, 0o700)
    assert mode(config / "alertmanager.yml") == 0o600


def test_what_somebody_else_keeps_there_and_links_are_left_alone(folder: Path, tmp_path: Path):
    other = tmp_path / "other.txt"
    other.touch()
    other.chmod(0o644)
    (folder / "thesis.txt").touch()
    (folder / "thesis.txt").chmod(0o644)
    (folder / "config").mkdir()
    (folder / "config/link").symlink_to(other)
    lock = setup.locked(folder)
    os.close(lock)
    assert mode(folder) == 0o755
    assert mode(folder / "thesis.txt") == mode(other) == 0o644
