"""Directories of a cluster: the data directory, and temporary ones that a clean stop removes.

Guarantees
- One data directory serves one cluster at a time. The supervisor and the children that write
  there hold its lock, so the next supervisor waits until the last of them has ended.
- `run_dir` and `metrics_dir` are empty at the start and removed at the end.
- Only this user can read what is created here.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster.children.drop_privileges import User
from cluster.errors import ConfigError, Problem
from cluster.given_path import absolute_path
from cluster.log import get_logger
from cluster.private_files import make_private

# sun_path holds 108 bytes with its final zero.
_LONGEST_SOCKET_PATH: Final = 107
_LONGEST_NAME: Final = "/valkey/valkey.sock"
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - checked for owner and mode below
_RUN: Final = Path("/run")
_PREFIX: Final = "ws-cluster-"
# Not the same: an older version closes what it finds under that one to other users.
_SOCKETS_PREFIX: Final = "ws-workers-"
_LOCK: Final = "lock"
# Four files of 128 KiB each (`cluster.metrics.value_file`).
_LANE_METRICS_BYTES: Final = 512 << 10
_LANES: Final = 2
_MAX_LOG_BYTES: Final = 64 << 20
# Every name that this program makes in a data directory.
_ENTRIES: Final = frozenset(
    ("lock", "shutdowns.jsonl", "admin.key", "log", "valkey", "run", "monitoring")
)
_LOCK_SECONDS: Final = 10.0
_LOCK_POLL_SECONDS: Final = 0.05


def state_dir(configured: str) -> Path:
    """Return the configured data directory, or the default below the user's state directory."""
    if configured:
        return absolute_path(configured, "server.data_dir")
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return absolute_path(f"{base}/ws-cluster", "server.data_dir")


class Paths:
    """The directories of one cluster; the constructor locks the data directory.

    Args:
        configured: `server.data_dir`; empty for the user's state directory.
        workers: number of worker slots, for the room that their metrics need.
        user: the user that an earlier run may have become.

    Raises:
        ConfigError: if the directory cannot be created, written or locked.
    """

    def __init__(self, configured: str, *, workers: int = 1, user: User | None = None) -> None:
        self._owners = {os.geteuid(), user.uid if user else os.geteuid()}
        self._metrics_bytes = workers * _LANES * _LANE_METRICS_BYTES
        self.data_dir: Final = state_dir(configured)
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.lock_fd: Final = os.open(
                self.data_dir / "lock",
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            self._make_private()
        except OSError as error:
            reason = f"give a directory that can be written ({error.strerror})"
            raise _unusable(self.data_dir, reason) from None
        self._lock()
        self._shared: list[_SharedDirectory] = []
        self.run_dir: Final = self._run_dir()
        self.metrics_dir: Final = self._metrics_dir()

    @property
    def shutdown_log(self) -> Path:
        """The file of worker shutdowns that Prometheus has not scraped yet."""
        return self.data_dir / "shutdowns.jsonl"

    @property
    def admin_key(self) -> Path:
        """The file with the generated key of a development run."""
        return self.data_dir / "admin.key"

    @property
    def access_log(self) -> Path:
        """The access log of nginx."""
        return self.directory("log") / "access.log"

    @property
    def app_log(self) -> Path:
        """The log file of the supervisor and the workers, besides standard output.

        Raises:
            ConfigError: if it cannot be written.
        """
        path = self.directory("log") / "app.log"
        try:
            path.touch(mode=0o600)
        except OSError as error:
            reason = f"let this user write {path} ({error.strerror})"
            raise _unusable(self.data_dir, reason) from None
        return path

    def trim_logs(self, max_bytes: int = _MAX_LOG_BYTES) -> None:
        """Rotate each log larger than `max_bytes`: copy it to `*.log.1`, then truncate it.

        All writers open a log in append mode, so it can be truncated in place. Lines written
        during the copy are lost.
        """
        for log in self.directory("log").glob("*.log"):
            with suppress(OSError):
                if log.stat().st_size > max_bytes:
                    shutil.copyfile(log, log.with_suffix(".log.1"))
                    os.truncate(log, 0)

    def directory(self, name: str, *, below_run: bool = False) -> Path:
        """Create and return a private directory in the data directory, or in `run_dir`."""
        path = (self.run_dir if below_run else self.data_dir) / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def socket_directory(self, group: int | None) -> Path:
        """Create and return the directory of the workers' unix sockets.

        Args:
            group: the group that may enter it, besides this user; None for no other.

        Raises:
            OSError: if there is none that this group can enter.
        """
        if group is None:
            return self.directory("workers", below_run=True)
        # No other user can enter the data directory.
        for parent in (_RUN, Path(tempfile.gettempdir())):
            if not _is_open_to_all(parent):
                continue
            shared = _shared_directory(parent, f"{_SOCKETS_PREFIX}{self._unique}", self._owners)
            if shared is not None:
                path = self._remember(shared)
                os.chown(path, -1, group)
                path.chmod(0o710)
                return path
        raise OSError(
            f"neither {_RUN} nor {tempfile.gettempdir()} can have a directory for nginx's user"
        )

    @property
    def owned(self) -> dict[Path, Collection[str] | None]:
        """The directories of this cluster, with the names of their entries; None for any name."""
        owned: dict[Path, Collection[str] | None] = {self.data_dir: _ENTRIES}
        return owned | dict.fromkeys(shared.path for shared in self._shared)

    def _make_private(self) -> None:
        """Close an existing data directory to other users, unless it holds other things too."""
        if (
            self.data_dir.stat().st_uid in self._owners
            and {entry.name for entry in self.data_dir.iterdir()} <= _ENTRIES
        ):
            self.data_dir.chmod(0o700)
        for name in ("log", "valkey", "run"):
            make_private(self.data_dir / name, self._owners)

    def _lock(self) -> None:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self.lock_fd)
                    raise _unusable(
                        self.data_dir,
                        "another cluster uses it: stop that cluster or give another directory",
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)

    def _run_dir(self) -> Path:
        path = self.data_dir / "run"
        if len(os.fsencode(path)) + len(_LONGEST_NAME) > _LONGEST_SOCKET_PATH:
            shared = _shared_directory(Path(tempfile.gettempdir()), self._name, self._owners)
            if shared is not None:
                return self._remember(shared)
        return _emptied_directory(path)

    def _metrics_dir(self) -> Path:
        """Return the directory of the metrics: in shared memory if they fit, else below `run_dir`."""
        shared = _shared_directory(_SHARED_MEMORY, self._name, self._owners)
        if shared is not None:
            reason = _lack_of_room(shared.path, self._metrics_bytes)
            if not reason:
                return self._remember(shared)
            shared.close()
            get_logger().warning(
                "shared_memory_found_full",
                directory=str(_SHARED_MEMORY),
                reason=reason,
                hint="the metrics are written below the data directory",
            )
        path = _emptied_directory(self.run_dir / "metrics")
        if reason := _lack_of_room(path, self._metrics_bytes):
            advice = f"give a directory with {self._metrics_bytes >> 10} KiB of room ({reason})"
            raise _unusable(self.data_dir, advice)
        return path

    def _remember(self, shared: _SharedDirectory) -> Path:
        self._shared.append(shared)
        return shared.path

    @property
    def _name(self) -> str:
        return f"{_PREFIX}{self._unique}"

    @property
    def _unique(self) -> str:
        status = os.fstat(self.lock_fd)
        unique = f"{self.data_dir}:{status.st_dev}:{status.st_ino}"
        return hashlib.sha256(unique.encode()).hexdigest()[:12]

    def close(self) -> None:
        """Remove the temporary directories and release the data directory."""
        for shared in self._shared:
            shared.close()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        with suppress(OSError):
            os.close(self.lock_fd)


def _unusable(path: Path, advice: str) -> ConfigError:
    return ConfigError([Problem("server.data_dir", str(path), advice)])


def _lack_of_room(path: Path, size: int) -> str:
    """Why so many bytes cannot be written below a directory; empty if they can.

    A worker that maps a file of a full file system into memory would end with SIGBUS.
    """
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        return "" if error.errno in (errno.EOPNOTSUPP, errno.EINVAL) else str(error.strerror)
    return ""


def _is_open_to_all(path: Path) -> bool:
    """Whether every user can reach what is in a directory."""
    with suppress(OSError):
        return all(one.stat().st_mode & stat.S_IXOTH for one in (path, *path.parents))
    return False


def _emptied_directory(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, f"give a directory that can be written ({error.strerror})") from None
    return path


class _SharedDirectory:
    """A private, locked directory below one of all users.

    The next supervisor removes what a killed supervisor left there, because the lock is free.
    """

    def __init__(self, path: Path, owners: Collection[int]) -> None:
        self.path = path
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners:
            raise PermissionError(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path / _LOCK, flags, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Once it is ours: the mode of one in use is the business of its cluster.
            if not make_private(path, owners):
                raise PermissionError(path)
        except OSError:
            os.close(self._fd)
            raise
        for entry in path.iterdir():
            if entry.name != _LOCK:
                shutil.rmtree(
                    entry
                ) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)


def _shared_directory(parent: Path, name: str, owners: Collection[int]) -> _SharedDirectory | None:
    """Create a directory below `parent`; None if that is not possible or its owner is another user."""
    if not os.access(parent, os.W_OK | os.X_OK):
        return None
    _remove_leftovers(parent, owners)
    with suppress(OSError):
        return _SharedDirectory(parent / name, owners)
    return None


def _remove_leftovers(parent: Path, owners: Collection[int]) -> None:
    """Remove the directories that killed supervisors left in `parent`."""
    for path in [*parent.glob(f"{_PREFIX}*"), *parent.glob(f"{_SOCKETS_PREFIX}*")]:
        with suppress(OSError):
            if path.lstat().st_uid in owners and (path / _LOCK).is_file():
                _SharedDirectory(path, owners).close()
