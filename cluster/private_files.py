"""Directories and files that only their owner can read, also if they existed before.

Rule: links are not followed, and what belongs to another user is not changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def make_private(path: Path, owners: Collection[int] | None = None) -> bool:
    """Close a directory or a file to everybody but its owner; returns whether that was done.

    Args:
        owners: users whose files may be changed; None for this process's own.
    """
    with suppress(OSError):
        if not _is_plain(os.lstat(path).st_mode):
            return False
        descriptor = os.open(path, _FLAGS)
        try:
            status = os.fstat(descriptor)
            if not _is_plain(status.st_mode) or status.st_uid not in (owners or {os.geteuid()}):
                return False
            os.fchmod(descriptor, 0o700 if stat.S_ISDIR(status.st_mode) else 0o600)
            return True
        finally:
            os.close(descriptor)
    return False


def make_new_files_private() -> None:
    """Close what this process and its children make from now on to other users."""
    os.umask(0o077)


def open_private(path: str, flags: int) -> int:
    """Open a file, as the `opener` of `open`, so that a new one is private."""
    return os.open(path, flags, 0o600)


def make_folder_private(folder: Path, names: Collection[str]) -> None:
    """Make a directory private if it has no other entries than these."""
    if {entry.name for entry in folder.iterdir()} <= set(names):
        make_private(folder)


def make_known_private(folder: Path, names: Collection[str]) -> None:
    """Make the entries of a directory that a program made private, and the directory if it has no others."""
    make_folder_private(folder, names)
    for name in names:
        make_tree_private(folder / name)


def make_tree_private(path: Path) -> None:
    """Close a directory and all that is in it to everybody but its owner."""
    make_private(path)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            make_private(Path(folder) / name)


def _is_plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
