"""An application whose handlers fail or are slow, and the roll that brings it in: a bad release."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import cluster
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.roll import roll

_TARGET: Final = "loadtest.drilling.faults.failing_application:app"
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


def release(injector: FaultInjector) -> None:
    """Roll the application out; the undo rolls it back."""
    environment = injector.environment

    def take_back() -> None:
        environment.write_config({})
        roll(injector)

    injector.afterwards(take_back)
    environment.write_config({"app": {"target": _TARGET}})
    roll(injector)
