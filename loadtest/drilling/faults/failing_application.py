"""An application whose handlers fail or are slow. The cluster's workers load it; `bad_release` rolls it out."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import cluster

# Of the default of app.handler_timeout, 4 s: slow, and still answered.
_SLOW_SECONDS: Final = 3.0

app = cluster.Application()


@app.rpc("fail")
async def fail(client: cluster.ApplicationClient, data: Any) -> None:
    """Fail as a handler with a mistake does."""
    raise KeyError("a handler that has a mistake")


@app.rpc("slow")
async def slow(client: cluster.ApplicationClient, data: Any) -> str:
    """Answer late."""
    await asyncio.sleep(_SLOW_SECONDS)
    return "late"
