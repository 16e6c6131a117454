"""The `instance` of logs: as Prometheus calls this replica, so that a graph leads to its lines."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

from cluster.children.listeners import reachable_host
from cluster.config import ServerConfig


def instance_name(options: ServerConfig) -> tuple[str, bool]:
    """`host:port` of the admin port; and False if `server.instance` is given and has no address of this machine.

    With an address in `server.instance` it is that. A name in it may be that of several replicas, such as the alias
    of a service in Docker: it becomes the address among them that is this machine's, as Prometheus discovers it.
    Without the option, or if none is this machine's, it is the address or the name of this machine.
    """
    given, _, port = options.instance.rpartition(":")
    host = _own_address(given.strip("[]")) if given else ""
    if host:
        return f"{_bracketed(host)}:{port}", True
    host = options.host if reachable_host(options.host) == options.host else socket.gethostname()
    return f"{_bracketed(host)}:{options.admin_port}", not given


def _own_address(host: str) -> str:
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    with suppress(OSError):
        for family, _, _, _, found in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                # Only an address of this machine can be bound.
                probe.bind((found[0], 0))
                return str(found[0])
    return ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
