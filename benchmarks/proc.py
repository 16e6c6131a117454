"""What the kernel says about processes: CPU time, memory, children. Linux only.

CPU is utime + stime of /proc/<pid>/stat, so all threads count and finished children do not.
Memory is the resident set size (RSS). The proportional one (PSS) is kept beside it in the samples
only: it moves whenever another process maps the same libraries.
"""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
FIRST_FIELD_AFTER_NAME = 3  # proc(5) numbers the fields from 1; the name in brackets is field 2.


@dataclass(frozen=True, slots=True)
class Memory:
    rss_bytes: int
    pss_bytes: int


def cpu_seconds(pid: int) -> float:
    """Return user and system time of one process so far; 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = stat.rpartition(")")[2].split()
    utime, stime = (int(fields[number - FIRST_FIELD_AFTER_NAME]) for number in (14, 15))
    return (utime + stime) / TICKS_PER_SECOND


def memory(pid: int) -> Memory:
    sizes = {"Rss": 0, "Pss": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        if name in sizes:
            sizes[name] = int(rest.split()[0]) * 1024
    return Memory(sizes["Rss"], sizes["Pss"])


def meminfo() -> dict[str, int]:
    """Return /proc/meminfo in bytes."""
    pairs = (line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def children(pid: int) -> list[int]:
    """Return the direct children, whichever thread started them; none when the process is gone."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
