"""What the kernel says: memory of our cgroup (v1 or v2) or machine, and of single processes.

Rules
- Everything is read when asked; what cannot be read is left out, never guessed.
- A cgroup without a limit is limited by the machine's memory.
- Reclaimable page cache is no use of memory: the working set leaves inactive files out.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """Memory that cannot be reclaimed, and how much there may be, in bytes."""

    working_set: int
    limit: int


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """What one process uses."""

    cpu_seconds: float
    resident_bytes: int
    open_fds: int
    max_fds: int


def memory(root: Path = CGROUP_ROOT, proc: Path = PROC) -> MemoryUsage:
    """Memory of the cgroup we are in, or else of the machine."""
    machine = _machine_memory(proc)
    for folder, names in _cgroup_folders(root, proc):
        use = _number(folder / names.use)
        if use is None:
            continue
        idle = _fields(folder / "memory.stat").get(names.idle, 0)
        limit = _number(folder / names.limit)
        return MemoryUsage(
            max(0, use - idle), min(limit, machine.limit) if limit else machine.limit
        )
    return machine


@dataclass(frozen=True, slots=True)
class _Names:
    use: str
    limit: str
    idle: str


_V1: Final = _Names("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
_V2: Final = _Names("memory.current", "memory.max", "inactive_file")


def _cgroup_folders(root: Path, proc: Path) -> list[tuple[Path, _Names]]:
    """Where our memory may be accounted, the closest first.

    Inside a container the path may be the host's; then the root of the mount is ours.
    """
    folders: list[tuple[Path, _Names]] = []
    with suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                folders += _v1_folders(root / "memory", path)
            elif number == "0" and not controllers:
                folders.append((root / path.lstrip("/"), _V2))
    return [*folders, (root, _V2)]


def _v1_folders(mount: Path, path: str) -> list[tuple[Path, _Names]]:
    return [(mount / path.lstrip("/"), _V1), (mount, _V1)]


def _machine_memory(proc: Path) -> MemoryUsage:
    facts = _fields(proc / "meminfo")
    total = facts.get("MemTotal:", 0) * 1024
    return MemoryUsage(total - facts.get("MemAvailable:", 0) * 1024, total)


def _number(path: Path) -> int | None:
    """A file's number; None if it holds none ("max") or cannot be read."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _fields(path: Path) -> dict[str, int]:
    facts: dict[str, int] = {}
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, rest = line.partition(" ")
            with suppress(ValueError, IndexError):
                facts[name] = int(rest.split()[0])
    return facts


def process(pid: int, proc: Path = PROC) -> ProcessUsage | None:
    """What a process uses now; None if it is gone."""
    folder = proc / str(pid)
    try:
        # The name stands in brackets and may hold anything, brackets too.
        parts = (folder / "stat").read_text().rpartition(")")[2].split()
        return ProcessUsage(
            cpu_seconds=(int(parts[11]) + int(parts[12])) / _TICKS,
            resident_bytes=int(parts[21]) * _PAGE,
            open_fds=len(os.listdir(folder / "fd")),  # noqa: PTH208 - thousands of names, no paths
            max_fds=resource.prlimit(pid, resource.RLIMIT_NOFILE)[0],
        )
    except (OSError, ValueError, IndexError):
        return None
