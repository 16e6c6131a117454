"""Eight kept-alive connections that publish, each with one request in flight, and broadcasts.

A client library would cost more than the servers do, so requests are bytes that were made once.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, cast

import aiohttp

from benchmarks.api.api_servers import KEY
from benchmarks.proc import cpu_seconds
from benchmarks.processes import HOST, ServerFailed
from benchmarks.servers import Running, Valkey

CONNECTIONS = 8
CHANNELS = 10_000
DATA = {"text": "x" * 100}
WARM_UP_SECONDS = 0.5
ANSWER_SECONDS = 10.0
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


@dataclass(frozen=True, slots=True)
class Published:
    """What one server did in one window."""

    count: int
    seconds: float
    cpu_seconds: float
    store_cpu_seconds: float

    @property
    def per_core(self) -> float:
        return self.count / self.cpu_seconds


@dataclass(frozen=True, slots=True)
class Broadcast:
    """One broadcast; the turns of the loop are known only of ours."""

    seconds: float
    cpu_seconds: float
    turn_held_ms: float | None
    turn_cpu_ms: float | None


class Publisher(asyncio.Protocol):
    """One connection: sends the request again as soon as its answer is whole."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._answer = b""
        self.count = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        try:
            is_whole = _is_whole(self._answer)
        except ServerFailed as failure:
            self._end(failure)
            return
        if not is_whole:
            return
        if not self._answer.startswith(b"HTTP/1.1 200") or b'"result"' not in self._answer:
            self._end(ServerFailed(f"a publish was refused: {self._answer.decode()}"))
            return
        self.count += 1
        self._answer = b""
        if time.monotonic() < self._until:
            self._transport.write(self._request)
        else:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(ServerFailed("a connection that was kept alive was closed"))

    def _end(self, failure: ServerFailed | None) -> None:
        if self.ended.done():
            return
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)
        self._transport.close()


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(_END_OF_HEAD)
    _, named, rest = (head + b"\r\n").lower().partition(_LENGTH)
    if end and not named:
        raise ServerFailed(f"an answer without a length: {head.decode()}")
    return bool(end) and len(body) >= int(rest.partition(b"\r\n")[0])


def request_of(channel: str) -> bytes:
    body = json.dumps({"channel": channel, "data": DATA}).encode()
    head = (
        f"POST /api/publish HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _count(port: int, channel: str, seconds: float) -> int:
    loop, until = asyncio.get_running_loop(), time.monotonic() + seconds
    publishers = []
    for _ in range(CONNECTIONS):
        _, made = await loop.create_connection(
            lambda: Publisher(request_of(channel), until), HOST, port
        )
        publishers.append(made)
    async with asyncio.timeout(seconds + ANSWER_SECONDS):
        await asyncio.gather(*(one.ended for one in publishers))
    return sum(one.count for one in publishers)


async def publish(running: Running, store: Valkey, channel: str, seconds: float) -> Published:
    """Publish for some seconds, after a warm-up.

    Raises:
        ServerFailed: a publish was refused, or a connection closed.
    """
    [port], [pid] = running.ports, running.watched["server"]
    await _count(port, channel, WARM_UP_SECONDS)
    began = time.monotonic(), cpu_seconds(pid), cpu_seconds(store.process.pid)
    count = await _count(port, channel, seconds)
    ended = time.monotonic(), cpu_seconds(pid), cpu_seconds(store.process.pid)
    return Published(count, *(end - begin for begin, end in zip(began, ended, strict=True)))


async def _call(http: aiohttp.ClientSession, port: int, method: str, params: Any) -> Any:
    url = f"http://{HOST}:{port}/api/{method}"
    async with http.post(url, json=params, headers={"X-API-Key": KEY}) as response:
        answer = await response.json()
    if "result" not in answer:
        raise ServerFailed(f"{method} was refused: {str(answer)[:200]}")
    return answer["result"]


async def _longest_turn(http: aiohttp.ClientSession, port: int) -> tuple[float, float]:
    """Milliseconds since the last call: by the clock without waiting for a core, and of CPU."""
    turn = (await _call(http, port, "rpc", {"method": "longest_turn"}))["data"]
    return turn["held"], turn["cpu"]


async def broadcast(running: Running, *, has_turns: bool) -> Broadcast:
    """Broadcast to all channels once.

    Raises:
        ServerFailed: it was refused, or a response is missing or an error.
    """
    channels = [f"kept:{number}" for number in range(CHANNELS)]
    [port], [pid] = running.ports, running.watched["server"]
    async with aiohttp.ClientSession() as http:
        if has_turns:
            await _longest_turn(http, port)
        began, used = time.monotonic(), cpu_seconds(pid)
        found = await _call(http, port, "broadcast", {"channels": channels, "data": DATA})
        seconds, cpu = time.monotonic() - began, cpu_seconds(pid) - used
        if sum("result" in one for one in found["responses"]) != CHANNELS:
            raise ServerFailed("a broadcast lacks responses")
        turns = await _longest_turn(http, port) if has_turns else (None, None)
    return Broadcast(seconds, cpu, *turns)
