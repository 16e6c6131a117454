"""Becomes an ordinary user, if this program was started as root.

Rules
- Sockets, locks and directories are opened first, as root. Nothing that starts afterwards is root.
- Whether the user can work is tried in a process that is that user: it must be able to read the code
  and the files that are named, and to enter the directories. If it cannot, nothing is changed and the
  reason is returned, for a warning.
- If only the configuration cannot be read again as that user, this process keeps root in reserve (its
  saved user id), which `root_regained` uses to read it; its children cannot regain it.
- A directory is given away only if this program made it: root owns it, and it has no entry that this
  program did not make. Links are never followed, and a file with a second name is not given away.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import select
import signal
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.children.subprocesses import allow_no_new_privileges, set_death_signal
from cluster.errors import ConfigError, Problem

#: The user without rights of its own, which exists nearly everywhere.
DEFAULT_USER: Final = "nobody"
_DEFAULT_ID: Final = 65534
_PR_GET_PDEATHSIG: Final = 2
_PROBE_SECONDS: Final = 10.0
_LONGEST_REASON: Final = 2048
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine and its groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def find_user(name: str, option: str = "server.user") -> User | None:
    """Return the user to become; None if this process is not root, or is to stay root.

    Args:
        option: how the error calls where the name was given.

    Raises:
        ConfigError: if there is no such user.
    """
    if os.geteuid() != 0 or name in ("", "root", "0"):
        return None
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        if name == DEFAULT_USER:
            return User(name, _DEFAULT_ID, _DEFAULT_ID, (_DEFAULT_ID,))
        reason = "give a user of this machine, or root to keep every process root"
        raise ConfigError([Problem(option, name, reason)]) from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(groups))


def drop_privileges(
    user: User,
    *,
    needed: Iterable[Path],
    owned: Mapping[Path, Collection[str] | None],
    reload: Callable[[], object] | None = None,
) -> str:
    """Become a user; returns what keeps root and why, or an empty string.

    Args:
        needed: files that the user must be able to read.
        owned: directories that the user must be able to write, each with the names of the entries that
            this program makes there; None if all of it was made by this program.
        reload: reads the configuration, which must be possible later too.
    """
    inside, outside = [], code_files()
    for path in needed:
        inside.append(path) if any(path.is_relative_to(o) for o in owned) else outside.add(path)
    reason = _tried(user, lambda: _unreadable(outside, [path.parent for path in owned]))
    reason = reason or next(
        (r for p, names in owned.items() if (r := _foreign(p, names, user))), ""
    )
    if reason:
        return f"every process stays root, because {reason}"
    for path, names in owned.items():
        give_away(path, user, names)
    if reason := _tried(user, lambda: _unwritable(owned) or _unreadable(inside, owned)):
        return f"every process stays root, because {reason}"
    if reload is not None and (reason := _tried(user, lambda: _fault_of(reload))):
        _become(user, keeps_root=True)
        return (
            f"the supervisor keeps root in reserve, to read the configuration again: {reason};"
            f" all other processes are {user.name}"
        )
    _become(user)
    return ""


@contextmanager
def root_regained() -> Iterator[None]:
    """Be root for a moment, if this process has it in reserve."""
    real, effective, saved = os.getresuid()
    if effective == 0 or saved != 0 or real != 0:
        yield
        return
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(effective)


def _become(user: User, *, keeps_root: bool = False) -> None:
    # The kernel forgets the death signal when the user changes (prctl(2), PR_SET_PDEATHSIG).
    death_signal = ctypes.c_int()
    _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(death_signal), 0, 0, 0)
    os.setgroups(user.groups)
    if keeps_root:
        os.setresgid(0, user.gid, 0)
        os.setresuid(0, user.uid, 0)
    else:
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    allow_no_new_privileges()
    set_death_signal(death_signal.value)


# --- what is tried as that user ----------------------------------------------------------


def _tried(user: User, check: Callable[[], str]) -> str:
    """Return what a check says in a process that is the user; empty if nothing is wrong."""
    reads, writes = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _answer(user, check, writes)
    os.close(writes)
    try:
        if not select.select([reads], [], [], _PROBE_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)
            return f"a check as {user.name} took longer than {_PROBE_SECONDS:g} s"
        with os.fdopen(os.dup(reads), "rb") as answer:
            return answer.read(_LONGEST_REASON).decode("utf-8", "replace").removeprefix("ok")
    finally:
        os.close(reads)
        os.waitpid(pid, 0)


def _answer(user: User, check: Callable[[], str], pipe: int) -> None:
    """Write the answer of a check and end this process, without any clean-up of the parent's."""
    try:
        _become(user)
        answer = check() or "ok"
    except OSError as error:
        answer = f"this process may not become {user.name} ({error.strerror})"
    except BaseException as error:  # noqa: BLE001 - the forked process must end here
        answer = f"a check as {user.name} failed ({error!r})"
    with suppress(OSError):
        os.write(pipe, answer.encode("utf-8", "replace")[:_LONGEST_REASON])
    os._exit(0)


def code_files() -> set[Path]:
    """The interpreter, the libraries and modules loaded so far, and every module of this package."""
    package = Path(__file__).resolve().parents[1]
    modules = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    loaded = {Path(name).absolute() for name in modules if isinstance(name, str)}
    mapped = set()
    with suppress(OSError):
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
        mapped = {
            Path(part[5]) for line in maps.splitlines() if len(part := line.split(None, 5)) > 5
        }
    found = (p for p in loaded | mapped if p.is_absolute() and p.is_file())
    return {Path(sys.executable), *found, *package.rglob("*.py")}


def _unreadable(files: Iterable[Path], folders: Iterable[Path]) -> str:
    who = pwd_name(os.geteuid())
    for path in sorted(set(files)):
        if not os.access(path, os.R_OK):
            return f"{who} cannot read {_closed_part(path)}"
    for folder in folders:
        if not os.access(folder, os.X_OK):
            return f"{who} cannot enter {_closed_part(folder)}: give a data directory elsewhere"
    return ""


def _closed_part(path: Path) -> Path:
    """Return the first part of a path that this process cannot enter, or the path."""
    closed = (p for p in reversed(path.parents) if p.exists() and not os.access(p, os.X_OK))
    return next(closed, path)


def _unwritable(folders: Iterable[Path]) -> str:
    for folder in folders:
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            owner = pwd_name(folder.stat().st_uid)
            return f"{folder} belongs to {owner}, and {pwd_name(os.geteuid())} cannot write it"
    return ""


def _fault_of(reload: Callable[[], object]) -> str:
    try:
        reload()
    except (ConfigError, OSError) as error:
        return str(error).replace("\n", "; ")
    return ""


def pwd_name(uid: int) -> str:
    """The name of a user, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# --- directories -------------------------------------------------------------------------


def _foreign(path: Path, names: Collection[str] | None, user: User) -> str:
    """Why a directory of root is not given away; empty if it may be, or need not be."""
    if names is None or path.lstat().st_uid != 0:
        return ""
    strange = sorted({entry.name for entry in path.iterdir()} - set(names))
    if not strange:
        return ""
    return (
        f"{path} also holds {strange[0]}, which this program did not make, so it is not given to"
        f" {user.name}: give a directory of its own"
    )


def give_away(path: Path, user: User, names: Collection[str] | None = None) -> None:
    """Give a directory of root, and what root owns in it, to a user.

    Args:
        names: the entries that are given away with all they contain; None for all.
    """
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(folder).st_uid in (0, user.uid):
                _give_tree(folder, user, names)
        finally:
            os.close(folder)


def _give_tree(folder: int, user: User, names: Collection[str] | None) -> None:
    for name in os.listdir(folder):
        if names is not None and name not in names:
            continue
        with suppress(OSError):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            # Opening a device or a pipe may have effects; this program makes none that stays.
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                continue
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            entry = os.open(name, flags, dir_fd=folder)
            try:
                _give_entry(entry, user)
            finally:
                os.close(entry)
    if os.fstat(folder).st_uid == 0:
        os.fchown(folder, user.uid, user.gid)


def _give_entry(entry: int, user: User) -> None:
    status = os.fstat(entry)
    if stat.S_ISDIR(status.st_mode):
        _give_tree(entry, user, None)
    elif stat.S_ISREG(status.st_mode) and status.st_uid == 0 and status.st_nlink == 1:
        os.fchown(entry, user.uid, user.gid)
