"""Commands of one key while its slot moves: each is done in its turn or refused, and answered once."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
import pytest

from cluster.config.redis_url import Address
from cluster.errors import StoreRefused, StoreUnavailable
from cluster.resp.discovery import Master
from cluster.resp.link import Done, Link
from cluster.resp.redirects import Redirects
from cluster.resp.router import Router
from cluster.resp.shard import Shard
from tests.harness.waiting import until

WITHIN = 30.0


class Node:
    """Does what it is sent when it is told to, in order, or redirects it to the owner of the slot."""

    def __init__(self, name: str, store: Store) -> None:
        self.address = Address(host=name)
        self.commands = self
        self.inbox: deque[tuple[int, Done]] = deque()
        self._store = store
        self.is_prompt = False

    async def wait_up(self) -> None:
        """It is up."""

    def take(self, number: int, done: Done) -> None:
        self.inbox.append((number, done))
        if self.is_prompt:
            asyncio.get_running_loop().call_soon(self.answer)

    def answer(self) -> None:
        if not self.inbox:
            return
        number, done = self.inbox.popleft()
        if self._store.owner is self:
            self._store.done.append(number)
            done(b"OK")
        else:
            done(StoreRefused(f"MOVED 1 {self._store.owner.address}"))


class Store:
    """Three nodes, the owner of the only slot, and the owner that the client knows of."""

    def __init__(self) -> None:
        self.nodes = {name: Node(name, self) for name in "abc"}
        self.owner = self.known = self.nodes["a"]
        self.done: list[int] = []
        self.answers: dict[int, Any] = {}
        self.redirects = Redirects(self, timeout_seconds=WITHIN)
        self.sent = 0

    def shard_of(self, key: str) -> Shard:
        return cast(Shard, self.known)

    def shard_at(self, address: Address) -> Shard:
        return cast(Shard, self.nodes[address.host])

    def refresh(self) -> None:
        """Another node tells the map, when the test says so."""

    def use_map(self) -> None:
        self.known = self.owner
        self.redirects.order.disturbed()

    def submit(self, key: str = "k") -> None:
        self.sent += 1
        number = self.sent

        def send(link: Link, follows_ask: bool, answered: Done) -> None:
            cast(Node, link).take(number, answered)

        def done(reply: Any) -> None:
            assert number not in self.answers, "answered once"
            self.answers[number] = reply

        self.redirects.submit(key, send, done, keeps_order=True)

    def be_prompt(self) -> None:
        for node in self.nodes.values():
            node.is_prompt = True
            for _ in range(len(node.inbox)):
                node.answer()

    async def until_done(self, *numbers: int) -> None:
        await until(lambda: set(numbers) <= set(self.done), WITHIN, f"{numbers} are done")

    async def until_answered(self) -> None:
        await until(lambda: len(self.answers) == self.sent, WITHIN, "everything is answered")

    def refused(self) -> list[int]:
        return sorted(n for n, reply in self.answers.items() if isinstance(reply, Exception))


async def moved_while_two_are_on_their_way() -> Store:
    """1 and 2 were sent to a, whose slot moved to b; 1 has been redirected and done there."""
    store = Store()
    a, b = store.nodes["a"], store.nodes["b"]
    store.submit()
    store.submit()
    store.owner = b
    b.is_prompt = True
    a.answer()
    await store.until_done(1)
    await until(lambda: 1 in store.answers, WITHIN, "1 is answered")
    return store


@pytest.mark.parametrize("is_told", [True, False], ids=["told of the map", "not told"])
async def test_a_late_redirection_of_an_overtaken_command_is_refused(is_told: bool):
    store = await moved_while_two_are_on_their_way()
    store.known = store.owner
    if is_told:
        store.use_map()
    store.submit()
    await store.until_done(3)
    store.nodes["a"].answer()
    await store.until_answered()
    assert store.done == [1, 3]
    assert store.refused() == [2]


async def test_a_command_that_another_map_let_overtake_is_refused_though_nothing_was_redirected():
    store = Store()
    store.submit()
    store.owner = store.nodes["b"]
    store.use_map()
    store.submit()
    store.be_prompt()
    await store.until_answered()
    assert store.done == [2]
    assert store.refused() == [1]


async def test_commands_that_wait_behind_a_redirected_one_at_its_node_are_all_done():
    store = await moved_while_two_are_on_their_way()
    for _ in range(3):
        store.submit()
    a = store.nodes["a"]
    while a.inbox:
        a.answer()
        await until(lambda: len(store.answers) == store.sent - len(a.inbox), WITHIN, "one more")
    assert store.done == [1, 2, 3, 4, 5]


async def test_commands_of_another_key_are_not_overtaken():
    store = await moved_while_two_are_on_their_way()
    store.use_map()
    store.submit("other")
    store.be_prompt()
    await store.until_answered()
    assert sorted(store.done) == [1, 2, 3]


async def test_keys_are_forgotten_when_all_that_was_sent_before_is_answered():
    store = await moved_while_two_are_on_their_way()
    order = store.redirects.order
    store.use_map()
    for number in range(100):
        store.submit(f"k{number}")
    assert len(order) > 100
    store.be_prompt()
    await store.until_answered()
    assert not order.is_watched
    assert len(order) == 0


async def test_in_a_long_migration_only_the_keys_of_two_lots_are_remembered():
    store = Store()
    order = store.redirects.order
    store.submit("first")
    most = 0
    for number in range(1000):
        store.use_map()
        store.submit(f"k{number}")
        store.nodes["a"].answer()
        most = max(most, len(order))
    assert most <= 3


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_the_nodes_do_the_order_of_a_key_is_kept(seed: int):
    chosen = random.Random(seed)
    store = Store()
    later_owners = [store.nodes["b"], store.nodes["c"]]
    for _ in range(120):
        step = chosen.random()
        if step < 0.4:
            store.submit()
        elif step < 0.8:
            chosen.choice(list(store.nodes.values())).answer()
        elif step < 0.82 and later_owners:
            store.owner = later_owners.pop(0)
        elif step < 0.88:
            store.use_map()
        else:
            await asyncio.sleep(0)
    store.be_prompt()
    await store.until_answered()
    assert store.done == sorted(store.done)
    assert sorted([*store.done, *store.refused()]) == list(range(1, store.sent + 1))
    assert not store.redirects.order.is_watched


@pytest.mark.parametrize("keeps_order", [False, True])
async def test_a_command_that_is_redirected_while_redirections_end_is_answered(keeps_order: bool):
    store = Store()
    answers: list[Any] = []
    sent: list[Done] = []
    for _ in range(2):
        store.redirects.submit(
            "k", lambda _, __, done: sent.append(done), answers.append, keeps_order=keeps_order
        )
    sent[0](StoreRefused("MOVED 1 b:6379"))
    await store.redirects.aclose()
    assert [str(answer) for answer in answers] == ["MOVED 1 b:6379"]
    sent[1](StoreRefused("MOVED 1 b:6379"))
    assert isinstance(answers[1], StoreUnavailable)
    assert not store.redirects._tasks
    store.redirects.submit(
        "k", lambda _, __, done: done(b"OK"), answers.append, keeps_order=keeps_order
    )
    assert answers[2] == b"OK"


class Server:
    """A node of a Redis Cluster that does SPUBLISH, or holds it back until it may answer."""

    def __init__(self, done: list[bytes]) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.moved_to = 0
        self.held: list[bytes] = []
        self._done = done

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = Address(port=self.server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                writer.write(await self._answer(command))
        writer.close()

    async def _answer(self, command: list[bytes]) -> bytes:
        if command[0] == b"INFO":
            return b"$32\r\nrole:master\r\ncluster_enabled:1\r\n\r\n"
        if command[0] != b"SPUBLISH":
            return b"+OK\r\n"
        self.held.append(command[2])
        await self.may_answer.wait()
        if self.moved_to:
            return f"-MOVED 1 127.0.0.1:{self.moved_to}\r\n".encode()
        self._done.append(command[2])
        return b":1\r\n"


class Map:
    """What another node says of the slots."""

    can_change = True
    recheck_seconds: float | None = 0.05

    def __init__(self, owner: Address, other: Address) -> None:
        self.owner, self.other = owner, other

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        return [Master(self.owner, (range(16_384),)), Master(self.other, ())]


async def test_a_router_refuses_what_was_overtaken_when_its_map_changed():
    done: list[bytes] = []
    answers: dict[str, Any] = {}
    a, b = Server(done), Server(done)
    await a.start()
    await b.start()
    nodes = Map(a.address, b.address)
    router = Router((), timeout_seconds=WITHIN, discovery=nodes)
    router.is_cluster = True

    def publish(text: str) -> None:
        command = ("SPUBLISH", "{k}", text)
        router.submit("{k}", command, lambda reply: answers.update({text: reply}), keeps_order=True)

    try:
        await router.start()
        a.may_answer.clear()
        a.moved_to = b.address.port
        publish("1")
        await until(lambda: a.held == [b"1"], WITHIN, "1 has arrived")
        nodes.owner, nodes.other = b.address, a.address
        await until(lambda: router.shard_of("{k}").address == b.address, WITHIN, "the map is new")
        publish("2")
        await until(lambda: done == [b"2"], WITHIN, "2 is done")
        a.may_answer.set()
        await until(lambda: len(answers) == 2, WITHIN, "both are answered")
    finally:
        await router.aclose()
        a.server.close()
        b.server.close()
    assert done == [b"2"]
    assert answers["2"] == 1
    assert isinstance(answers["1"], StoreRefused)
