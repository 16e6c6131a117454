"""Tokens that have been revoked, and users that are blocked, in the store that all workers share.

Kept in hashes, each for its time: `.access` of a user (`blocked`, and `issued`: a token that was issued at
this Unix time or before is revoked) and `.revoked` of a token's id; `…_end` says until when. A connect and a refresh send their look-ups
together with what else they send to the store, and wait for it together. Connections that are open already
are not closed here.
"""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from typing import Any, Final, Protocol

from cluster.errors import StoreError
from cluster.resp.keys import KIND_TOKEN, KIND_USER
from cluster.resp.router import Router
from cluster.resp.scripts import REVOKE

#: Nothing is revoked or blocked for longer; a token that lasts longer is to be replaced by then.
MAXIMUM_SECONDS: Final = 10 * 365 * 86_400


class TokenClaims(Protocol):
    """What is looked up of a token; see `cluster.auth.Claims`."""

    @property
    def user(self) -> str: ...

    @property
    def token_id(self) -> str: ...

    @property
    def issued_at(self) -> float: ...

    @property
    def has_token(self) -> bool: ...


class Revocations:
    """What is revoked and blocked.

    Args:
        prefix: as `cluster.resp.keys.key_prefix` makes it.
    """

    def __init__(self, router: Router, *, prefix: str) -> None:
        self._router = router
        self._prefix = prefix

    # --- at a connect or refresh ---------------------------------------------------------------

    def look_up(self, claims: TokenClaims) -> asyncio.Future[str] | None:
        """Send the look-ups of a token; nothing is awaited before they are sent.

        Returns:
            A future of the reason of a refusal, "revoked", "blocked" or "" for none, or of a `StoreError`;
            None if there is nothing to look up: an anonymous user with a token without an id.
        """
        keys: list[tuple[str, tuple[str, ...]]] = []
        if claims.user:
            keys.append((self._user_key(claims.user), ("blocked_end", "issued", "issued_end")))
        if claims.token_id:
            keys.append((self._token_key(claims.token_id), ("revoked_end",)))
        if not keys:
            return None
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        found: dict[str, bytes | None] = {}
        waiting = len(keys)

        def done(names: tuple[str, ...], reply: Any) -> None:
            nonlocal waiting
            waiting -= 1
            if answer.done():
                return
            if isinstance(reply, StoreError):
                answer.set_exception(reply)
            else:
                found.update(zip(names, reply, strict=True))
                if not waiting:
                    answer.set_result(_reason(claims, found))

        for key, names in keys:
            self._router.submit(key, ("HMGET", key, *names), partial(done, names))
        return answer

    # --- changes ---------------------------------------------------------------------------------

    async def revoke_token(self, token_id: str, *, seconds: float) -> None:
        """Refuse the token with this id (`jti`) for so long; its own expiry is long enough.

        Raises:
            StoreError: and it is unknown whether it is revoked.
        """
        await self._set(self._token_key(token_id), "revoked", 1, seconds)

    async def revoke_tokens_of(self, user: str, *, issued_until: float, seconds: float) -> None:
        """Refuse the user's tokens that were issued at this Unix time or before, or that do not say when.

        Raises:
            StoreError: and it is unknown whether they are revoked.
        """
        await self._set(self._user_key(user), "issued", math.floor(issued_until), seconds)

    async def block_user(self, user: str, *, seconds: float) -> None:
        """Refuse every token of the user for so long.

        Raises:
            StoreError: and it is unknown whether the user is blocked.
        """
        await self._set(self._user_key(user), "blocked", 1, seconds)

    async def unblock_user(self, user: str) -> None:
        """End `block_user`; what is revoked stays so.

        Raises:
            StoreError: and it is unknown whether the user is still blocked.
        """
        await self._set(self._user_key(user), "blocked", 0, 0.0)

    async def _set(self, key: str, field: str, value: int, seconds: float) -> None:
        life_ms = int(min(max(seconds, 0.0), MAXIMUM_SECONDS) * 1000)
        await self._router.call_script(REVOKE, (key,), (field, value, life_ms))

    def _user_key(self, user: str) -> str:
        return f"{{{self._prefix}:{KIND_USER}:{user}}}.access"

    def _token_key(self, token_id: str) -> str:
        return f"{{{self._prefix}:{KIND_TOKEN}:{token_id}}}.revoked"


def _reason(claims: TokenClaims, found: dict[str, bytes | None]) -> str:
    now_ms = time.time() * 1000

    def lasts(name: str) -> bool:
        return int(found.get(name) or 0) > now_ms

    if lasts("blocked_end"):
        return "blocked"
    if lasts("revoked_end"):
        return "revoked"
    if not claims.has_token:
        return ""
    # `iat` has whole seconds mostly, so a token of the same second is revoked too.
    is_older = claims.issued_at < int(found.get("issued") or 0) + 1
    return "revoked" if lasts("issued_end") and is_older else ""
