"""Processes as /proc shows them, and free ports. Linux only, as the product."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

# Below the ephemeral range: no outgoing connection gets one of these before it is used.
_FIRST_PORT, _LAST_PORT = 12000, 32000
_MOST_PROCESSES = 8
# __SO_ACCEPTCON of linux/net.h
_ACCEPTS_CONNECTIONS = 1 << 16


def free_ports(count: int) -> int:
    """Find `count` ports in a row that can be bound now; returns the first."""
    ports = _own_ports()
    for _ in range(200):
        first = random.randrange(ports.start, ports.stop - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise RuntimeError(f"no {count} free ports in a row")


def _own_ports() -> range:
    """The ports of this test process, so that no other test process uses one that was found free here."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _MOST_PROCESSES
    size = (_LAST_PORT - _FIRST_PORT) // _MOST_PROCESSES
    return range(_FIRST_PORT + number * size, _FIRST_PORT + (number + 1) * size)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the command name: state first."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text.rpartition(")")[2].split()


def is_running(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def accepted_connections(pid: int, slot: int) -> int:
    """How many connections of nginx a worker has accepted on its slot's unix socket."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # It may have been closed meanwhile.
        with contextlib.suppress(OSError):
            own.add(entry.readlink().name)
    found = 0
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        # Number, references, protocol, flags, type, state, inode, path (proc(5)).
        fields = line.split(None, 7)
        listens = int(fields[3], 16) & _ACCEPTS_CONNECTIONS
        if len(fields) == 8 and fields[7].endswith(f"/w{slot}") and not listens:
            found += f"socket:[{fields[6]}]" in own
    return found


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it has ended."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0") if part]


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            if int(_stat(int(entry.name))[1]) == pid:
                found.append(int(entry.name))
    return sorted(found)


def family(pid: int) -> list[int]:
    """All descendants of a process, without itself."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *family(child)]
    return found


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process and of what runs below it; what has ended does not count."""
    ticks = 0
    for one in (pid, *family(pid)):
        with contextlib.suppress(OSError, IndexError):
            ticks += sum(map(int, _stat(one)[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def end(pids: list[int]) -> None:
    """Kill the processes that are left of this list, one by one."""
    for pid in pids:
        if is_running(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def hold(pid: int, within: float = 30.0) -> None:
    """Stop a process with SIGSTOP, and wait until it has stopped.

    On a busy machine a signal takes effect late, and the process would go on for a while.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + within
    while _stat(pid)[0] != "T":
        assert time.monotonic() < deadline, f"process {pid} has not stopped within {within} s"
        time.sleep(0.005)


@contextlib.contextmanager
def held(pid: int) -> Iterator[None]:
    """Stop a process for the length of the block."""
    try:
        hold(pid)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
