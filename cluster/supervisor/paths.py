"""Where things are on this machine: state that stays, and what is gone after a clean end.

Guarantees
- One data directory serves one cluster at a time: its lock is held by the supervisor and by the
  children that write there, so a successor waits until the last of them has ended.
- `run_dir` and `metrics_dir` are empty at the start and taken away at the end.
- Everything made here is private to this user.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster.errors import ConfigError, Problem

# sun_path holds 108 bytes with its final zero.
_LONGEST_SOCKET_PATH: Final = 107
_LONGEST_NAME: Final = "/valkey/valkey.sock"
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - checked for owner and mode below
_PREFIX: Final = "ws-cluster-"
_LOCK: Final = "lock"
_MOST_LOG_BYTES: Final = 64 << 20
_LOCK_SECONDS: Final = 10.0
_LOCK_POLL_SECONDS: Final = 0.05


def state_dir(configured: str) -> Path:
    """The data directory: the configured one, or the user's state directory."""
    if configured:
        return Path(configured).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "ws-cluster"


class Paths:
    """The directories of one cluster, locked.

    Args:
        configured: `server.data_dir`; empty for the user's state directory.

    Raises:
        ConfigError: if the directory cannot be made, written or locked.
    """

    def __init__(self, configured: str) -> None:
        self.data_dir: Final = state_dir(configured)
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.lock_fd: Final = os.open(
                self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            reason = f"give a directory that can be written ({error.strerror})"
            raise _unusable(self.data_dir, reason) from None
        self._lock()
        self._shared: list[_Shared] = []
        self.run_dir: Final = self._run_dir()
        self.metrics_dir: Final = self._metrics_dir()

    @property
    def shutdown_log(self) -> Path:
        """Where the observations of a whole stop wait for the next start."""
        return self.data_dir / "shutdowns.jsonl"

    @property
    def admin_key(self) -> Path:
        """The key a development run makes for itself."""
        return self.data_dir / "admin.key"

    @property
    def access_log(self) -> Path:
        """The file nginx logs requests to."""
        return self.made("log") / "access.log"

    @property
    def app_log(self) -> Path:
        """The file the supervisor and the workers log to, beside standard output.

        Raises:
            ConfigError: it cannot be written.
        """
        path = self.made("log") / "app.log"
        try:
            path.touch(mode=0o600)
        except OSError as error:
            reason = f"let this user write {path} ({error.strerror})"
            raise _unusable(self.data_dir, reason) from None
        return path

    def trim_logs(self, most_bytes: int = _MOST_LOG_BYTES) -> None:
        """Keep each log and one older piece of it, each of about `most_bytes`.

        Everybody appends, so a file can be emptied in place; lines written while it is being
        copied are lost.
        """
        for log in self.made("log").glob("*.log"):
            with suppress(OSError):
                if log.stat().st_size > most_bytes:
                    shutil.copyfile(log, log.with_suffix(".log.1"))
                    os.truncate(log, 0)

    def made(self, name: str, *, below_run: bool = False) -> Path:
        """A private directory in the data directory, or in what is gone at the end."""
        path = (self.run_dir if below_run else self.data_dir) / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

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
                        self.data_dir, "another cluster runs on it: stop that or give another one"
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)

    def _run_dir(self) -> Path:
        path = self.data_dir / "run"
        if len(os.fsencode(path)) + len(_LONGEST_NAME) > _LONGEST_SOCKET_PATH:
            shared = self._keep(_shared(Path(tempfile.gettempdir()), self._name))
            if shared:
                return shared
        return _emptied(path)

    def _metrics_dir(self) -> Path:
        shared = self._keep(_shared(_SHARED_MEMORY, self._name))
        return shared or _emptied(self.run_dir / "metrics")

    def _keep(self, shared: _Shared | None) -> Path | None:
        if shared is None:
            return None
        self._shared.append(shared)
        return shared.path

    @property
    def _name(self) -> str:
        facts = os.fstat(self.lock_fd)
        unique = f"{self.data_dir}:{facts.st_dev}:{facts.st_ino}"
        return f"{_PREFIX}{hashlib.sha256(unique.encode()).hexdigest()[:12]}"

    def close(self) -> None:
        """Take away what does not stay, and release the data directory."""
        for shared in self._shared:
            shared.close()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        with suppress(OSError):
            os.close(self.lock_fd)


def _unusable(path: Path, allowed: str) -> ConfigError:
    return ConfigError([Problem("server.data_dir", str(path), allowed)])


def _emptied(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, f"give a directory that can be written ({error.strerror})") from None
    return path


class _Shared:
    """A directory of ours in a place everybody may write to, held by a lock.

    What a killed supervisor left there is taken away by whoever starts next: its lock is free.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, exist_ok=True)
        facts = path.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            raise PermissionError(path)
        path.chmod(0o700)
        self._fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise
        for entry in path.iterdir():
            if entry.name != _LOCK:
                shutil.rmtree(
                    entry
                ) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def close(self) -> None:
        """Take it away."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)


def _shared(parent: Path, name: str) -> _Shared | None:
    """A directory in a shared place; None if there is no such place or it is not to be trusted."""
    if not os.access(parent, os.W_OK | os.X_OK):
        return None
    _sweep(parent)
    with suppress(OSError):
        return _Shared(parent / name)
    return None


def _sweep(parent: Path) -> None:
    """Take away what supervisors that were killed left here."""
    for path in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if path.lstat().st_uid == os.geteuid() and (path / _LOCK).is_file():
                _Shared(path).close()
