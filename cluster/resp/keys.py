"""The names of keys and shard channels in the store: layout 2.

Every name is `{<prefix>:<database>:<kind>:<name>}.<part>`. The braces are the hash tag: all parts of one
name are in one slot of a Redis Cluster. The kinds are

    c  a channel, as a client calls it: `.meta`, `.stream`, `.pub`, and its members: `.members`,
       `.member_ends`, `.member_users`; `.result.<hash>`
    s  a bucket of sessions: `.session.<id>`, `.sessions`, `.counters`, `.changes`
    u  a user, as the token says: `.connections`, `.access`
    t  a token, by its id: `.revoked`
    i  what only the workers use: `.pub` of a canary, and what `check_access` tries

Rules: a prefix holds no colon (`PREFIX`), the database is a number, the kind is one character, and the name
comes last. So names that differ in any of the four differ, whatever characters a channel has. The
database is named because pub/sub is not scoped by it.
"""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections.abc import Sequence
from itertools import product
from string import ascii_lowercase
from typing import Final

from cluster.config import BrokerConfig
from cluster.config.redis_url import database_of
from cluster.errors import StoreRefused
from cluster.resp.discovery import SLOTS
from cluster.resp.router import Router
from cluster.resp.scripts import CHECK_ACCESS
from cluster.resp.shard import Shard

KIND_CHANNEL: Final = "c"
KIND_SESSIONS: Final = "s"
KIND_USER: Final = "u"
KIND_TOKEN: Final = "t"  # noqa: S105 - a letter, no password
KIND_INTERNAL: Final = "i"


def key_prefix(config: BrokerConfig) -> str:
    """The start of every name of a cluster: its prefix and the database.

    If its servers are used with different databases, all of them are named, in order.
    """
    return f"{config.prefix}:{_database(config.redis_urls)}"


def _database(urls: Sequence[str]) -> str:
    numbers = [database_of(url) for url in urls] or [0]
    if len(set(numbers)) == 1:
        return str(numbers[0])
    return "-".join(map(str, numbers))


#: A server that is full, whose disk is full, or that lacks replicas.
_NO_WRITES_NOW: Final = frozenset({"OOM", "MISCONF", "NOREPLICAS"})


async def check_access(router: Router, prefix: str) -> None:
    """Run every command once on every server, on keys that only this check uses.

    Args:
        prefix: as `key_prefix` makes it.

    Raises:
        StoreRefused: with what the server says if the user lacks a permission, or it is a replica.
    """
    for shard in router.shards:
        if (tag := tag_on(router, shard, f"{prefix}:{KIND_INTERNAL}:access:")) is None:
            continue
        keys = [f"{tag}.{part}" for part in ("meta", "stream", "sessions")]
        try:
            await router.call_script(CHECK_ACCESS, keys, (f"{tag}.pub",))
            if router.is_cluster:
                # What follows a redirection of a slot that is being migrated; it holds for the PING alone.
                await asyncio.gather(shard.commands.call("ASKING"), shard.commands.call("PING"))
        except StoreRefused as refused:
            # Workers start all the same: the server can be read, and it will take writes again.
            if refused.kind not in _NO_WRITES_NOW:
                raise StoreRefused(f"the store at {shard.address} refuses: {refused}") from None


_PAIRS: Final = [f"{one}{other}".encode() for one, other in product(ascii_lowercase, repeat=2)]


def tag_on(router: Router, shard: Shard, start: str) -> str | None:
    """A hash tag in a slot of a server, None if it owns none: in braces `start`, which has none, and four letters."""
    slot = router.slot_of(shard)
    return None if slot is None else f"{{{start}{_ending(start.encode(), slot)}}}"


def _ending(start: bytes, slot: int) -> str:
    """The letters that put `start` in a slot; there are some for every slot.

    CRC16 is linear: the one of a whole is that of its first part, with zeros after it, XOR that of the rest.
    So two letters are looked for, and those that must follow are looked up.
    """
    last = {crc_hqx(pair, 0) % SLOTS: pair for pair in _PAIRS}
    sums = ((pair, crc_hqx(start + pair + bytes(2), 0) % SLOTS) for pair in _PAIRS)
    return next((pair + last[crc ^ slot]).decode() for pair, crc in sums if crc ^ slot in last)
