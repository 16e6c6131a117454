"""A counter that lives in the session: all tabs of a browser share it, whichever workers they are at.

Start it with several workers, and open http://127.0.0.1:8000/app/ in two tabs:

    ws-cluster up --development --workers 4 --app examples.counter:app

The page keeps the id of its session in localStorage, which its tabs share. A click calls the rpc method
`add`, which changes the session's state; the server sends the new state to every tab. Restart the
cluster, or reload the page: the counter goes on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from aiohttp import web

import cluster

PAGE: Final = Path(__file__).with_name("counter.html")
NOT_A_NUMBER: Final = 400

app = cluster.Application()


@app.connecting
def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer | None:
    """Tell the page which worker it has, so that one sees that tabs are at several."""
    if event.user is None:
        return None
    return cluster.ConnectAnswer(data={"worker": os.getpid()})


@app.rpc("add")
async def add(client: cluster.ApplicationClient, data: Any) -> Any:
    """Add a number to the counter of the session; returns its state."""
    if not isinstance(data, int) or abs(data) > 1000:
        raise cluster.ApplicationError(NOT_A_NUMBER, "give a whole number from -1000 to 1000")

    def added(state: Any) -> dict[str, int]:
        return {"count": (state or {"count": 0})["count"] + data}

    return await client.session.change(added)


async def page(request: web.Request) -> web.FileResponse:
    """The web page."""
    return web.FileResponse(PAGE)


app.http.router.add_get("/", page)
