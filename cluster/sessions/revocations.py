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
        waiting = bool(claims.user) + bool(claims.token_id)
        if not waiting:
            return None
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        reason = ""

        def done(found: str | StoreError) -> None:
            nonlocal reason, waiting
            waiting -= 1
            if answer.done():
                return
            if isinstance(found, StoreError):
                answer.set_exception(found)
                return
            if reason != "blocked":
                # Whichever answers first: being blocked says more than a token that is revoked.
                reason = found or reason
            if not waiting:
                answer.set_result(reason)

        if claims.user:
            self._router.run_script(
                ACCESS,
                (self._user_key(claims.user),),
                (),
                lambda reply: done(_reason_of_user(claims, reply)),
            )
        if claims.token_id:
            # It ends with its key, so the store's clock decides.
            key = self._token_key(claims.token_id)
            self._router.submit(
                key, ("HGET", key, "revoked_end"), lambda reply: done(_reason_of_token(reply))
            )
        return answer

    # --- changes ---------------------------------------------------------------------------------
    #
    # They take for how long, in seconds, or `until` when: a Unix time, for which the store's clock counts.
    # They return the time at which the store did it, or None if `until` had passed; then nothing is changed.

    async def revoke_token(
        self, token_id: str, *, seconds: float = MAXIMUM_SECONDS, until: float = 0.0
    ) -> float | None:
        """Refuse the token with this id (`jti`) for so long; its own expiry is long enough.

        Raises:
            StoreError: and it is unknown whether it is revoked.
        """
        return await self._set(self._token_key(token_id), "revoked", 1, seconds, until)

    async def revoke_tokens_of(
        self,
        user: str,
        *,
        issued_until: float = 0.0,
        seconds: float = MAXIMUM_SECONDS,
        until: float = 0.0,
    ) -> float | None:
        """Refuse the user's tokens that were issued at this Unix time or before, or that do not say when.

        Args:
            issued_until: 0 is now.

        Raises:
            StoreError: and it is unknown whether they are revoked.
        """
        value = math.floor(issued_until) if issued_until else ""
        return await self._set(self._user_key(user), "issued", value, seconds, until)

    async def block_user(
        self, user: str, *, seconds: float = MAXIMUM_SECONDS, until: float = 0.0
    ) -> float | None:
        """Refuse every token of the user for so long.

        Raises:
            StoreError: and it is unknown whether the user is blocked.
        """
        return await self._set(self._user_key(user), "blocked", 1, seconds, until)

    async def unblock_user(self, user: str) -> float | None:
        """End `block_user`; what is revoked stays so.

        Raises:
            StoreError: and it is unknown whether the user is still blocked.
        """
        return await self._set(self._user_key(user), "blocked", 0, 0.0, 0.0)

    async def _set(
        self, key: str, field: str, value: int | str, seconds: float, until: float
    ) -> float | None:
        life_ms = int(min(max(seconds, 0.0), MAXIMUM_SECONDS) * 1000)
        args = (field, value, life_ms, int(until * 1000))
        done_at_ms = await self._router.call_script(REVOKE, (key,), args)
        return None if done_at_ms is None else int(done_at_ms) / 1000

    def _user_key(self, user: str) -> str:
        return f"{{{self._prefix}:{KIND_USER}:{user}}}.access"

    def _token_key(self, token_id: str) -> str:
        return f"{{{self._prefix}:{KIND_TOKEN}:{token_id}}}.revoked"


def _reason_of_user(claims: TokenClaims, reply: Any) -> str | StoreError:
    if reply is None:
        return ""
    if isinstance(reply, StoreError):
        return reply
    if reply == b"blocked":
        return "blocked"
    if not claims.has_token:
        return ""
    # `iat` has whole seconds mostly, so a token of the same second is revoked too.
    return "revoked" if claims.issued_at < int(reply) + 1 else ""


def _reason_of_token(reply: Any) -> str | StoreError:
    if isinstance(reply, StoreError):
        return reply
    return "revoked" if int(reply or 0) else ""
