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
_LOCK_SECONDS: Final = 15.0
_LOCK_POLL_SECONDS: Final = 0.05


def state_dir(configured: str) -> Path:
    """The data directory: the configured one, or the user's state directory."""
    if configured:
        return Path(configured).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "ws-cluster"


class Places:
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
        self.run_dir: Final = _emptied(self._run_dir())
        self.metrics_dir: Final = self._metrics_dir()

    @property
    def journal(self) -> Path:
        """Where the observations of a whole stop wait for the next start."""
        return self.data_dir / "shutdowns.jsonl"

    @property
    def access_log(self) -> Path:
        """The file nginx logs requests to."""
        return self.made("log") / "access.log"

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
        if len(os.fsencode(path)) + len(_LONGEST_NAME) <= _LONGEST_SOCKET_PATH:
            return path
        return _shared(Path(tempfile.gettempdir()), self._name) or path

    def _metrics_dir(self) -> Path:
        return _shared(_SHARED_MEMORY, self._name) or _emptied(self.run_dir / "metrics")

    @property
    def _name(self) -> str:
        facts = os.fstat(self.lock_fd)
        unique = f"{self.data_dir}:{facts.st_dev}:{facts.st_ino}"
        return f"ws-cluster-{hashlib.sha256(unique.encode()).hexdigest()[:12]}"

    def close(self) -> None:
        """Take away what does not stay, and release the data directory."""
        for path in (self.metrics_dir, self.run_dir):
            shutil.rmtree(path, ignore_errors=True)
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


def _shared(parent: Path, name: str) -> Path | None:
    """A directory of ours in a place everybody may write to; None if it is not to be trusted."""
    path = parent / name
    if not os.access(parent, os.W_OK | os.X_OK):
        return None
    with suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        facts = path.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            return None
        path.chmod(0o700)
        for entry in path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        return path
    return None
