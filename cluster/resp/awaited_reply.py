"""A reply that comes by a callback, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

#: Gets the reply that hiredis parsed, or the error that came instead of it.
Done = Callable[[Any], None]


async def wait_for(submit: Callable[[Done], None]) -> Any:
    """Turn a callback into an awaitable; an error that comes as the reply is raised."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(reply: Any) -> None:
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    submit(done)
    return await future
