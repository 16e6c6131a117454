"""`ws-cluster nginx-config`: the configuration of an nginx in a container of its own.

It is made from the template of the embedded nginx. The replicas are found by name, so they can come
and go without a reload.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cluster import config, durations
from cluster.children.nginx import NginxSettings, render
from cluster.errors import UsageError

_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_MAX_PORT: Final = 65535
_MAX_WORKERS: Final = 512
_CERTIFICATE: Final = "tls_certificate"
_KEY: Final = "tls_key"


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
    add(
        "--tls-from",
        default="",
        metavar="FOLDER",
        help=f"folder with {_CERTIFICATE} and {_KEY} (PEM), for https and wss; without these files there"
        " is none",
    )
    add(
        "--tls-listen",
        default="8443",
        metavar="[ADDR:]PORT",
        help="where to listen for https and wss (default 8443)",
    )
    add(
        "--hsts",
        default="0s",
        metavar="DURATION",
        help="for how long browsers shall use nothing but https, such as 365d (default 0s: not said)",
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
        ("--tls-listen", arguments.tls_listen),
    ):
        port = text.rpartition(":")[2]
        if text and not (port.isdecimal() and 0 < int(port) <= _MAX_PORT and " " not in text):
            raise UsageError(f"{flag} {text!r}: give a port, or an address and a port")
    tls = _tls_files(Path(arguments.tls_from)) if arguments.tls_from else None
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
        tls_listen=arguments.tls_listen if tls else "",
        tls_certificate=str(tls[0]) if tls else "",
        tls_key=str(tls[1]) if tls else "",
        hsts_seconds=_hsts_seconds(arguments.hsts) if tls else 0,
    )


def _hsts_seconds(text: str) -> int:
    try:
        return round(durations.seconds_of(text))
    except ValueError as error:
        raise UsageError(f"--hsts: {error}") from None


def _tls_files(folder: Path) -> tuple[Path, Path] | None:
    """The certificate and its key; None if neither is there.

    Raises:
        UsageError: if only one is there, one cannot be read, they do not match, or the certificate has expired.
    """
    # Costs a quarter of the start of the program.
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    certificate_file, key_file = (folder / name for name in (_CERTIFICATE, _KEY))
    there = [path for path in (certificate_file, key_file) if path.exists()]
    if not there:
        return None
    if len(there) == 1:
        raise UsageError(f"{there[0]} is there alone: give both {_CERTIFICATE} and {_KEY}")
    try:
        certificate = load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{certificate_file} is no certificate in PEM ({error})") from None
    try:
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{key_file} is no private key in PEM without a password ({error})"
        ) from None
    if certificate.public_key() != key.public_key():
        raise UsageError(
            f"{certificate_file} and {key_file} do not match: the certificate is of another key"
        )
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise UsageError(
            f"{certificate_file} has expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        )
    return certificate_file.absolute(), key_file.absolute()
