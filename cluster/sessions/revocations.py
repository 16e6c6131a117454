"""Tokens that have been revoked, and users that are blocked, in the store that all workers share.

Kept in hashes, each for its time: `.access` of a user (`blocked`, and `issued`: a token that was issued at
this Unix time or before is revoked) and `.revoked` of a token's id; `…_end` says until when, by the store's
clock. A connect and a refresh send their look-ups together with what else they send to the store, and wait
for it together. Connections that are open already are not closed here.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final, Protocol

from cluster.errors import StoreError
from cluster.resp.keys import KIND_TOKEN, KIND_USER
from cluster.resp.router import Router
from cluster.resp.scripts import ACCESS, REVOKE

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
        keys: list[str] = []
        if claims.user:
            keys.append(self._user_key(claims.user))
        if claims.token_id:
            keys.append(self._token_key(claims.token_id))
        if not keys:
            return None
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        reason = ""
        waiting = len(keys)

        def done(reply: Any) -> None:
            nonlocal reason, waiting
            waiting -= 1
            if answer.done():
                return
            if isinstance(reply, StoreError):
                answer.set_exception(reply)
                return
            if reply is not None and reason != "blocked":
                # Whichever answers first: being blocked says more than a token that is revoked.
                reason = _reason(claims, reply) or reason
            if not waiting:
                answer.set_result(reason)

        for key in keys:
            self._router.run_script(ACCESS, (key,), (), done)
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


def _reason(claims: TokenClaims, found: bytes) -> str:
    if found in (b"blocked", b"revoked"):
        return found.decode()
    # `iat` has whole seconds mostly, so a token of the same second is revoked too.
    return "revoked" if claims.issued_at < int(found) + 1 else ""
