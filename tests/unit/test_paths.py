"""Directories: private, locked, empty at the start and removed at the end."""

from __future__ import annotations

import os
import tempfile

import pytest

from cluster.children.local_sockets import bind_local
from cluster.errors import ConfigError
from cluster.monitor import endpoints
from cluster.supervisor import paths as module
from cluster.supervisor.paths import Paths, state_dir
from tests.harness.small_disk import fill, small_disk


@pytest.fixture(autouse=True)
def _short_lock_timeout(monkeypatch):
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.1)


def test_the_default_is_the_user_s_state_directory(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert str(state_dir("")) == "/somewhere/ws-cluster"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home-of-user")
    assert str(state_dir("")) == "/home-of-user/.local/state/ws-cluster"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "no home directory"),
        ("~nobody-of-this-name/a", "no home directory"),
        ("/tmp/a\0b", "null character"),
    ],
)
def test_a_directory_that_cannot_be_named_is_a_mistake_with_a_sentence(monkeypatch, given, said):
    def no_entry(uid: int) -> None:
        raise KeyError(uid)

    # As in a container that runs as a user of which /etc/passwd knows nothing.
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    for directory in (state_dir, endpoints.data_dir):
        with pytest.raises(ConfigError, match=said):
            directory(given)


def test_directories_are_private_and_temporary_ones_are_removed(tmp_path):
    paths = Paths(str(tmp_path / "a/b"))
    valkey = paths.directory("valkey", below_run=True)
    for path in (paths.data_dir, paths.run_dir, paths.metrics_dir, valkey):
        assert oct(path.stat().st_mode & 0o777) == "0o700"
    paths.close()
    assert not paths.run_dir.exists()
    assert not paths.metrics_dir.exists()
    assert [path.name for path in paths.data_dir.iterdir()] == ["lock"]


def test_two_clusters_do_not_share_a_data_directory(tmp_path):
    first = Paths(str(tmp_path))
    with pytest.raises(ConfigError, match="another cluster uses it"):
        Paths(str(tmp_path))
    first.close()
    Paths(str(tmp_path)).close()


def test_a_child_that_holds_the_lock_blocks_the_next_supervisor(tmp_path):
    first = Paths(str(tmp_path))
    inherited = os.dup(first.lock_fd)
    first.close()
    with pytest.raises(ConfigError):
        Paths(str(tmp_path))
    os.close(inherited)
    Paths(str(tmp_path)).close()


def test_the_next_supervisor_removes_what_a_killed_one_left(tmp_path):
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


def test_another_cluster_removes_the_shared_memory_of_a_killed_supervisor(tmp_path):
    first = Paths(str(tmp_path / "a"))
    for fd in (first.lock_fd, *(shared._fd for shared in first._shared)):
        os.close(fd)
    second = Paths(str(tmp_path / "b"))
    assert not first.metrics_dir.exists() or first.metrics_dir.is_relative_to(tmp_path)
    second.close()


def test_the_directories_of_a_running_cluster_are_not_removed(tmp_path):
    first, second = Paths(str(tmp_path / "a")), Paths(str(tmp_path / "b"))
    assert first.metrics_dir.exists()
    first.close()
    second.close()


def test_a_long_path_still_leaves_room_for_a_socket(tmp_path):
    paths = Paths(str(tmp_path / ("long" * 30)))
    path = paths.directory("valkey", below_run=True) / "valkey.sock"
    assert len(str(path)) <= 107
    paths.close()
    assert not paths.run_dir.exists()


def test_the_sockets_of_the_workers_are_below_the_run_directory(tmp_path):
    paths = Paths(str(tmp_path))
    folder = paths.socket_directory(None)
    assert folder == paths.run_dir / "workers"
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    paths.close()
    assert not folder.exists()


def open_directory(tmp_path, monkeypatch):
    """A directory that every user can enter, although those of tests are private, in place of /run."""
    monkeypatch.setattr(module, "_is_open_to_all", lambda path: path == tmp_path)
    monkeypatch.setattr(module, "_RUN", tmp_path)


def test_a_group_can_enter_the_directory_of_the_sockets_and_not_read_it(tmp_path, monkeypatch):
    open_directory(tmp_path, monkeypatch)
    paths = Paths(str(tmp_path / "data"))
    folder = paths.socket_directory(os.getgid())
    assert folder.parent == tmp_path
    assert (oct(folder.stat().st_mode & 0o777), folder.stat().st_gid) == ("0o710", os.getgid())
    # Another cluster removes what nobody uses any more, and leaves this as it is.
    other = Paths(str(tmp_path / "other"))
    other.socket_directory(os.getgid())
    other.close()
    assert oct(folder.stat().st_mode & 0o777) == "0o710"
    paths.close()
    assert not folder.exists()


def test_the_next_supervisor_replaces_the_sockets_that_a_killed_one_left(tmp_path, monkeypatch):
    open_directory(tmp_path, monkeypatch)
    killed = Paths(str(tmp_path / "data"))
    folder = killed.socket_directory(os.getgid())
    bind_local(folder / "w0", os.getgid()).close()
    for fd in (killed.lock_fd, *(shared._fd for shared in killed._shared)):
        os.close(fd)
    following = Paths(str(tmp_path / "data"))
    assert following.socket_directory(os.getgid()) == folder
    assert [entry.name for entry in folder.iterdir()] == ["lock"]
    following.close()


def test_without_a_directory_that_all_can_enter_there_is_none_for_the_sockets(
    tmp_path, monkeypatch
):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(module, "_RUN", closed)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    paths = Paths(str(tmp_path / "data"))
    with pytest.raises(OSError, match=f"neither {closed} nor {tmp_path}/missing"):
        paths.socket_directory(os.getgid())
    paths.close()


@pytest.mark.parametrize("name", ["access_log", "app_log"])
def test_a_long_log_is_rotated(tmp_path, name):
    paths = Paths(str(tmp_path))
    file = getattr(paths, name)
    file.write_text("short")
    paths.trim_logs(max_bytes=200)
    assert file.read_text() == "short"
    file.write_text("long" * 100)
    paths.trim_logs(max_bytes=200)
    assert file.read_text() == ""
    assert file.with_suffix(".log.1").read_text() == "long" * 100
    paths.close()


def test_metrics_are_below_the_data_directory_if_shared_memory_is_full(tmp_path, monkeypatch):
    with small_disk(tmp_path / "shm", 4 << 20) as shared:
        monkeypatch.setattr(module, "_SHARED_MEMORY", shared)
        first = Paths(str(tmp_path / "data"), workers=2)
        assert first.metrics_dir.is_relative_to(shared)
        first.close()
        fill(shared, leaves_bytes=1 << 20)
        second = Paths(str(tmp_path / "data"), workers=2)
        assert second.metrics_dir == tmp_path / "data/run/metrics"
        second.close()
        assert [path.name for path in shared.iterdir()] == ["filler"]


def test_a_full_data_directory_is_named_in_the_error(tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        monkeypatch.setattr(module, "_SHARED_MEMORY", disk / "missing")
        fill(disk)
        with pytest.raises(ConfigError, match="No space left on device") as raised:
            Paths(str(disk / "data"))
        assert str(disk / "data") in str(raised.value)
