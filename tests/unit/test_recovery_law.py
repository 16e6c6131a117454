"""The recovery law: a client with a position gets the stream from there, or an answer that it cannot.

For any schedule of publications, losses, delays, joins, leaves, trims, epoch changes, broken links
and resubscribes, every positioned subscription is written exactly what its stream holds after its
start, in order, without a hole and without a repeat, until it ends or is told 2500, 3010 or
"unrecovered". And once the world has come to rest, nobody lags behind.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cluster.broker import BrokerListener
from cluster.config import ChannelConfig, ChannelOptions, ClientConfig, Config
from cluster.connection import Connection, ExpiryDelays
from cluster.metrics.counters import Counters
from cluster.node.node import Node
from cluster.protocol import Position, Publication
from cluster.sessions import Session
from cluster.websocket.client import WebSocketClient
from cluster.websocket.command_rate import CommandRate
from cluster.websocket.frames import TEXT
from tests.contract.fake_sessions import MemorySessions
from tests.contract.fakes import MemoryStore, Record
from tests.unit.scripted import ScriptedBroker, StillLoop

CONFIG = Config(
    client=ClientConfig(insecure=True, recovery_max_publication_limit=6),
    channel=ChannelConfig(
        without_namespace=ChannelOptions(history_size=1000, history_ttl=1000.0, force_recovery=True)
    ),
)
#: Channels of the session that some clients hold, and one that clients subscribe to themselves.
SERVER_SIDE = ("s1", "s2")
CHANNELS = ("c", "s1")
#: A stray publication comes from a worker whose configuration gives the channel no history.
FAULTS = ("reads fail", "link breaks", "stream trimmed", "epoch changes", "stray publication")


class Transport:
    """Collects what a client's connection writes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def set_write_buffer_limits(self, **limits: int) -> None:
        """No buffer, no limit."""

    def pause_reading(self) -> None:
        """The model waits until the client's turn has come: see `settle`."""

    def resume_reading(self) -> None:
        """Nothing is read from a socket here."""

    def close(self) -> None:
        """The model drops the client."""

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 0


class LawOwner:
    """Takes the part of the server."""

    def __init__(self, node: Node, counters: Counters) -> None:
        self.node = node
        self.counters = counters
        self.rate = CommandRate(0, 1)
        self.session_short_lived_seconds = 0.0
        self.expiry_delays = ExpiryDelays(0.0, 0.0)
        self.expiry_horizon = 0.0

    def closing(self, client: WebSocketClient) -> None:
        """Nothing waits for it."""

    def lost(self, client: WebSocketClient) -> None:
        client.leave()

    def left(self, client: WebSocketClient) -> None:
        """Nothing waits for it."""


@dataclass
class Held:
    """What a client knows of one of its subscriptions."""

    epoch: str
    offset: int


@dataclass
class Client:
    websocket: WebSocketClient
    transport: Transport
    number: int = 1
    held: dict[str, Held] = field(default_factory=dict)
    #: Last position of a subscription that has ended: what the next one recovers from.
    known: dict[str, Held] = field(default_factory=dict)
    asked: dict[int, tuple[str, Position | None]] = field(default_factory=dict)
    is_closed: bool = False


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        found.append((data[0] & 0x0F, data[start : start + size]))
        data = data[start + size :]
    return found


class Law(RuleBasedStateMachine):
    """A worker, its clients, and a store driven by the schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = StillLoop()
        self.clients: list[Client] = []
        self.failures: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(str(context)))
        self.loop.run_until_complete(self._build())

    async def _build(self) -> None:
        counters = Counters()
        store = MemoryStore()
        self.node = Node(
            CONFIG,
            counters,
            open_broker=self._open_broker,
            open_sessions=lambda listener: MemorySessions(store, listener, ttl_seconds=1e9),
        )
        session = Session("shared", "", 0, channels=SERVER_SIDE)
        store.sessions["shared"] = Record(session, 1e15)
        self.host = LawOwner(self.node, counters)
        self.checks = self.loop.create_task(self.node.channels.check_positions())

    def _open_broker(self, listener: BrokerListener) -> ScriptedBroker:
        self.broker = ScriptedBroker(listener)
        return self.broker

    # --- what the clients see ------------------------------------------------------------------

    def settle(self) -> None:
        self.loop.settle()
        self.look()

    def look(self) -> None:
        for client in self.clients:
            written, client.transport.written = client.transport.written, []
            for opcode, payload in frames(b"".join(written)):
                if opcode == 8:
                    client.is_closed = True
                    client.known.update(client.held)
                    client.held.clear()
                elif payload != b"{}":
                    self.heard(client, orjson.loads(payload))
        self.clients = [client for client in self.clients if not client.is_closed]
        assert not self.failures, self.failures

    def heard(self, client: Client, document: dict[str, Any]) -> None:
        if "push" in document:
            self.pushed(client, document["push"])
            return
        for channel, result in document.get("connect", {}).get("subs", {}).items():
            self.started(client, channel, None, result)
        channel, position = client.asked.pop(document["id"], ("", None))
        if "subscribe" in document:
            self.started(client, channel, position, document["subscribe"])

    def started(
        self, client: Client, channel: str, asked: Position | None, result: dict[str, Any]
    ) -> None:
        held = Held(result["epoch"], result.get("offset", 0))
        if result.get("recovered"):
            assert asked is not None
            assert held.offset == asked.offset
        client.held[channel] = held
        for publication in result.get("publications", []):
            self.got(client, channel, publication)
        if result.get("recovered"):
            top = self.broker.stream(channel)
            assert held.offset <= top.top or held.epoch != top.epoch

    def pushed(self, client: Client, push: dict[str, Any]) -> None:
        channel = push.get("channel", "")
        if "pub" in push:
            assert channel in client.held, "no publication before the subscribe or after its end"
            self.got(client, channel, push["pub"])
        elif "unsubscribe" in push:
            client.known[channel] = client.held.pop(channel)

    def got(self, client: Client, channel: str, publication: dict[str, Any]) -> None:
        held = client.held[channel]
        body = b'{"data":%d}' % publication["data"]
        place = self.broker.stream(channel).log.get(body)
        if place is None:
            return  # A stray publication has no place in the stream.
        assert place == Position(publication["offset"], held.epoch)
        assert place.offset == held.offset + 1, f"{channel}: {place.offset} after {held.offset}"
        held.offset = place.offset

    # --- clients -------------------------------------------------------------------------------

    @initialize(shared=st.lists(st.booleans(), max_size=2))
    def begins(self, shared: list[bool]) -> None:
        for is_shared in shared:
            self.connects(is_shared, wants=True)
        self.runs_smoothly()

    def send(self, client: Client, **command: Any) -> int:
        number, client.number = client.number, client.number + 1
        # As in a callback of the loop, of which nothing else runs meanwhile.
        asyncio._set_running_loop(self.loop)
        try:
            client.websocket.message(TEXT, orjson.dumps({"id": number, **command}))
        finally:
            asyncio._set_running_loop(None)
        return number

    @precondition(lambda self: len(self.clients) < 4)
    @rule(is_shared=st.booleans(), wants=st.booleans())
    def connects(self, is_shared: bool, wants: bool) -> None:
        async def build() -> Client:
            connection = Connection("c", channel_limit=9, counters=self.host.counters)
            websocket = WebSocketClient(self.host, connection, url_session="", native_pings=False)
            transport = Transport()
            websocket.begin(transport, 65536, 1 << 20)  # type: ignore[arg-type]
            return Client(websocket, transport)

        client = self.loop.run_until_complete(build())
        self.clients.append(client)
        self.send(client, connect={"data": {"session": "shared"} if is_shared else None})
        if wants:
            self.subscribe(client, recovers=False)
        self.settle()

    def subscribe(self, client: Client, *, recovers: bool) -> None:
        known = client.known.get("c") if recovers else None
        position = Position(known.offset, known.epoch) if known is not None else None
        request: dict[str, Any] = {"channel": "c"}
        if position is not None:
            request |= {"recover": True, "offset": position.offset, "epoch": position.epoch}
        number = client.number
        client.asked[number] = ("c", position)
        self.send(client, subscribe=request)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), recovers=st.booleans())
    def subscribes(self, data: st.DataObject, recovers: bool) -> None:
        self.subscribe(data.draw(st.sampled_from(self.clients)), recovers=recovers)
        self.settle()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), is_polite=st.booleans())
    def leaves(self, data: st.DataObject, is_polite: bool) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if is_polite and "c" in client.held:
            self.send(client, unsubscribe={"channel": "c"})
            self.look()
            if "c" in client.held:
                client.known["c"] = client.held.pop("c")
        else:
            self.clients.remove(client)
            self.loop.run_until_complete(self._step(client.websocket.connection_lost, None))
        self.settle()

    # --- the store -------------------------------------------------------------------------------

    @rule(
        channel=st.sampled_from(CHANNELS),
        lost=st.lists(st.booleans(), min_size=1, max_size=4),
        is_brought=st.booleans(),
    )
    def publishes(self, channel: str, lost: list[bool], is_brought: bool) -> None:
        for is_lost in lost:
            self.broker.publish_now(channel, is_lost=is_lost)
        if is_brought:
            self.brings(len(lost))

    @rule(channel=st.sampled_from(CHANNELS), count=st.integers(min_value=1, max_value=3))
    def publishes_well(self, channel: str, count: int) -> None:
        self.publishes(channel, [False] * count, is_brought=True)

    @rule(count=st.integers(min_value=1, max_value=4))
    def brings(self, count: int) -> None:
        self.loop.run_until_complete(self._step(self.broker.bring, count))
        self.settle()

    async def _step(self, step: Any, *arguments: Any) -> None:
        step(*arguments)

    @rule()
    def carries_out_a_read(self) -> None:
        self.broker.carry_out_read()

    @rule()
    def answers_a_read(self) -> None:
        self.broker.answer_read()
        self.settle()

    @rule()
    def runs_smoothly(self) -> None:
        for _ in range(6):
            self.loop.run_until_complete(self._step(self.broker.bring, 100))
            self.broker.carry_out_read()
            self.broker.answer_read()
            self.settle()

    @rule(fault=st.sampled_from(FAULTS), channel=st.sampled_from(CHANNELS))
    def fails(self, fault: str, channel: str) -> None:
        stream = self.broker.stream(channel)
        if fault == "reads fail":
            self.broker.fail_reads()
        elif fault == "link breaks":
            self.broker.break_subscriptions()
        elif fault == "stream trimmed":
            while len(stream.entries) > 1:
                stream.entries.popleft()
        elif fault == "epoch changes":
            stream.reset()
        else:
            self.broker.send_stray(channel, Publication(0, "", b'{"data":-1}'))
        self.settle()

    @rule(seconds=st.sampled_from([0.05, 0.5, 3.0, 41.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.pass_time(seconds)
        self.look()

    # --- the end -----------------------------------------------------------------------------------

    def comes_to_rest(self) -> None:
        """Everything is delivered and answered, and the positions are checked."""
        for _ in range(60):
            for _ in range(10):
                self.loop.run_until_complete(self._step(self.broker.bring, 100))
                self.broker.carry_out_read()
                self.broker.answer_read()
                self.settle()
            self.loop.pass_time(2.0)
            self.look()

    def teardown(self) -> None:
        try:
            self.comes_to_rest()
            for client in self.clients:
                for channel, held in client.held.items():
                    stream = self.broker.stream(channel)
                    here = (held.epoch, held.offset)
                    assert here == (stream.epoch, stream.top), f"{channel} lags behind"
            busy = [name for name, one in self.node.hub.channels.items() if one.is_held]
            assert not busy, f"at rest, and still filled: {busy}"
        finally:
            self.checks.cancel()
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.settle()
            self.loop.close()


TestLaw = Law.TestCase
TestLaw.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip


def test_a_client_that_still_joins_another_channel_is_notified_when_the_first_one_jumps():
    law = Law()
    law.connects(is_shared=False, wants=False)
    law.runs_smoothly()
    [first] = law.clients
    first.asked[first.number] = ("s1", None)
    law.send(first, subscribe={"channel": "s1"})
    law.runs_smoothly()
    # On its way: the publication after three that were lost and trimmed.
    law.publishes("s1", [True, True, True], is_brought=False)
    law.broker.stream("s1").entries.clear()
    law.publishes("s1", [False], is_brought=False)
    # Gets its position in s1 from what the worker knows, and waits for s2.
    law.connects(is_shared=True, wants=False)
    assert len(law.clients) == 2
    law.brings(1)
    law.brings(1)
    law.runs_smoothly()
    law.teardown()
    assert law.clients == [first], "the second client was closed with 3010"
    assert "s1" not in first.held


def test_clients_hear_a_stream_whole_over_losses_and_broken_links():
    law = Law()
    law.begins([False, True])
    for round_ in range(5):
        law.publishes("c", [False, True, True, False], is_brought=True)
        law.fails("link breaks", "c")
        law.publishes("s1", [True, False], is_brought=round_ % 2 == 0)
        law.runs_smoothly()
    clients = list(law.clients)
    law.teardown()
    assert [client.held["c"].offset for client in clients] == [20, 20]
    assert clients[1].held["s1"].offset == 10
