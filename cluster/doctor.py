"""`ws-cluster doctor`: which limit of this machine ends first as connections are added, and what raises it.

The arithmetic is in `limits`, without reading anything; `Machine.read` reads the kernel's files. A value that
cannot be read is left out, never guessed. The limit of open files is what `up` would raise it to, as the same user.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from cluster import config
from cluster.children.listeners import BACKLOG
from cluster.children.nginx import (
    MOST_CLIENTS_PER_PROCESS,
    MOST_PROCESSES,
    NginxSettings,
    processes_for,
)
from cluster.config import Config
from cluster.metrics.system import CGROUP_ROOT, PROC, memory, task_limit
from cluster.supervisor.limits import OTHER_FILES, reachable_file_limit

#: Resident memory per idle connection with a subscription, not less than `benchmarks.hold` has measured: of the
#: worker, of nginx, and of the kernel for each end of a socket on this machine.
_WORKER_BYTES: Final = 3_300
_NGINX_BYTES: Final = 22_400
_SOCKET_BYTES: Final = 5_100
#: Of the memory that is free; the rest is for bursts of publications.
_MEMORY_SHARE: Final = 0.8
#: Processes and threads: 15 were counted with one worker, 27 with four, and three more during a roll, which
#: replaces one worker at a time. An nginx process comes with each worker.
_OTHER_TASKS: Final = 16
_TASKS_PER_WORKER: Final = 4
_NGINX_CONNECTIONS: Final = "connections of nginx"


@dataclass(frozen=True, slots=True)
class Machine:
    """Limits of the kernel and of this process; None for what the kernel does not say.

    Attributes:
        cpus: CPUs that this process may use.
        files: open files that a process of the cluster gets, where it may raise its limit itself.
        all_files: open files of the whole system.
        ports: local ports for outgoing connections to one address.
        tracked: connections that the firewall can track.
        backlog: connections that may wait to be accepted (net.core.somaxconn).
        free_bytes: memory of the machine or the container that is not in use.
        nr_open: the highest limit of open files that the kernel gives one process (fs.nr_open).
        tasks: processes and threads that the control group may have.
    """

    cpus: int
    files: int
    all_files: int | None = None
    ports: int | None = None
    tracked: int | None = None
    backlog: int | None = None
    free_bytes: int | None = None
    nr_open: int | None = None
    tasks: int | None = None

    @classmethod
    def read(cls, proc: Path = PROC, cgroups: Path = CGROUP_ROOT) -> Machine:
        """Read the limits of this machine."""
        used = memory(cgroups, proc)
        kernel = proc / "sys"
        return cls(
            cpus=len(os.sched_getaffinity(0)),
            files=reachable_file_limit(proc),
            all_files=_number(kernel / "fs/file-max"),
            ports=_ports(kernel / "net/ipv4"),
            tracked=_number(kernel / "net/netfilter/nf_conntrack_max"),
            backlog=_number(kernel / "net/core/somaxconn"),
            free_bytes=max(0, used.limit - used.working_set),
            nr_open=_number(kernel / "fs/nr_open"),
            tasks=task_limit(cgroups, proc),
        )


class Limit(NamedTuple):
    """One limit.

    Attributes:
        name: what is limited.
        connections: clients that fit.
        remedy: says what to set for a number of clients.
    """

    name: str
    connections: int
    remedy: Callable[[int], str]


def limits(options: Config, machine: Machine) -> list[Limit]:
    """The limits of a cluster with these options on this machine, the first to be met first."""
    workers = options.server.workers or machine.cpus
    nginx = options.server.nginx
    found = [
        Limit(
            "open files of a worker",
            workers * max(0, machine.files - OTHER_FILES),
            lambda clients: _more_files(math.ceil(clients / workers), machine),
        )
    ]
    if nginx:
        found.append(_of_nginx(workers, machine))
    if options.client.connection_limit:
        found.append(
            Limit(
                "client.connection_limit",
                workers * options.client.connection_limit,
                lambda clients: f"set client.connection_limit to {math.ceil(clients / workers)}",
            )
        )
    found += _of_the_system(machine, nginx=nginx)
    needed = _OTHER_TASKS + _TASKS_PER_WORKER * workers
    if machine.tasks is not None and machine.tasks < needed:
        text = f"pids.max of {needed} (systemd: TasksMax={needed}; compose: pids_limit)"
        found.append(Limit("processes of the control group", 0, lambda _: text))
    return sorted(found, key=lambda one: one.connections)


def _of_nginx(workers: int, machine: Machine) -> Limit:
    processes = processes_for(workers)
    settings = NginxSettings(
        listen="", workers=(), admin="", ping_interval_seconds=25.0,
        file_limit=machine.files, processes=processes,
    )  # fmt: skip

    def remedy(clients: int) -> str:
        """More files, or where they do not help more workers: each has a process of nginx."""
        each = math.ceil(clients / processes)
        if each <= MOST_CLIENTS_PER_PROCESS:
            return _more_files(2 * each, machine)
        needed = math.ceil(clients / MOST_CLIENTS_PER_PROCESS)
        if needed > MOST_PROCESSES:
            return (
                f"nginx serves {MOST_PROCESSES * MOST_CLIENTS_PER_PROCESS:,} clients at most: "
                "--no-nginx, or more machines"
            )
        files = _more_files(2 * math.ceil(clients / needed), machine)
        return f"set server.workers to {needed} and {files}"

    return Limit(_NGINX_CONNECTIONS, settings.capacity, remedy)


def _more_files(connections: int, machine: Machine) -> str:
    """What lets a process have so many connections."""
    number = connections + OTHER_FILES
    text = f"ulimit -Hn {number} (systemd: LimitNOFILE={number}; compose: ulimits)"
    if machine.nr_open is not None and number > machine.nr_open:
        return f"sysctl fs.nr_open={number} and {text}"
    return text


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
                lambda clients: f"{_free_mebibytes(clients * size)} MiB of free memory",
            )
        )
    if machine.all_files is not None:
        found.append(
            Limit(
                "open files of the system",
                machine.all_files // sockets,
                lambda clients: f"sysctl fs.file-max={clients * sockets}",
            )
        )
    if machine.tracked is not None:
        # Those from nginx to the workers are over unix sockets, which no firewall sees.
        found.append(
            Limit(
                "connections tracked by the firewall",
                machine.tracked,
                lambda clients: f"sysctl net.netfilter.nf_conntrack_max={clients}",
            )
        )
    return found


def _free_mebibytes(needed_bytes: int) -> int:
    return math.ceil(needed_bytes / _MEMORY_SHARE / (1 << 20))


def report(found: list[Limit], machine: Machine, wanted: int) -> str:
    """The limits as a table, and a sentence about the first; with `wanted` clients, about all below it.

    With `wanted`, only what is too low has a remedy: a smaller value would lower what suffices.
    """
    rows = [("limit", "clients", f"for {wanted:,}" if wanted else "for twice as many")]
    for one in found:
        is_enough = one.connections >= wanted > 0
        remedy = "enough" if is_enough else one.remedy(wanted or 2 * one.connections)
        rows.append((one.name, f"{one.connections:,}", remedy))
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
