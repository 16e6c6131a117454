"""What keeps its order is never sent again, because a later one may have been done meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest

from cluster.config.redis_url import Address
from cluster.errors import StoreRefused
from cluster.resp.link import Link
from cluster.resp.scripts import PUBLISH, SESSION_ATTACH, Script

WITHIN_SECONDS = 10
UNKNOWN = b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
Answer = Callable[[list[bytes]], bytes]


class Forgetful:
    """A server that knows no script when it is asked first, and every one afterwards."""

    def __init__(self) -> None:
        self.heard: list[list[bytes]] = []
        self._has_forgotten = False

    def answer(self, command: list[bytes]) -> bytes:
        self.heard.append(command)
        name = command[0].upper()
        if name == b"EVALSHA" and not self._has_forgotten:
            self._has_forgotten = True
            return UNKNOWN
        return b":1\r\n" if name in (b"EVALSHA", b"EVAL") else b"+OK\r\n"

    def sent(self, name: bytes) -> list[bytes]:
        """The last argument of every command of a name."""
        return [command[-1] for command in self.heard if command[0].upper() == name]


@asynccontextmanager
async def linked(server: Forgetful) -> AsyncIterator[Link]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                writer.write(server.answer(command))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = Link(Address(port=listener.sockets[0].getsockname()[1]), timeout_seconds=2.0)
    link.start()
    try:
        await asyncio.wait_for(link.wait_up(), WITHIN_SECONDS)
        yield link
    finally:
        await link.aclose()
        listener.close()


async def answers(link: Link, script: Script) -> list[Any]:
    """What two runs of a script are answered, sent one after the other."""
    found: list[Any] = []
    both = asyncio.Event()

    def done(reply: Any) -> None:
        found.append(reply)
        if len(found) == 2:
            both.set()

    for number in (b"first", b"second"):
        link.submit_script(script, ("key",), (number,), done)
    await asyncio.wait_for(both.wait(), WITHIN_SECONDS)
    return found


@pytest.mark.parametrize("script", [PUBLISH, SESSION_ATTACH], ids=lambda script: script.name)
async def test_only_what_needs_no_order_is_run_again(script: Script):
    server = Forgetful()
    async with linked(server) as link:
        loaded = server.sent(b"SCRIPT")
        found = await answers(link, script)
    assert server.sent(b"EVALSHA") == [b"first", b"second"]
    if script.keeps_order:
        assert isinstance(found[0], StoreRefused)
        assert found[1] == 1
        assert server.sent(b"EVAL") == []
        assert server.sent(b"SCRIPT") == [*loaded, script.text.encode()], "for those that follow"
    else:
        assert found == [1, 1]
        assert server.sent(b"EVAL") == [b"first"]


class Demoted(Forgetful):
    """A server that answers one command with an error, and everything else as a master does."""

    def __init__(self, error: str) -> None:
        super().__init__()
        self._error = error
        self._is_next = False

    def refuse_next(self) -> None:
        self._is_next = True

    def answer(self, command: list[bytes]) -> bytes:
        if self._is_next and command[0].upper() == b"PEXPIRE":
            self._is_next = False
            return f"-{self._error}\r\n".encode()
        return super().answer(command)


async def refused(link: Link, server: Demoted) -> StoreRefused:
    replies: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    server.refuse_next()
    link.submit(("PEXPIRE", "key", 1000), replies.set_result)
    found = await asyncio.wait_for(replies, WITHIN_SECONDS)
    assert isinstance(found, StoreRefused)
    return found


@pytest.mark.parametrize(
    "error",
    [
        "READONLY You can't write against a read only replica.",
        "ERR Error running script (call to f_1f): @user_script:2: -READONLY You can't",
        "LOADING Valkey is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    ],
    ids=["readonly", "readonly in a script", "loading", "masterdown"],
)
async def test_what_no_master_answers_ends_the_connection_and_another_is_made(error: str):
    server = Demoted(error)
    async with linked(server) as link:
        assert (await refused(link, server)).is_temporary
        assert not link.is_up
        # Where the master is, is asked again: a name or Sentinel may give another address by now.
        await asyncio.wait_for(link.wait_up(), WITHIN_SECONDS)
        assert len(server.sent(b"INFO")) == 2


@pytest.mark.parametrize(
    "error", ["NOREPLICAS Not enough good replicas to write.", "OOM command not allowed", "ERR no"]
)
async def test_what_a_master_may_answer_leaves_the_connection_as_it_is(error: str):
    server = Demoted(error)
    async with linked(server) as link:
        await refused(link, server)
        assert link.is_up
        assert len(server.sent(b"INFO")) == 1
