"""How many processes hold so many connections here, or what forbids it."""

import math
import resource
from dataclasses import dataclass

from benchmarks.proc import meminfo

#: Files of a process that are no connections.
_OTHER_FILES = 128
_CONNECTIONS_PER_CROWD = 20_000
#: nginx's processes do not get exactly equal shares.
_NGINX_SHARE = 0.85
_MOST_WORKERS = 64
#: Of all processes and the kernel together, both ends of each connection.
_BYTES_PER_CONNECTION = 64 * 1024
_BYTES_PER_PROCESS = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """Who holds the connections; nginx has as many processes as there are workers."""

    connections: int
    workers: int
    crowds: int

    @property
    def per_crowd(self) -> list[int]:
        each, rest = divmod(self.connections, self.crowds)
        return [each + (number < rest) for number in range(self.crowds)]


class Forbidden(Exception):
    """A limit of this machine is below what is needed; the text says which."""


def plan_for(connections: int) -> Plan:
    """Plan with the limits of this machine.

    Raises:
        Forbidden: when they do not allow so many connections.
    """
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    per_nginx = int((min(files, 65_536) - _OTHER_FILES) // 2 * _NGINX_SHARE)
    per_crowd = min(files - _OTHER_FILES, _CONNECTIONS_PER_CROWD)
    if per_nginx < 1 or math.ceil(connections / per_nginx) > _MOST_WORKERS:
        raise Forbidden(f"{files} open files per process are too few for {connections} connections")
    plan = Plan(connections, math.ceil(connections / per_nginx), math.ceil(connections / per_crowd))
    needed = connections * _BYTES_PER_CONNECTION + _BYTES_PER_PROCESS * (
        2 * plan.workers + plan.crowds
    )
    if needed > available_bytes():
        raise Forbidden(
            f"{needed >> 20} MiB of memory are needed and {available_bytes() >> 20} available"
        )
    return plan


def available_bytes() -> int:
    return meminfo()["MemAvailable"]
