"""`ws-cluster nginx-config`: the configuration of an nginx in a container of its own.

It is made from the template of the embedded nginx. The replicas are found by name, so they can come
and go without a reload.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Final

from cluster import config
from cluster.children.nginx import NginxSettings, render
from cluster.errors import UsageError

_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_MAX_PORT: Final = 65535
_MAX_WORKERS: Final = 512


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of `ws-cluster`."""
    command = commands.add_parser(
        "nginx-config",
        help="write nginx.conf for an nginx in a container of its own",
        description="Write the configuration of an nginx that finds the replicas of a cluster by name,"
        " such as those of `docker compose up --scale`.",
    )
    command.set_defaults(run=_write)
    add = command.add_argument
    add("--app", required=True, metavar="NAME", help="host name that all replicas have")
    add("--workers", type=int, required=True, metavar="N", help="worker processes of each replica")
    add("--listen", default="8080", metavar="[ADDR:]PORT", help="where to listen (default 8080)")
    add(
        "--status-listen",
        default="8081",
        metavar="[ADDR:]PORT",
        help="where /health and /stub_status are; empty for none (default 8081)",
    )
    add(
        "--resolver",
        default="127.0.0.11",
        metavar="ADDR",
        help="DNS server that is asked for the name every second (default Docker's, 127.0.0.11)",
    )
    add(
        "--file-limit",
        type=int,
        default=65536,
        metavar="N",
        help="open files of one nginx process; a client needs two (default 65536)",
    )
    add(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="nginx processes; 0, the default, is one per CPU, at most 8",
    )
    add("--config", metavar="FILE", help="the configuration of the replicas")
    add("--output", metavar="FILE", help="file to write (default standard output)")


def _write(arguments: argparse.Namespace) -> int:
    text = render(_settings(arguments, config.load(arguments.config, env=os.environ)))
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    path = Path(arguments.output)
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror})") from None
    return 0


def _settings(arguments: argparse.Namespace, options: config.Config) -> NginxSettings:
    for flag, text in (("--app", arguments.app), ("--resolver", arguments.resolver)):
        if not _NAME.fullmatch(text):
            raise UsageError(f"{flag} {text!r} is no host name or address")
    if not 1 <= arguments.workers <= _MAX_WORKERS:
        raise UsageError(f"--workers {arguments.workers}: give 1 to {_MAX_WORKERS}")
    for flag, text in (
        ("--listen", arguments.listen),
        ("--status-listen", arguments.status_listen),
    ):
        port = text.rpartition(":")[2]
        if text and not (port.isdecimal() and 0 < int(port) <= _MAX_PORT and " " not in text):
            raise UsageError(f"{flag} {text!r}: give a port, or an address and a port")
    server = options.server
    base = server.worker_port_base
    return NginxSettings(
        listen=arguments.listen,
        workers=[f"{arguments.app}:{base + slot}" for slot in range(arguments.workers)],
        admin=f"{arguments.app}:{server.admin_port}",
        ping_interval_seconds=options.client.ping_interval,
        file_limit=arguments.file_limit,
        processes=arguments.processes or min(8, len(os.sched_getaffinity(0))),
        trusted_proxies=list(server.trusted_proxies),
        admin_connections=options.admin.connection_limit // 2,
        connections_per_address=options.client.connection_limit_per_address,
        connection_rate_per_address=options.client.connection_rate_limit_per_address,
        instance="nginx",
        resolver=arguments.resolver,
        status_listen=arguments.status_listen,
    )
