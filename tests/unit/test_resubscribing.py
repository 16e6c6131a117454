"""A link for subscriptions comes back with any number of channels, and no turn of the loop does them all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import hiredis
import pytest

from cluster.errors import StoreUnavailable
from cluster.resp import link as link_module
from cluster.resp import subscriptions as subscriptions_module
from cluster.resp.discovery import SLOTS, Master
from cluster.resp.link import Link
from cluster.resp.router import Router
from tests.harness.waiting import until

WITHIN_SECONDS = 30
CHANNELS = 5_000
#: More than a link may leave unanswered of what it subscribes to again; see `cluster.resp.portions`.
PORTION = 512


class Answering(asyncio.Protocol):
    """One connection to a `Subscribing`."""

    def __init__(self, server: Subscribing) -> None:
        self._server = server
        self._parser = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._server.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while (command := self._parser.gets()) is not False:
            self._server.heard(self, command)


class Subscribing:
    """A server that answers what subscribes, or keeps the answers back."""

    def __init__(self) -> None:
        self.connections: list[Answering] = []
        self.sent: Counter[bytes] = Counter()
        self.order: list[bytes] = []
        self.subscribed: set[bytes] = set()
        self.refuses: Callable[[bytes], bool] = lambda channel: False
        self._kept: list[tuple[Answering, bytes]] | None = None

    def forget(self) -> None:
        self.sent.clear()
        self.order.clear()
        self.subscribed.clear()

    def keep_back(self) -> None:
        self._kept = []

    def go_on(self) -> None:
        kept, self._kept = self._kept, None
        for connection, answer in kept or ():
            connection.transport.write(answer)

    def heard(self, connection: Answering, command: list[bytes]) -> None:
        name = command[0].upper()
        if name in (b"SSUBSCRIBE", b"SUNSUBSCRIBE"):
            self._subscribes(connection, name.lower(), command[1])
        elif name == b"INFO":
            info = b"role:master\r\nrun_id:x\r\n"
            connection.transport.write(b"$%d\r\n%b\r\n" % (len(info), info))
        else:
            connection.transport.write(b"+OK\r\n")

    def _subscribes(self, connection: Answering, kind: bytes, channel: bytes) -> None:
        answer = b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (
            len(kind),
            kind,
            len(channel),
            channel,
        )
        if kind == b"sunsubscribe":
            self.subscribed.discard(channel)
        else:
            self.sent[channel] += 1
            self.order.append(channel)
            if self.refuses(channel):
                answer = b"-NOPERM no permissions\r\n"
            else:
                self.subscribed.add(channel)
        if self._kept is None:
            connection.transport.write(answer)
        else:
            self._kept.append((connection, answer))


@asynccontextmanager
async def served(server: Subscribing) -> AsyncIterator[Router]:
    listener = await asyncio.get_running_loop().create_server(
        lambda: Answering(server), "127.0.0.1", 0
    )
    port = listener.sockets[0].getsockname()[1]
    router = Router([f"redis://127.0.0.1:{port}"], timeout_seconds=5.0)
    try:
        await router.start()
        yield router
    finally:
        await router.aclose()
        listener.close()


def keys(length: int = 100) -> list[str]:
    return ["{ws:0:c:" + str(number).zfill(length) + "}.pub" for number in range(CHANNELS)]


async def subscribe_all(router: Router, names: list[str], resumed: list[str] | None = None) -> None:
    for number, key in enumerate(names):
        on_resumed = (lambda name: None) if resumed is None else resumed.append
        router.subscriptions.subscribe(key, key, lambda *_: None, on_resumed)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await all_confirmed(router)


async def all_confirmed(router: Router) -> None:
    await until(lambda: router.subscriptions.unconfirmed == 0, WITHIN_SECONDS, "all are confirmed")


async def lose(server: Subscribing, router: Router) -> None:
    """End the link for subscriptions; returns when there is another and it has begun to subscribe."""
    server.forget()
    router.shards[0].subscriptions.reset()
    await until(lambda: bool(server.sent), WITHIN_SECONDS, "it begins to subscribe again")


async def test_a_link_comes_back_with_more_channels_than_may_wait_unsent(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(link_module, "_HIGH_WATER_BYTES", 1024 * 1024)
    server = Subscribing()
    async with served(server) as router:
        resumed: list[str] = []
        names = keys(2_000)
        await subscribe_all(router, names, resumed)
        assert resumed == []
        connections = len(server.connections)
        await lose(server, router)
        await all_confirmed(router)
        assert len(server.connections) == connections + 1
        assert sorted(resumed) == names
        assert server.sent == Counter(key.encode() for key in names)


async def test_the_next_portion_waits_for_the_answers_to_the_last_and_is_sent_once(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(subscriptions_module, "_RETRY_SECONDS", -1.0)
    server = Subscribing()
    async with served(server) as router:
        await subscribe_all(router, keys())
        server.keep_back()
        await lose(server, router)
        await until(lambda: server.sent.total() == PORTION, WITHIN_SECONDS, "one portion is sent")
        for _ in range(50):
            router.subscriptions.retry_unconfirmed()
            router.subscriptions.slots_moved()
            await asyncio.sleep(0)
        assert server.sent.total() == PORTION
        assert router.subscriptions.unconfirmed == CHANNELS
        server.go_on()
        await all_confirmed(router)
        assert server.sent == Counter(key.encode() for key in keys())


async def test_no_turn_of_the_loop_sends_them_all(monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.get_running_loop()
    per_turn: Counter[int] = Counter()
    turn = 0

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(next_turn)

    def counted(self: Link, args: tuple[str, ...]) -> None:
        per_turn[turn] += 1
        send(self, args)

    send = Link.send
    server = Subscribing()
    async with served(server) as router:
        await subscribe_all(router, keys())
        monkeypatch.setattr(Link, "send", counted)
        next_turn()
        await lose(server, router)
        await all_confirmed(router)
        assert per_turn.total() == CHANNELS
        assert max(per_turn.values()) <= 2 * PORTION


async def test_slots_that_move_take_their_channels_along_in_portions():
    old, new = Subscribing(), Subscribing()
    async with served(old) as router, served(new) as other:
        await subscribe_all(router, keys())
        new.keep_back()
        addresses = [one.shards[0].address for one in (router, other)]
        ranges = (range(SLOTS // 2), range(SLOTS // 2, SLOTS))
        router._use([Master(a, (r,)) for a, r in zip(addresses, ranges, strict=True)])
        moved = {key.encode() for key in keys() if router.shard_of(key) is router.shards[1]}
        assert len(moved) > 2 * PORTION
        await until(lambda: new.sent.total() == PORTION, WITHIN_SECONDS, "one portion is sent")
        router.subscriptions.slots_moved()
        new.go_on()
        await all_confirmed(router)
        assert new.sent == Counter(moved)
        assert old.sent.total() == CHANNELS


async def test_a_channel_that_is_left_while_it_waits_is_not_subscribed():
    server = Subscribing()
    async with served(server) as router:
        await subscribe_all(router, keys())
        server.keep_back()
        await lose(server, router)
        left, again = keys()[-100:-50], keys()[-50:]
        for key in (*left, *again):
            waiting = router.subscriptions.subscribe(key, key, lambda *_: None)
            router.subscriptions.unsubscribe(key)
            assert isinstance(waiting.exception(), StoreUnavailable)
        futures = [router.subscriptions.subscribe(key, key, lambda *_: None) for key in again]
        assert not any(router.subscriptions.is_confirmed(key) for key in (*left, *again))
        server.go_on()
        await asyncio.wait_for(asyncio.gather(*futures), WITHIN_SECONDS)
        await all_confirmed(router)
        wanted = {key.encode() for key in keys()} - {key.encode() for key in left}
        await until(
            lambda: server.subscribed == wanted, WITHIN_SECONDS, "only those are subscribed"
        )


async def test_a_link_that_breaks_amid_its_portions_comes_back_whole():
    server = Subscribing()
    async with served(server) as router:
        resumed: list[str] = []
        await subscribe_all(router, keys(), resumed)
        for _ in range(3):
            server.keep_back()
            await lose(server, router)
            server.go_on()
            await until(lambda: len(server.subscribed) > PORTION, WITHIN_SECONDS, "it goes on")
        server.forget()
        router.shards[0].subscriptions.reset()
        await until(lambda: len(server.subscribed) == CHANNELS, WITHIN_SECONDS, "all are back")
        await all_confirmed(router)
        assert set(resumed) == set(keys())


async def test_what_is_refused_makes_room_and_is_asked_for_again(monkeypatch: pytest.MonkeyPatch):
    server = Subscribing()
    async with served(server) as router:
        await subscribe_all(router, keys())
        refused = {key.encode() for key in keys()[::2]}
        server.refuses = lambda channel: channel in refused
        await lose(server, router)
        await until(
            lambda: router.subscriptions.unconfirmed == len(refused), WITHIN_SECONDS, "the others"
        )
        server.refuses = lambda channel: False
        monkeypatch.setattr(subscriptions_module, "_RETRY_SECONDS", -1.0)
        router.subscriptions.retry_unconfirmed()
        await all_confirmed(router)
        assert len(server.subscribed) == CHANNELS


async def test_neither_a_new_channel_nor_a_canary_waits_behind_the_others():
    server = Subscribing()
    async with served(server) as router:
        await subscribe_all(router, keys())
        canary = "{ws:0:i:canary}.pub"
        await router.subscriptions.subscribe(canary, "canary", lambda *_: None, goes_first=True)
        server.keep_back()
        await lose(server, router)
        assert server.order[0] == canary.encode()
        await until(lambda: server.sent.total() >= PORTION, WITHIN_SECONDS, "one portion is sent")
        new = "{ws:0:c:new}.pub"
        router.subscriptions.subscribe(new, "new", lambda *_: None)
        await until(lambda: server.sent[new.encode()] == 1, WITHIN_SECONDS, "it does not wait")
        server.go_on()
        await all_confirmed(router)
