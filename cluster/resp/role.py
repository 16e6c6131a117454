"""What a server says of itself in INFO: its identity, and whether it takes writes."""

from __future__ import annotations

from typing import Any, NamedTuple

from cluster.errors import StoreRefused, StoreUnavailable


class MasterIdentity(NamedTuple):
    """Which server answers, and whose data it has; None if the user may not ask for it.

    Attributes:
        run_id: of its process.
        replication_id: of its data since it became a master.
    """

    run_id: str | None = None
    replication_id: str | None = None


def master_identity(about: Any) -> MasterIdentity:
    """The identity of a master.

    Args:
        about: the reply to INFO of the sections server and replication, or the error that came instead.

    Raises:
        StoreRefused: if the server is a replica. A replica in a Redis Cluster is none here: it is left
            by the map, and it may be a seed.
        StoreUnavailable: if that came instead of the reply, or the reply is none to INFO.
    """
    if isinstance(about, StoreUnavailable):
        raise about
    if isinstance(about, Exception):
        return MasterIdentity()  # The first write will tell the role.
    if not isinstance(about, bytes):
        raise StoreUnavailable("what answers is no Redis or Valkey: its INFO is no text")
    lines = about.decode(errors="replace").split("\r\n")
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if fields.get("role") == "slave" and fields.get("redis_mode") != "cluster":
        raise StoreRefused(
            f"READONLY it is a replica of {fields.get('master_host')}:{fields.get('master_port')}"
        )
    return MasterIdentity(fields.get("run_id"), fields.get("master_replid"))
