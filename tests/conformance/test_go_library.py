"""Odd commands are answered as the Go library answers them, which Centrifugo is built on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import aiohttp
import pytest
from centrifuge.protocol import client_pb2
from google.protobuf.json_format import MessageToDict

from tests.conformance.go_sdk import LIBRARY, go_program
from tests.harness.cluster import Cluster
from tests.harness.processes import free_ports
from tests.harness.store import Store
from tests.harness.waiting import until
from tests.unit.test_protobuf import replies, sized

WITHIN_SECONDS: Final = 20.0
CONFIG: dict[str, Any] = {}
LAST: Final = 99
CONNECT: Final = b'{"id":1,"connect":{}}'
# Both answer it, whatever came before.
MARK: Final = b'{"id":%d,"unsubscribe":{"channel":"none"}}' % LAST

CONNECT_MESSAGE: Final = client_pb2.Command(id=1, connect={})
MARK_MESSAGE: Final = client_pb2.Command(id=LAST, unsubscribe={"channel": "none"})
CONNECTS: Final = (CONNECT, sized(CONNECT_MESSAGE))

#: Sent after a connect.
JSON: Final = {
    "ping": b'{"id":2,"ping":{}}',
    "ping without an id": b'{"ping":{}}',
    "ping with id 0": b'{"id":0,"ping":{}}',
    "ping that is null": b'{"id":2,"ping":null}',
    "ping that is a number": b'{"id":2,"ping":1}',
    "ping with a parameter": b'{"id":2,"ping":{"channel":"a"}}',
    "ping beside rpc": b'{"id":2,"ping":{},"rpc":{"data":1}}',
    "ping beside sub_refresh": b'{"id":2,"sub_refresh":{},"ping":{}}',
    "ping beside connect": b'{"id":2,"ping":{},"connect":{}}',
    "ping beside a subscribe that is null": b'{"id":2,"ping":{},"subscribe":null}',
    "an unknown method": b'{"id":2,"dance":{}}',
    "an id alone": b'{"id":2}',
    "rpc without an id": b'{"rpc":{"data":1}}',
    "a pong that nobody awaits": b"{}",
    "a second connect": b'{"id":2,"connect":{}}',
    "an id that is negative": b'{"id":-1,"rpc":{}}',
    "an id that is text": b'{"id":"2","rpc":{}}',
    "an id that is too large": b'{"id":4294967296,"rpc":{}}',
    "no JSON": b"ping",
    "a list": b"[]",
}
BEFORE: Final = {
    "ping": b'{"id":1,"ping":{}}',
    "ping without an id": b'{"ping":{}}',
    "ping beside rpc": b'{"id":1,"ping":{},"rpc":{}}',
    "rpc": b'{"id":1,"rpc":{}}',
    "a pong": b"{}",
}
PROTOBUF: Final = {
    "ping": client_pb2.Command(id=2, ping={}),
    "ping without an id": client_pb2.Command(ping={}),
    "an id alone": client_pb2.Command(id=2),
    "a second connect": client_pb2.Command(id=2, connect={}),
    "rpc without an id": client_pb2.Command(rpc={}),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the Go library's server."""
    program, reason = go_program(LIBRARY)
    if program is None:
        pytest.skip(reason)
    store, port = Store(tmp_path_factory.mktemp("library")), free_ports(1)
    asyncio.run(store.start())
    options = ("-listen", f"127.0.0.1:{port}", "-redis", f"127.0.0.1:{store.port}")
    process = subprocess.Popen([program, *options])
    try:
        asyncio.run(until(lambda: is_open(port), WITHIN_SECONDS, "the Go library listens"))
        yield f"ws://127.0.0.1:{port}/connection/websocket"
    finally:
        process.terminate()
        process.wait(WITHIN_SECONDS)
        store.kill()


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


async def answers(url: str, *messages: bytes) -> list[tuple[str, int]]:
    """Send the messages; after a connect, what answers it is waited for.

    Returns:
        What came until the connection was closed, or until `LAST` was answered.
    """
    found: list[tuple[str, int]] = []
    is_binary = "protobuf" in url
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:
        for message in messages:
            # After a close; what was answered until then can still be read.
            with contextlib.suppress(aiohttp.ClientConnectionResetError):
                await (ws.send_bytes(message) if is_binary else ws.send_str(message.decode()))
            if message in CONNECTS:
                found += read(await ws.receive(WITHIN_SECONDS))
        while not found or found[-1][1] < LAST:
            found += read(await ws.receive(WITHIN_SECONDS))
    return found


def read(message: aiohttp.WSMessage) -> list[tuple[str, int]]:
    """What each reply is: its method and id, or its error; or the code of a close."""
    if message.type is aiohttp.WSMsgType.CLOSE:
        return [("close", message.data)]
    if message.type is aiohttp.WSMsgType.BINARY:
        # The frame of a server has no mask; `replies` reads whole frames.
        size = len(message.data)
        head = bytes((0x82, size)) if size < 126 else b"\x82\x7e" + size.to_bytes(2, "big")
        documents = [MessageToDict(one) for one in replies(head + message.data)]
    else:
        documents = [json.loads(line) for line in message.data.splitlines()]
    return [one for document in documents for one in [said(document)] if one is not None]


def said(reply: dict[str, Any]) -> tuple[str, int] | None:
    """None for a ping."""
    number = reply.pop("id", 0)
    if "error" in reply:
        return f"error {reply['error']['code']}", number
    return (next(iter(reply)), number) if reply else None


async def compare(cluster: Cluster, library: str, query: str, *messages: bytes) -> None:
    theirs = await answers(library + query, *messages)
    ours = f"ws://127.0.0.1:{cluster.worker_port(0)}/connection/websocket"
    assert await answers(ours + query, *messages) == theirs


@pytest.mark.parametrize("name", JSON)
async def test_after_a_connect(cluster: Cluster, library: str, name: str):
    await compare(cluster, library, "", CONNECT, JSON[name], MARK)


@pytest.mark.parametrize("name", BEFORE)
async def test_before_a_connect(cluster: Cluster, library: str, name: str):
    await compare(cluster, library, "", BEFORE[name])


@pytest.mark.parametrize("name", PROTOBUF)
async def test_after_a_connect_in_protobuf(cluster: Cluster, library: str, name: str):
    messages = (sized(CONNECT_MESSAGE), sized(PROTOBUF[name]), sized(MARK_MESSAGE))
    await compare(cluster, library, "?format=protobuf", *messages)
