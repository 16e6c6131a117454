"""Directories: private, locked, empty at the start and gone at the end."""

from __future__ import annotations

import os

import pytest

from cluster.errors import ConfigError
from cluster.supervisor import paths as module
from cluster.supervisor.paths import Paths, state_dir


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.1)


def test_the_default_is_the_user_s_state_directory(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert str(state_dir("")) == "/somewhere/ws-cluster"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/somebody")
    assert str(state_dir("")) == "/somebody/.local/state/ws-cluster"


def test_everything_is_private_and_what_does_not_stay_is_taken_away(tmp_path):
    paths = Paths(str(tmp_path / "a/b"))
    valkey = paths.made("valkey", below_run=True)
    for path in (paths.data_dir, paths.run_dir, paths.metrics_dir, valkey):
        assert oct(path.stat().st_mode & 0o777) == "0o700"
    paths.close()
    assert not paths.run_dir.exists()
    assert not paths.metrics_dir.exists()
    assert [path.name for path in paths.data_dir.iterdir()] == ["lock"]


def test_two_clusters_do_not_share_a_data_directory(tmp_path):
    first = Paths(str(tmp_path))
    with pytest.raises(ConfigError, match="another cluster runs on it"):
        Paths(str(tmp_path))
    first.close()
    Paths(str(tmp_path)).close()


def test_a_child_that_holds_the_lock_keeps_a_successor_out(tmp_path):
    first = Paths(str(tmp_path))
    inherited = os.dup(first.lock_fd)
    first.close()
    with pytest.raises(ConfigError):
        Paths(str(tmp_path))
    os.close(inherited)
    Paths(str(tmp_path)).close()


def test_what_a_killed_supervisor_left_is_wiped_by_the_next(tmp_path):
    first = Paths(str(tmp_path))
    (first.metrics_dir / "counter_w0a.db").write_bytes(b"old")
    (first.run_dir / "stale.sock").write_bytes(b"")
    killed = first.metrics_dir
    for fd in (first.lock_fd, *(shared._fd for shared in first._shared)):
        os.close(fd)  # what the kernel does when a process is killed
    second = Paths(str(tmp_path))
    assert second.metrics_dir == killed
    assert list(second.metrics_dir.glob("*.db")) == []
    assert list(second.run_dir.iterdir()) == []
    second.close()


def test_a_killed_supervisor_s_shared_memory_is_swept_by_another_cluster(tmp_path):
    first = Paths(str(tmp_path / "a"))
    for fd in (first.lock_fd, *(shared._fd for shared in first._shared)):
        os.close(fd)
    second = Paths(str(tmp_path / "b"))
    assert not first.metrics_dir.exists() or first.metrics_dir.is_relative_to(tmp_path)
    second.close()


def test_a_cluster_that_runs_is_not_swept(tmp_path):
    first, second = Paths(str(tmp_path / "a")), Paths(str(tmp_path / "b"))
    assert first.metrics_dir.exists()
    first.close()
    second.close()


def test_a_long_path_still_leaves_room_for_a_socket(tmp_path):
    paths = Paths(str(tmp_path / ("long" * 30)))
    path = paths.made("valkey", below_run=True) / "valkey.sock"
    assert len(str(path)) <= 107
    paths.close()
    assert not paths.run_dir.exists()


@pytest.mark.parametrize("name", ["access_log", "app_log"])
def test_a_long_log_is_moved_aside(tmp_path, name):
    paths = Paths(str(tmp_path))
    file = getattr(paths, name)
    file.write_text("short")
    paths.trim_logs(most_bytes=200)
    assert file.read_text() == "short"
    file.write_text("long" * 100)
    paths.trim_logs(most_bytes=200)
    assert file.read_text() == ""
    assert file.with_suffix(".log.1").read_text() == "long" * 100
    paths.close()
