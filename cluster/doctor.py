"""`ws-cluster doctor`: which limit of this machine ends first as connections are added, and what raises it.

The arithmetic is in `limits`, without reading anything; `Machine.read` reads the kernel's files. A value that
cannot be read is left out, never guessed.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from cluster import config
from cluster.children.listeners import BACKLOG
from cluster.children.nginx import NginxSettings
from cluster.config import Config
from cluster.metrics.system import CGROUP_ROOT, PROC, memory
from cluster.supervisor.limits import OTHER_FILES

#: Resident memory per idle connection with a subscription, measured with 4000 of them on Linux 6.18: the worker
#: 3.2 KiB, nginx 20.6 KiB, the kernel 5 KiB for each end of a socket on this machine.
_WORKER_BYTES: Final = 3_300
_NGINX_BYTES: Final = 21_100
_SOCKET_BYTES: Final = 5_100
#: Of the memory that is free; the rest is for bursts of publications.
_MEMORY_SHARE: Final = 0.8
_MOST_NGINX_PROCESSES: Final = 8
_NGINX_CONNECTIONS: Final = "connections of nginx"
_NO_LIMIT: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Machine:
    """Limits of the kernel and of this process; None for what the kernel does not say.

    Attributes:
        cpus: CPUs that this process may use.
        files: the hard limit of open files of a process.
        all_files: open files of the whole system.
        ports: local ports for outgoing connections to one address.
        tracked: connections that the firewall can track.
        backlog: connections that may wait to be accepted (net.core.somaxconn).
        free_bytes: memory of the machine or the container that is not in use.
    """

    cpus: int
    files: int
    all_files: int | None = None
    ports: int | None = None
    tracked: int | None = None
    backlog: int | None = None
    free_bytes: int | None = None

    @classmethod
    def read(cls, proc: Path = PROC, cgroups: Path = CGROUP_ROOT) -> Machine:
        """Read the limits of this machine."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        used = memory(cgroups, proc)
        kernel = proc / "sys"
        return cls(
            cpus=len(os.sched_getaffinity(0)),
            files=hard if hard != resource.RLIM_INFINITY else _NO_LIMIT,
            all_files=_number(kernel / "fs/file-max"),
            ports=_ports(kernel / "net/ipv4"),
            tracked=_number(kernel / "net/netfilter/nf_conntrack_max"),
            backlog=_number(kernel / "net/core/somaxconn"),
            free_bytes=max(0, used.limit - used.working_set),
        )


class Limit(NamedTuple):
    """One limit.

    Attributes:
        name: what is limited.
        connections: clients that fit.
        remedy: what to do for more; `{n}` is the value to set: `per_client` for each client, and `more`.
    """

    name: str
    connections: int
    remedy: str
    per_client: float = 1.0
    more: int = 0

    def remedy_for(self, connections: int) -> str:
        """What raises the limit to so many clients."""
        return self.remedy.format(n=round(connections * self.per_client) + self.more)


def limits(options: Config, machine: Machine) -> list[Limit]:
    """The limits of a cluster with these options on this machine, the first to be met first."""
    workers = options.server.workers or machine.cpus
    nginx = options.server.nginx
    found = [
        Limit(
            "open files of a worker",
            workers * max(0, machine.files - OTHER_FILES),
            "ulimit -Hn {n} (systemd: LimitNOFILE={n}; compose: ulimits)",
            1 / workers,
            OTHER_FILES,
        )
    ]
    if nginx:
        processes = min(_MOST_NGINX_PROCESSES, workers)
        settings = NginxSettings(
            listen="", workers=(), admin="", ping_interval_seconds=25.0,
            file_limit=machine.files, processes=processes,
        )  # fmt: skip
        found.append(
            Limit(
                _NGINX_CONNECTIONS,
                settings.capacity,
                "ulimit -Hn {n}; a process serves 32,768 clients at most, so more need --no-nginx, "
                "or more machines",
                2 / processes,
                OTHER_FILES,
            )
        )
    if options.client.connection_limit:
        found.append(
            Limit(
                "client.connection_limit",
                workers * options.client.connection_limit,
                "set client.connection_limit to {n}",
                1 / workers,
            )
        )
    return sorted(found + _of_the_system(machine, nginx=nginx), key=lambda one: one.connections)


def _of_the_system(machine: Machine, *, nginx: bool) -> list[Limit]:
    """The limits of the whole machine: memory, files, tracked connections."""
    # Through nginx: the client's connection, and both ends of the one to the worker.
    sockets = 3 if nginx else 1
    size = _WORKER_BYTES + nginx * _NGINX_BYTES + sockets * _SOCKET_BYTES
    found = []
    if machine.free_bytes is not None:
        found.append(
            Limit(
                f"memory, {size / 1024:.0f} KiB for each idle connection",
                int(machine.free_bytes * _MEMORY_SHARE / size),
                "{n} MiB of memory",
                size / _MEMORY_SHARE / (1 << 20),
            )
        )
    if machine.all_files is not None:
        remedy = "sysctl fs.file-max={n}"
        found.append(
            Limit("open files of the system", machine.all_files // sockets, remedy, sockets)
        )
    if machine.tracked is not None:
        # Those from nginx to the workers are over unix sockets, which no firewall sees.
        remedy = "sysctl net.netfilter.nf_conntrack_max={n}"
        found.append(Limit("connections tracked by the firewall", machine.tracked, remedy))
    return found


def report(found: list[Limit], machine: Machine, wanted: int) -> str:
    """The limits as a table, and a sentence about the first; with `wanted` clients, about all below it."""
    rows = [("limit", "clients", "for more"), *(
        (one.name, f"{one.connections:,}", one.remedy_for(wanted or 2 * one.connections))
        for one in found
    )]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {count:>{widths[1]}}  {text}" for name, count, text in rows]
    if machine.backlog is not None and machine.backlog < BACKLOG:
        lines.append(
            f"Clients that connect at once: {machine.backlog:,} may wait; "
            f"for {BACKLOG:,}: sysctl net.core.somaxconn={BACKLOG}"
        )
    if machine.ports is not None and any(one.name == _NGINX_CONNECTIONS for one in found):
        lines.append(
            "Local ports are no limit: nginx reaches the workers over unix sockets. If the log says "
            f"worker_sockets_not_opened, each worker gets {machine.ports:,} clients at most."
        )
    first = found[0]
    lines.append(f"First limit: {first.name}, at {first.connections:,} clients.")
    if wanted:
        short = [one.name for one in found if one.connections < wanted]
        lines.append(
            f"{wanted:,} clients do not fit: {', '.join(short)}."
            if short
            else f"{wanted:,} clients fit."
        )
    return "\n".join(lines)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="say which limit of this machine is met first, and what raises it",
        description="Exit code 1 if the clients asked for with --connections do not fit.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("--config", metavar="FILE", help="TOML or JSON file with options")
    parser.add_argument(
        "--connections", type=_positive, default=0, metavar="N", help="clients that are to fit"
    )


def _run(arguments: argparse.Namespace) -> int:
    machine = Machine.read()
    # Whom the cluster lets in does not matter here: a machine is looked at before there are keys.
    env = os.environ if arguments.config else {"WS_CLUSTER_CLIENT__INSECURE": "true", **os.environ}
    found = limits(config.load(arguments.config, env=env), machine)
    sys.stdout.write(report(found, machine, arguments.connections) + "\n")
    return int(found[0].connections < arguments.connections)


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 0 < number <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 1 to 1000000000")
    return number


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _ports(folder: Path) -> int | None:
    """Ports in ip_local_port_range but not in ip_local_reserved_ports."""
    try:
        low, high = map(int, (folder / "ip_local_port_range").read_text().split())
        reserved = 0
        for part in (folder / "ip_local_reserved_ports").read_text().strip().split(","):
            first, _, last = part.partition("-")
            if first:
                begin, end = max(low, int(first)), min(high, int(last or first))
                reserved += max(0, end - begin + 1)
    except (OSError, ValueError):
        return None
    return max(0, high - low + 1 - reserved)
