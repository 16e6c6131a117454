"""One multiprocess file of a worker, on a disk that may be full or hold a damaged file.

prometheus-client maps a sparse file into memory: a write to a page for which the disk has no room
ends the process with SIGBUS, and a damaged file of an earlier process makes it crash or loop.

Guarantees
- All pages are reserved before they are mapped.
- A damaged file, or whatever else has its name, is renamed to `*.corrupt`.
- A file that cannot be used is replaced by memory of the worker: it serves, without these metrics,
  and `failures` says why.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

# The series of the catalogue fit into half of it, so a file never has to grow.
FILE_BYTES: Final = 128 << 10
_INTEGER: Final = struct.Struct("i")
HEADER_BYTES: Final = 8
_VALUE_BYTES: Final = 16
# A worker writes a fixed set of series, about 100 KiB; nothing larger is one of its files.
LARGEST_BYTES: Final = 64 << 20
_NO_RESERVE: Final = (errno.EOPNOTSUPP, errno.EINVAL)
# Opening a FIFO would wait for a writer.
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

#: `path: reason` of each file of this process that could not be used.
failures: Final[list[str]] = []


class ValueFile(MmapedDict):
    """The values of one kind of metric, in a file or else in memory.

    Args:
        filename: the path of the file.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            try:
                _reserve_file(Path(filename))
            except OSError as error:
                filename = self._in_memory(filename, error)
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _in_memory(self, filename: str, error: OSError) -> str:
        """Make an empty file in memory; returns its path."""
        failures.append(f"{filename}: {error.strerror or error}")
        # A file that is not updated any more must not be scraped.
        with suppress(OSError):
            Path(filename).unlink()
        self._memory = os.memfd_create("ws-cluster-metrics", os.MFD_CLOEXEC)
        return f"/proc/self/fd/{self._memory}"


def _reserve_file(path: Path) -> None:
    """Create the file, or keep a well-formed one, with all its pages.

    Raises:
        OSError: if that is not possible.
    """
    if not _is_usable(path):
        path.replace(path.with_suffix(".corrupt"))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _reserve(fd, max(FILE_BYTES, os.fstat(fd).st_size))
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(fd)


def _reserve(fd: int, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in _NO_RESERVE:
            raise


def _is_usable(path: Path) -> bool:
    """Whether a worker can go on with the file: it does not exist, is unused, or is well formed."""
    if not path.is_symlink() and not path.exists():
        return True
    try:
        data = read_bounded(path)
    except OSError:
        return False
    if len(data) < HEADER_BYTES:
        return not data
    used = _INTEGER.unpack_from(data)[0]
    return used == 0 or is_well_formed(data, used)


def read_bounded(path: Path) -> bytes:
    """Return the content of a regular file of a sensible size.

    Raises:
        OSError: if it is something else, too large, or cannot be read.
    """
    fd = os.open(path, _OPEN_FLAGS)
    with os.fdopen(fd, "rb") as file:
        _regular_size(fd, path)
        return file.read(LARGEST_BYTES)


def _regular_size(fd: int, path: Path) -> int:
    """Return the size of a file.

    Raises:
        OSError: if it is not a regular file of a sensible size.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_BYTES:
        raise OSError(errno.EFBIG, "not a regular file of a sensible size", str(path))
    return status.st_size


def read_used(path: Path) -> bytes:
    """Return the used part of a file, with its header; nothing if the header is not written yet.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is shorter than its header says.
    """
    fd = os.open(path, _OPEN_FLAGS)
    try:
        size = _regular_size(fd, path)
        data = os.read(fd, min(size, FILE_BYTES // 2))
        if not any(data[:HEADER_BYTES]):
            return b""
        used: int = _INTEGER.unpack_from(data)[0] if len(data) >= HEADER_BYTES else 0
        if not HEADER_BYTES <= used <= size:
            raise ValueError(f"{path} is damaged")
        while len(data) < used:
            more = os.read(fd, used - len(data))
            if not more:
                raise ValueError(f"{path} is being cut short")
            data += more
        return data[:used]
    finally:
        os.close(fd)


def key_lengths(data: bytes) -> Iterator[int]:
    """Yield the length of each key in a well-formed used part, with its padding."""
    position = HEADER_BYTES
    while position < len(data):
        length = _INTEGER.unpack_from(data, position)[0]
        padded = length + (8 - (length + _INTEGER.size) % 8)
        yield padded
        position += _INTEGER.size + padded + _VALUE_BYTES


def is_well_formed(data: bytes, used: int) -> bool:
    """Whether every entry lies within the file; prometheus-client may loop forever otherwise."""
    position = HEADER_BYTES
    if not position <= used <= len(data):
        return False
    while position < used:
        if position + _INTEGER.size > used:
            return False
        length = _INTEGER.unpack_from(data, position)[0]
        if length <= 0:
            return False
        position += _INTEGER.size + length + (8 - (length + _INTEGER.size) % 8) + _VALUE_BYTES
    return position == used
