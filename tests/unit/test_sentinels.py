"""Sentinels that do not answer, beside one that does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from cluster.config.sentinel_url import SentinelAddress
from cluster.errors import StoreUnavailable
from cluster.resp.discovery import Master
from cluster.resp.router import Router
from cluster.resp.sentinel import SentinelDiscovery
from cluster.resp.shard import Shard
from tests.harness.processes import free_ports

#: Of a question that took eleven times as long as one attempt; so long is one attempt in these tests.
WITHIN = 30.0
TIMEOUT = 60.0

MASTER = (
    *("name", "main", "ip", "127.0.0.1", "port", "7", "flags", "master", "runid", "x"),
    *("num-slaves", "0", "num-other-sentinels", "1", "quorum", "1"),
)


class FakeSentinel:
    """Counts who connects; it names one master, or says nothing at all."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self.connections = 0
        self._is_silent = is_silent

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while words := await _command(reader):
                if self._is_silent:
                    continue
                writer.write(_masters() if words[0].upper() == b"SENTINEL" else b"+OK\r\n")
        writer.close()

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    words = []
    for _ in range(int((await reader.readline() or b"*0")[1:])):
        length = int((await reader.readline())[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


def _masters() -> bytes:
    words = "".join(f"${len(word)}\r\n{word}\r\n" for word in MASTER)
    return f"*1\r\n%{len(MASTER) // 2}\r\n{words}".encode()


@contextlib.contextmanager
def host_that_is_off() -> Iterator[int]:
    """A port that answers no SYN, because its backlog is full."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


def discovery_of(*ports: int, name: str = "main") -> SentinelDiscovery:
    address = SentinelAddress(tuple(("127.0.0.1", port) for port in ports), name)
    return SentinelDiscovery(address, timeout_seconds=TIMEOUT)


async def test_a_sentinel_that_answers_nothing_does_not_hide_the_next():
    silent, good = FakeSentinel(is_silent=True), FakeSentinel()
    async with silent.listening() as first, good.listening() as second:
        async with asyncio.timeout(WITHIN):
            [master] = await discovery_of(first, second).masters(())
    assert master.address.port == 7
    assert silent.connections == 1


async def test_a_sentinel_whose_host_is_off_does_not_hide_the_next():
    with host_that_is_off() as first:
        async with FakeSentinel().listening() as second, asyncio.timeout(WITHIN):
            [master] = await discovery_of(first, second).masters(())
    assert master.address.port == 7


async def test_the_first_of_several_sentinels_that_answer_is_believed():
    first, second = FakeSentinel(), FakeSentinel()
    async with first.listening() as one, second.listening() as two:
        await discovery_of(one, two).masters(())
    assert (first.connections, second.connections) == (1, 0)


async def test_each_sentinel_is_asked_once_and_its_reason_is_named():
    silent, good = FakeSentinel(is_silent=True), FakeSentinel()
    closed = free_ports(1)
    with host_that_is_off() as off:
        async with silent.listening() as mute, good.listening() as port:
            async with asyncio.timeout(WITHIN):
                with pytest.raises(StoreUnavailable, match="no master other") as caught:
                    await discovery_of(off, mute, closed, port, name="other").masters(())
    reasons = str(caught.value)
    assert f"127.0.0.1:{port} knows main" in reasons
    assert f"127.0.0.1:{mute}: no answer within 2 s" in reasons
    assert f"127.0.0.1:{off}: no answer within 2 s" in reasons
    assert f"127.0.0.1:{closed}: Error" in reasons
    assert (silent.connections, good.connections) == (1, 1)


class Late(SentinelDiscovery):
    """Its sentinel is started after the first question."""

    def __init__(self, port: int, stack: contextlib.AsyncExitStack) -> None:
        address = SentinelAddress((("127.0.0.1", port),), "main")
        super().__init__(address, timeout_seconds=TIMEOUT)
        self._started = lambda: stack.enter_async_context(FakeSentinel().listening(port))
        self.failures = 0

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        try:
            return await super().masters(shards)
        except StoreUnavailable:
            self.failures += 1
            await self._started()
            raise


async def test_a_sentinel_that_is_started_a_moment_later_is_waited_for():
    async with contextlib.AsyncExitStack() as stack:
        discovery = Late(free_ports(1), stack)
        router = Router((), timeout_seconds=WITHIN, discovery=discovery)
        start = asyncio.create_task(router.start())
        try:
            while not router.shards and not start.done():
                await asyncio.sleep(0.01)
            assert [shard.address.port for shard in router.shards] == [7]
            assert discovery.failures == 1
        finally:
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            await router.aclose()
