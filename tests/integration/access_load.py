"""What an application, a backend and clients do while dashboards are tried: right things, and wrong ones.

Rule: every family that a panel of the page ws-applications shows grows, those of failures included.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt

from tests.harness.client import Client, NoReply, ReplyError

API_KEY = "a key of the server API for tests of dashboards"
TOKEN_KEY = "a key of tokens for the tests of the dashboards"
_OTHER_KEY = "another key of tokens for the tests of dashboards"
_PAUSE_SECONDS = 0.2
_APPLICATION = """
import asyncio

import cluster

app = cluster.Application()


@app.rpc("late")
async def late(client, data):
    await asyncio.sleep(0.3)
    return data


@app.rpc("fail")
async def fail(client, data):
    raise KeyError("a mistake")
"""
CONFIG: dict[str, Any] = {
    "client": {"token": {"hmac_secret_key": TOKEN_KEY}},
    "http_api": {"key": API_KEY},
    "app": {"target": "loaded:app", "handler_timeout": "500ms"},
}


def write_application(folder: Path) -> Path:
    """Write the module of the application; returns its folder."""
    modules = folder / "modules"
    modules.mkdir()
    (modules / "loaded.py").write_text(_APPLICATION)
    return modules


@contextlib.asynccontextmanager
async def access_load(port: int) -> AsyncIterator[None]:
    """Call, publish, refuse and refresh for the length of the block, at the port for clients."""
    client = await Client(port, name="caller").start()
    task = asyncio.create_task(_repeat(client, port))
    try:
        yield
        # What ended it is why nothing was shown.
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def _repeat(client: Client, port: int) -> None:
    while True:
        for method, params in (
            ("rpc", {"method": "late", "data": 1}),
            ("rpc", {"method": "fail", "data": 1}),
            ("subscribe", {"channel": "$not-mine"}),
        ):
            with contextlib.suppress(ReplyError, NoReply):
                await client.call(method, params)
        for key, channel in ((API_KEY, "of-a-backend"), (API_KEY, "none:x"), ("wrong", "x")):
            with contextlib.suppress(OSError, http.client.HTTPException):
                await asyncio.to_thread(_publish, port, key, channel)
        await _fail_to_refresh(port)
        await asyncio.sleep(_PAUSE_SECONDS)


def _publish(port: int, key: str, channel: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        body = json.dumps({"channel": channel, "data": {}})
        connection.request("POST", "/api/publish", body, {"X-API-Key": key})
        connection.getresponse().read()
    finally:
        connection.close()


def _token(key: str) -> str:
    return jwt.encode({"sub": "42", "exp": int(time.time()) + 3600}, key, "HS256")


async def _fail_to_refresh(port: int) -> None:
    client = Client(port, connect_request={"token": _token(TOKEN_KEY)})
    try:
        with contextlib.suppress(ReplyError, NoReply, TimeoutError):
            await client.start(5)
            await client.call("refresh", {"token": _token(_OTHER_KEY)})
    finally:
        await client.close()
