"""What a store holds under the names of layout 1, which versions up to 0.1 used.

Rules
- Workers of the two layouts do not serve together: neither would get the other's publications.
- On a single server the keys of layout 1 get their new names once, at the start of the first worker, so
  positions, streams and sessions are kept. In a Redis Cluster, and with several URLs, a new name may
  belong to another server: there they are left to expire, and clients are told (`recovered: false`).
- The counters of the sessions are renamed last: as long as there is one, the rest may not be done.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from cluster.errors import StoreRefused
from cluster.log import get_logger
from cluster.resp.keys import KIND_CHANNEL, KIND_SESSIONS
from cluster.resp.router import Router

log = get_logger()

_BUCKETS: Final = 64
_SCAN_COUNT: Final = 1000
#: What follows the prefix in layout 2, and is no name of a channel or bucket in layout 1.
_LAYOUT_2: Final = re.compile(rb"\d+(-\d+)*:[csi]:")
_BUCKET: Final = re.compile(rb"s(\d{1,2})")


async def check_layout(router: Router, name: str) -> None:
    """Refuse to serve beside workers that know only layout 1.

    Args:
        name: `broker.prefix`, after which layout 1 named everything.

    Raises:
        StoreRefused: if such workers use the store, with any database.
        StoreError: if the store cannot say so.
    """
    changes = f"{{{name}:s0}}.changes"
    reply = await router.call(changes, "PUBSUB", "SHARDNUMSUB", changes)
    if reply[1]:
        raise StoreRefused(
            f"workers of an earlier version, with key layout 1, use this store with the prefix {name}: "
            "stop all of them first, or give broker.prefix another value"
        )


async def rename_layout_1(router: Router, name: str, prefix: str) -> int:
    """Give the keys of layout 1 their names of this layout; returns how many there were.

    Several workers may do so at the same time, and one that was interrupted is continued by the next.
    A name that is taken already is left as it is.

    Args:
        name: `broker.prefix`.
        prefix: as `key_prefix` makes it.

    Raises:
        StoreUnavailable: when the store is lost meanwhile.
    """
    if router.is_cluster or len(router.shards) > 1:
        return 0
    counters = [f"{{{name}:s{bucket}}}.counters" for bucket in range(_BUCKETS)]
    try:
        if not await router.call(counters[0], "EXISTS", *counters):
            return 0
        renamed = await _rename_all(router, name, prefix)
    except StoreRefused as refused:
        # The documented rules allow nothing outside this layout, to a user that never had the other.
        log.debug("layout_not_read", reason=str(refused))
        return 0
    log.info("layout_1_renamed", keys=renamed)
    return renamed


async def _rename_all(router: Router, name: str, prefix: str) -> int:
    last: list[tuple[bytes, bytes]] = []
    cursor, renamed = b"0", 0
    while True:
        cursor, keys = await router.call(
            "", "SCAN", cursor, "MATCH", f"{{{name}:*", "COUNT", _SCAN_COUNT
        )
        pairs = [(key, new) for key in keys if (new := _new_name(key, name, prefix))]
        last += [pair for pair in pairs if pair[0].endswith(b".counters")]
        renamed += await _rename(router, [p for p in pairs if not p[0].endswith(b".counters")])
        if cursor == b"0":
            return renamed + await _rename(router, last)


async def _rename(router: Router, pairs: list[tuple[bytes, bytes]]) -> int:
    async def rename(key: bytes, new: bytes) -> int:
        try:
            return int(await router.call("", "RENAMENX", key, new))
        except StoreRefused as refused:
            if str(refused).startswith("ERR no such key"):
                return 0  # Another worker was first, or its life has ended.
            raise

    return sum(await asyncio.gather(*(rename(key, new) for key, new in pairs)))


def _new_name(key: bytes, name: str, prefix: str) -> bytes | None:
    """The name of a key of layout 1 in this layout, None if it is no such key."""
    inner, brace, part = key.removeprefix(b"{%b:" % name.encode()).rpartition(b"}.")
    if not brace or _LAYOUT_2.match(inner):
        return None
    if part in (b"meta", b"stream"):
        return b"{%b:%b:%b}.%b" % (prefix.encode(), KIND_CHANNEL.encode(), inner, part)
    bucket = _BUCKET.fullmatch(inner)
    if bucket and (part in (b"sessions", b"counters") or part.startswith(b"session.")):
        return b"{%b:%b:%b}.%b" % (prefix.encode(), KIND_SESSIONS.encode(), bucket[1], part)
    return None
