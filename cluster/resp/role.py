"""What a server says of itself in INFO: its identity, and whether it takes writes."""

from __future__ import annotations

from typing import Any

from cluster.errors import StoreRefused, StoreUnavailable


def master_run_id(about: Any) -> str | None:
    """The identity of a master's process, None if the user may not ask for it.

    Args:
        about: the reply to INFO of the sections server and replication, or the error that came instead.

    Raises:
        StoreRefused: if the server is a replica. A replica in a Redis Cluster is none here: it is left
            by the map, and it may be a seed.
        StoreUnavailable: if that came instead of the reply.
    """
    if isinstance(about, StoreUnavailable):
        raise about
    if isinstance(about, Exception):
        return None  # The first write will tell the role.
    lines = about.decode(errors="replace").split("\r\n")
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if fields.get("role") == "slave" and fields.get("redis_mode") != "cluster":
        raise StoreRefused(
            f"READONLY it is a replica of {fields.get('master_host')}:{fields.get('master_port')}"
        )
    return fields.get("run_id")
