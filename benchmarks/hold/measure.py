"""Memory and CPU of groups of processes, and of the kernel for their sockets."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.proc import cpu_seconds, meminfo, memory


@dataclass(frozen=True, slots=True)
class Cost:
    """What a group of processes costs: resident bytes more than when nobody was connected, cores at rest."""

    resident_bytes: int
    cores: float


@dataclass(frozen=True, slots=True)
class Groups:
    """Processes by the name of their group, looked up anew each time."""

    pids: Mapping[str, Callable[[], Sequence[int]]]

    def memory(self) -> dict[str, int]:
        """Return the resident bytes of each group."""
        return {
            name: sum(memory(pid).rss_bytes for pid in pids()) for name, pids in self.pids.items()
        }

    def cpu_at_rest(self, seconds: float) -> dict[str, float]:
        """Return the cores that each group uses over some seconds in which nothing is published."""
        before, begun = self._cpu(), time.monotonic()
        time.sleep(seconds)
        taken = time.monotonic() - begun
        return {name: (cpu - before[name]) / taken for name, cpu in self._cpu().items()}

    def _cpu(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids())) for name, pids in self.pids.items()}


def kernel_bytes() -> int:
    """Return the kernel's own memory: caches of objects (sockets, files), page tables, stacks."""
    now = meminfo()
    return now["Slab"] + now["PageTables"] + now["KernelStack"]
