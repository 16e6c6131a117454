"""The methods of the server API that refuse tokens and users: at every connect and refresh from then on.

The store has the refusal before the method answers; open connections that it concerns are closed by the
workers a moment later.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, Protocol

from cluster.api.request_params import Params
from cluster.errors import (
    BAD_REQUEST,
    INTERNAL,
    INVALID_TOKEN,
    NOT_AVAILABLE,
    PERMISSION_DENIED_CLOSE,
    StoreError,
)
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.control import Control
from cluster.node.user_commands import DisconnectToken, DisconnectUser

log = get_logger()

#: Without a time a refusal holds for as long as a token may live (`cluster.auth`): a year.
_FOR_EVER_SECONDS: Final = 366 * 24 * 3600.0
_REVOKED: Final = "token revoked"


class RevocationStore(Protocol):
    """What is needed of `cluster.sessions.revocations.Revocations`."""

    async def revoke_token(
        self, token_id: str, *, seconds: float = ..., until: float = ...
    ) -> float | None: ...

    async def revoke_tokens_of(
        self, user: str, *, issued_until: float = ..., seconds: float = ..., until: float = ...
    ) -> float | None: ...

    async def block_user(
        self, user: str, *, seconds: float = ..., until: float = ...
    ) -> float | None: ...

    async def unblock_user(self, user: str) -> float | None: ...


class AccessMethods:
    """They get parameters whose types are checked.

    Args:
        revocations: None for a worker without them; the methods answer 108 then.
    """

    def __init__(
        self, control: Control, revocations: RevocationStore | None, counters: Counters
    ) -> None:
        self._control = control
        self._revocations = revocations
        self._counters = counters

    async def revoke_token(self, params: Params) -> dict[str, Any]:
        await self._kept(self._store().revoke_token(params["uid"], **_end(params)))
        command = DisconnectToken(token_id=params["uid"], code=INVALID_TOKEN.code, reason=_REVOKED)
        await self._control.tell("disconnect_token", command)
        return {}

    async def invalidate_user_tokens(self, params: Params) -> dict[str, Any]:
        user, issued_until = params["user"], float(params.get("issued_before") or 0)
        revoking = self._store().revoke_tokens_of(user, issued_until=issued_until, **_end(params))
        done_at = await self._kept(revoking)
        command = DisconnectUser(
            user=user,
            issued_until=issued_until or done_at,
            code=INVALID_TOKEN.code,
            reason=_REVOKED,
        )
        await self._control.tell("disconnect", command)
        return {}

    async def block_user(self, params: Params) -> dict[str, Any]:
        await self._kept(self._store().block_user(params["user"], **_end(params)))
        why = PERMISSION_DENIED_CLOSE
        command = DisconnectUser(user=params["user"], code=why.code, reason=why.reason)
        await self._control.tell("disconnect", command)
        return {}

    async def unblock_user(self, params: Params) -> dict[str, Any]:
        await self._kept(self._store().unblock_user(params["user"]))
        return {}

    def _store(self) -> RevocationStore:
        if self._revocations is None:
            raise NOT_AVAILABLE.fresh()
        return self._revocations

    async def _kept(self, change: Coroutine[Any, Any, float | None]) -> float:
        """Wait until the store has a change; returns when it had it, by its clock.

        Raises:
            ClientError: 107 for an end that has passed; 100 without the store.
        """
        try:
            done_at = await change
        except StoreError as error:
            self._counters.errors["store"] += 1
            log.error("revocation_failed", reason=str(error))
            raise INTERNAL.fresh() from None
        if done_at is None:
            raise BAD_REQUEST.fresh()
        return done_at


def _end(params: Params) -> dict[str, float]:
    """How long a refusal holds, as `RevocationStore` takes it."""
    until = params.get("expire_at", 0)
    return {"until": float(until)} if until else {"seconds": _FOR_EVER_SECONDS}
