"""A file system of a few megabytes that a test may fill: a tmpfs, mounted as root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.harness.needs import is_not_permitted


@contextlib.contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a tmpfs of this size at a new directory; ends the test where that is not allowed."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        is_not_permitted("a tmpfs can only be mounted as root")
    try:
        yield path
    finally:
        # Lazily: a process that is still ending may have a file open.
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path, *, leaves_bytes: int = 0) -> Path:
    """Fill the file system below a directory with one file; returns the file."""
    file = path / "filler"
    with file.open("ab", buffering=0) as out, contextlib.suppress(OSError):
        while out.write(b"x" * 4096):
            pass
    os.truncate(file, max(0, file.stat().st_size - leaves_bytes))
    return file
