"""Presence over Redis or Valkey: three keys per channel, changed and counted by scripts.

Of a channel there are `.members` (hash: client -> entry), `.member_ends` (zset: client -> when it ends) and
`.member_users` (hash: user -> number of entries); `cluster.resp.keys` has their names. An entry is
`<bytes of the user>:<user><ClientInfo as JSON>`; a zero before it says that its leave is not told. Joins and leaves are
sent to the channel's own shard channel as `2:` and one line each: the kind and the ClientInfo;
`redis_broker` receives them. All of them share the channel's hash tag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from cluster.errors import StoreError
from cluster.presence import Change, PresenceMode, PresenceStats, PresenceTooLarge, Renewed
from cluster.resp.keys import KIND_CHANNEL
from cluster.resp.router import Router
from cluster.resp.scripts import PRESENCE_CHANGE, PRESENCE_COUNT, PRESENCE_RENEW

#: Most expired entries that one run of a script removes, which holds the store meanwhile.
_REMOVED_AT_A_TIME: Final = 500
#: Most entries that one read asks for; a few more may come.
_READ_AT_A_TIME: Final = 200
#: No entry is smaller: the client id twice, and the names in the ClientInfo.
_LEAST_ENTRY_BYTES: Final = 90


class RedisPresence:
    """See `PresenceStore` for the guarantees.

    Args:
        prefix: of every key of this cluster; see `key_prefix`.
        ttl_seconds: how long an entry lives after it was added or renewed.
    """

    def __init__(self, router: Router, *, prefix: str, ttl_seconds: float) -> None:
        self._router = router
        self._prefix = f"{prefix}:{KIND_CHANNEL}"
        self._ttl_ms = int(ttl_seconds * 1000)

    def _keys(self, channel: str) -> tuple[str, str, str]:
        tag = f"{{{self._prefix}:{channel}}}"
        return f"{tag}.members", f"{tag}.member_ends", f"{tag}.member_users"

    def _told(self, channel: str) -> str:
        """The shard channel of a channel's joins and leaves."""
        return f"{{{self._prefix}:{channel}}}.pub"

    def change(
        self,
        channel: str,
        changes: Sequence[Change],
        mode: PresenceMode,
        done: Callable[[StoreError | None], None],
    ) -> None:
        def answered(reply: Any) -> None:
            done(reply if isinstance(reply, StoreError) else None)

        told = self._told(channel)
        if mode.has_entries:
            args: list[bytes | str | int] = [self._ttl_ms, told]
            for one in changes:
                args += (one.kind, one.client, _entry(one, is_told=mode.is_published))
            self._router.run_script(PRESENCE_CHANGE, self._keys(channel), args, answered)
        elif mode.is_published:
            payload = b"2:" + b"\n".join(one.kind + one.info for one in changes)
            self._router.submit(told, ("SPUBLISH", told, payload), answered, keeps_order=True)
        else:
            done(None)

    def renew(
        self,
        channel: str,
        clients: Sequence[str],
        done: Callable[[Renewed | StoreError], None],
        *,
        sweeps: bool,
    ) -> None:
        def answered(reply: Any) -> None:
            if isinstance(reply, StoreError):
                done(reply)
            else:
                missing, left_ms = reply
                expires_in = left_ms / 1000 if left_ms >= 0 else None
                done(Renewed([one.decode() for one in missing], expires_in))

        most = _REMOVED_AT_A_TIME if sweeps else 0
        args: list[str | int] = [self._ttl_ms, self._told(channel), most, *clients]
        self._router.run_script(PRESENCE_RENEW, self._keys(channel), args, answered)

    async def stats(self, channel: str, *, sweeps: bool) -> PresenceStats:
        args = (self._told(channel), _REMOVED_AT_A_TIME if sweeps else 0)
        while True:
            clients, users, has_more = await self._router.call_script(
                PRESENCE_COUNT, self._keys(channel), args
            )
            if not has_more:
                return PresenceStats(clients, users)

    async def entries(self, channel: str, *, max_bytes: int, sweeps: bool) -> dict[str, bytes]:
        count = (await self.stats(channel, sweeps=sweeps)).clients
        found: dict[str, bytes] = {}
        cursor, size, key = b"0", 0, self._keys(channel)[0]
        if count * _LEAST_ENTRY_BYTES > max_bytes:
            raise PresenceTooLarge(f"{count} entries have more than {max_bytes} bytes")
        while count:
            cursor, flat = await self._router.call(
                key, "HSCAN", key, cursor, "COUNT", _READ_AT_A_TIME
            )
            for client, entry in zip(flat[::2], flat[1::2], strict=True):
                name = client.decode()
                if name not in found:
                    found[name] = _info(entry)
                    size += len(client) + len(found[name])
            if size > max_bytes:
                raise PresenceTooLarge(f"the entries have more than {max_bytes} bytes")
            if cursor == b"0":
                break
        return found


def _entry(change: Change, *, is_told: bool) -> bytes:
    user = change.user.encode()
    # Versions that do not know the zero read the same number.
    return b"%b%d:%b%b" % (b"" if is_told else b"0", len(user), user, change.info)


def _info(entry: bytes) -> bytes:
    size, _, rest = entry.partition(b":")
    return rest[int(size) :]
