"""The fault proxy injects each of its faults and restores the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.harness.proxy import FaultProxy

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SILENCE = 0.3


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """A proxy before a server that answers every line with itself."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, FaultProxy(server.sockets[0].getsockname()[1]) as standing:
        yield standing


async def dial(proxy: FaultProxy) -> Pipe:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def echoed(pipe: Pipe, line: bytes, within: float = 5.0) -> bytes:
    pipe[1].write(line)
    async with asyncio.timeout(within):
        return await pipe[0].readline()


async def is_silent(pipe: Pipe) -> bool:
    try:
        await echoed(pipe, b"anybody?\n", SILENCE)
    except TimeoutError:
        return True
    return False


async def test_a_healthy_proxy_passes_both_ways(proxy: FaultProxy):
    assert await echoed(await dial(proxy), b"one\n") == b"one\n"


async def test_a_slow_network_delays_and_keeps_the_order(proxy: FaultProxy):
    pipe = await dial(proxy)
    proxy.slow_down(0.2)
    started = asyncio.get_running_loop().time()
    pipe[1].write(b"one\n")
    assert await echoed(pipe, b"two\n") == b"one\n"
    assert await pipe[0].readline() == b"two\n"
    assert asyncio.get_running_loop().time() - started >= 0.39


async def test_a_black_hole_is_silent_and_delivers_once_healed(proxy: FaultProxy):
    pipe = await dial(proxy)
    proxy.black_hole()
    assert await is_silent(pipe)
    assert await is_silent(await dial(proxy))
    await proxy.heal()
    assert await pipe[0].readline() == b"anybody?\n"
    assert await echoed(await dial(proxy), b"new\n") == b"new\n"


async def test_a_half_open_connection_stays_dead_while_new_ones_work(proxy: FaultProxy):
    pipe = await dial(proxy)
    assert await echoed(pipe, b"one\n") == b"one\n"
    proxy.half_open()
    assert await is_silent(pipe)
    assert await echoed(await dial(proxy), b"new\n") == b"new\n"
    await proxy.heal()
    assert await is_silent(pipe)
    assert proxy.swallowed["reply"] == 0


async def test_a_deaf_connection_still_carries_requests(proxy: FaultProxy):
    pipe = await dial(proxy)
    assert await echoed(pipe, b"one\n") == b"one\n"
    proxy.deafen()
    assert await is_silent(pipe)
    assert proxy.swallowed == {"reply": len(b"anybody?\n")}


async def test_a_cut_resets_and_refuses_until_healed(proxy: FaultProxy):
    pipe = await dial(proxy)
    await echoed(pipe, b"one\n")
    await proxy.cut()
    with pytest.raises(ConnectionError):
        assert await echoed(pipe, b"two\n")
    with pytest.raises(ConnectionError):
        await dial(proxy)
    await proxy.heal()
    assert await echoed(await dial(proxy), b"new\n") == b"new\n"
