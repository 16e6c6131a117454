"""How many sessions the whole cluster has, and the end of those that have expired."""

from __future__ import annotations

import asyncio

from cluster.resp.keys import KIND_SESSIONS
from cluster.resp.router import Router
from cluster.resp.scripts import SESSION_SWEEP
from cluster.sessions import BUCKETS

_SWEEP_BATCH = 1000


class SessionStatistics:
    """The store's numbers about all sessions of the cluster, and the sweep of expired ones.

    Every supervisor runs it; an expired session is counted once, by the one that sweeps it.
    """

    def __init__(self, router: Router, *, prefix: str) -> None:
        self._router = router
        self._prefix = prefix

    async def read(self) -> dict[str, float]:
        """Sweep and count.

        Returns:
            `tracked`, `created`, `resumed`, `expired` over all buckets.

        Raises:
            StoreError: when the store does not answer.
        """
        replies = await asyncio.gather(
            *(
                self._sweep(f"{{{self._prefix}:{KIND_SESSIONS}:{bucket}}}")
                for bucket in range(BUCKETS)
            )
        )
        names = ("tracked", "created", "resumed", "expired")
        return {
            name: float(sum(numbers))
            for name, numbers in zip(names, zip(*replies, strict=True), strict=True)
        }

    async def _sweep(self, tag: str) -> list[int]:
        reply: list[int] = await self._router.call_script(
            SESSION_SWEEP, (f"{tag}.sessions", f"{tag}.counters"), (_SWEEP_BATCH,)
        )
        return reply
