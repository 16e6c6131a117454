"""A chat with rooms: history, who is there, a web page, and names that the server checks.

Start it, and open http://127.0.0.1:8000/app/ in two windows:

    ws-cluster up --development --app examples.chat:app

- A client connects with `{"name": "Ann"}` as its data; the name becomes its user.
- Rooms are the channels `room-…`. Each keeps its last messages (in the development configuration for five
  minutes), and a client that comes back gets what it has missed.
- Who is in a room is its presence; joins and leaves tell the page when to ask again.
- A message is at most 500 characters; the server adds its time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from aiohttp import web

import cluster

PAGE: Final = Path(__file__).with_name("chat.html")
LONGEST_NAME: Final = 30
LONGEST_MESSAGE: Final = 500
NAME_NEEDED: Final = 400
TOO_LONG: Final = 401

app = cluster.Application()


@app.connecting
def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer:
    """A client is the name that it gives: replace this by your own way to sign in."""
    name = event.data.get("name") if isinstance(event.data, dict) else None
    if not isinstance(name, str) or not 0 < len(name.strip()) <= LONGEST_NAME:
        raise cluster.ApplicationError(NAME_NEEDED, f"give a name of up to {LONGEST_NAME} letters")
    return cluster.ConnectAnswer(user=name.strip())


@app.subscribing
def subscribing(client: cluster.ApplicationClient, event: cluster.Subscribing) -> bool:
    """Rooms are open to all; there is nothing else."""
    return event.channel.startswith("room-")


@app.publishing
def publishing(
    client: cluster.ApplicationClient, event: cluster.Publishing
) -> cluster.PublishAnswer | bool:
    """A message is text, and only those who are in the room may write."""
    if event.channel not in client.channels:
        return False
    text = event.data
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_MESSAGE:
        raise cluster.ApplicationError(TOO_LONG, f"write 1 to {LONGEST_MESSAGE} letters")
    return cluster.PublishAnswer({"text": text, "at": round(time.time())})


@app.rpc("recent")
async def recent(client: cluster.ApplicationClient, room: str) -> list[dict[str, object]]:
    """The last messages of a room, oldest first."""
    if room not in client.channels:
        raise cluster.ApplicationError(NAME_NEEDED, "enter the room first")
    kept = await app.history(room, limit=50, reverse=True)
    return [
        {"user": one.publisher.user, **one.data}
        for one in reversed(kept.publications)
        if one.publisher
    ]


@app.rpc("people")
async def people(client: cluster.ApplicationClient, room: str) -> dict[str, list[str]]:
    """The names of those who are in a room."""
    if room not in client.channels:
        raise cluster.ApplicationError(NAME_NEEDED, "enter the room first")
    return {"people": sorted({one.user for one in await app.presence(room)})}


async def page(request: web.Request) -> web.FileResponse:
    """The web page."""
    return web.FileResponse(PAGE)


app.http.router.add_get("/", page)
