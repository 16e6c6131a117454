"""A link to one server.

What keeps its order is never sent again, because a later one may have been done meanwhile. What a server says
that nobody asked for, or that is no answer, ends the connection and is the reason that is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest
from structlog.testing import capture_logs

from cluster.config.redis_url import Address
from cluster.errors import StoreRefused, StoreUnavailable
from cluster.resp.link import Link
from cluster.resp.reconnect_delay import ReconnectDelay
from cluster.resp.scripts import PUBLISH, SESSION_ATTACH, Script
from tests.contract.servers import Server, binary
from tests.harness.waiting import until

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


class Stranger:
    """A server that says the same to everybody, at once or when it is asked, and hangs up."""

    def __init__(self, said: bytes, *, waits: bool, hangs_up: bool = True) -> None:
        self._said = said
        self._waits = waits
        self._hangs_up = hangs_up
        self.calls = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if self._waits:
                await reader.read(65536)
            self.calls += 1
            writer.write(self._said)
            await writer.drain()
            if not self._hangs_up:
                while await reader.read(65536):
                    pass
            writer.close()


@asynccontextmanager
async def listening(stranger: Stranger) -> AsyncIterator[int]:
    listener = await asyncio.start_server(stranger.serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


@asynccontextmanager
async def failing(
    address: Address, *, subscribes: bool, timeout_seconds: float = 2.0
) -> AsyncIterator[tuple[Link, list[Any]]]:
    """A link that comes to nothing; what has been logged with a traceback meanwhile must be nothing."""
    traced: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: traced.append(context))
    link = Link(
        address,
        timeout_seconds=timeout_seconds,
        on_messages=traced.append if subscribes else None,
    )
    with capture_logs() as logs:
        link.start()
        try:
            yield link, logs
        finally:
            await link.aclose()
    assert traced == []
    assert [entry for entry in logs if "exc_info" in entry] == []


HTTP = b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n"
FULL = b"-ERR max number of clients reached\r\n"
PROTECTED = b"-DENIED Redis is running in protected mode\r\n"


@pytest.mark.parametrize("subscribes", [False, True], ids=["commands", "subscriptions"])
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "when asked"])
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (HTTP, 'no Redis or Valkey: Protocol error, got "H" as reply type byte'),
        (bytes(range(128, 256)), "no Redis or Valkey: Protocol error"),
        (FULL, "ERR max number of clients reached"),
        (PROTECTED, "DENIED Redis is running in protected mode"),
    ],
    ids=["HTTP", "garbage", "full", "protected"],
)
async def test_what_a_server_says_instead_of_an_answer_is_the_reason(
    said: bytes, reason: str, waits: bool, subscribes: bool
):
    stranger = Stranger(said, waits=waits)
    async with (
        listening(stranger) as port,
        failing(Address(port=port), subscribes=subscribes) as (link, logs),
    ):
        await until(lambda: stranger.calls > 2, WITHIN_SECONDS, "it tries again")
        assert reason in str(link.failure)
        assert not link.is_up
        assert [entry["event"] for entry in logs] == ["store_unreachable"]
        assert reason in logs[0]["reason"]


@pytest.mark.parametrize("subscribes", [False, True], ids=["commands", "subscriptions"])
async def test_more_answers_than_questions_end_the_connection(subscribes: bool):
    stranger = Stranger(b":1\r\n" * 100, waits=False, hangs_up=False)
    async with (
        listening(stranger) as port,
        failing(Address(port=port), subscribes=subscribes) as (link, _),
    ):
        await until(lambda: stranger.calls > 2, WITHIN_SECONDS, "it tries again")
        assert "has not been asked" in str(link.failure)


async def test_a_server_that_says_what_was_not_asked_later_is_left_with_its_reason():
    server = Forgetful()
    async with linked(server) as link:
        with capture_logs() as logs:
            server.answer = lambda command: b"+OK\r\n" + FULL  # type: ignore[method-assign]
            assert await link.call("PING") == b"OK"
            await until(lambda: not link.is_up, WITHIN_SECONDS, "it is left")
            del server.answer
            await asyncio.wait_for(link.wait_up(), WITHIN_SECONDS)
        assert [entry["event"] for entry in logs] == ["store_lost", "store_reachable"]
        assert "max number of clients" in logs[0]["reason"]


async def test_commands_in_flight_get_the_reason_too():
    server = Forgetful()
    async with linked(server) as link:
        server.answer = lambda command: HTTP  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable, match="no Redis or Valkey"):
            await link.call("PING")
        del server.answer


class HangsUp(Forgetful):
    """A server that ends each connection as soon as it is open."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while not self.sent(b"INFO") and (data := await reader.read(65536)):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                writer.write(self.answer(command))
        self.heard.clear()
        await writer.drain()
        writer.close()


async def test_between_connections_that_do_not_last_there_is_a_longer_and_longer_pause():
    server = HangsUp()
    ups: list[float] = []
    loop = asyncio.get_running_loop()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    link = Link(
        Address(port=listener.sockets[0].getsockname()[1]),
        timeout_seconds=2.0,
        on_up=lambda: ups.append(loop.time()),
        on_messages=lambda messages: None,
    )
    link.start()
    try:
        await until(lambda: len(ups) == 5, WITHIN_SECONDS, "it connects again and again")
    finally:
        await link.aclose()
        listener.close()
    # Half of 50, 100, 200 and 400 ms at least.
    assert ups[-1] - ups[0] >= 0.375


def test_after_a_connection_that_has_lasted_there_is_no_pause_and_the_next_is_short():
    delay = ReconnectDelay()
    for _ in range(10):
        assert 0.025 <= delay.after(1.0) <= 1.0
    assert delay.after_failure() >= 0.5
    assert delay.after(3600.0) == 0.0
    assert delay.after_failure() <= 0.05


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".example", ".example", "a\0b"])
async def test_a_host_that_is_no_name_ends_no_attempts(host: str):
    async with failing(Address(host, 6379), subscribes=False) as (link, logs):
        await until(lambda: bool(logs), WITHIN_SECONDS, "the attempt has failed")
        assert link.failure is not None
        link.failure = None
        await until(lambda: link.failure is not None, WITHIN_SECONDS, "it tries again")


async def test_an_unknown_error_is_logged_once_and_the_attempts_go_on():
    attempts = 0

    class Broken(Address):
        def tls_context(self) -> None:
            nonlocal attempts
            attempts += 1
            raise RuntimeError("a fault of ours")

    link = Link(Broken(port=1), timeout_seconds=2.0)
    with capture_logs() as logs:
        link.start()
        await until(lambda: attempts > 3, WITHIN_SECONDS, "it tries again")
        await link.aclose()
    assert [entry["event"] for entry in logs] == ["store_connect_failed", "store_unreachable"]
    assert "a fault of ours" in str(link.failure)


async def test_a_real_server_that_is_full_is_named(tmp_path: Path):
    with Server(str(binary("valkey")), tmp_path / "full") as server, server.client() as first:
        first.ping()
        first.config_set("maxclients", 1)
        for subscribes in (False, True):
            async with failing(Address(port=server.port), subscribes=subscribes) as (link, logs):
                for _ in range(5):
                    link.failure = None
                    await until(
                        lambda link=link: link.failure is not None,  # type: ignore[misc]
                        WITHIN_SECONDS,
                        "it tries again",
                    )
                    assert "max number of clients reached" in str(link.failure)
                assert len(logs) == 1
