"""Random sequences of messages and results: no exception, one reply each, always in order."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster import connection as protocol
from cluster.connection import Close, Connection, Leave, Send, State
from cluster.errors import (
    CLIENT_ERRORS,
    INVALID_TOKEN,
    SERVER_UNSUBSCRIBE,
    SHUTDOWN,
    UNSUBSCRIBE_INSUFFICIENT_STATE,
)
from cluster.metrics.counters import Counters

LIMIT = 3
CHANNELS = st.sampled_from(["a", "b", "c", "d"])
ERRORS = st.sampled_from(CLIENT_ERRORS)
ORDINARY = st.one_of(
    st.builds(lambda channel: ("subscribe", {"channel": channel}), CHANNELS),
    st.builds(lambda channel: ("unsubscribe", {"channel": channel}), CHANNELS),
    st.builds(lambda channel: ("publish", {"channel": channel, "data": 1}), CHANNELS),
    st.builds(lambda channel: ("history", {"channel": channel}), CHANNELS),
    st.just(("rpc", {"method": "m"})),
)
ODD = st.sampled_from(
    [
        ("connect", {}),
        ("subscribe", {}),
        ("subscribe", {"channel": 7}),
        ("publish", {"channel": "a"}),
        ("refresh", {}),
        ("sub_refresh", {"channel": "a"}),
        ("send", {"data": 1}),
    ]
)


class OneClient(RuleBasedStateMachine):
    """Acts as the client and the node; records requests and answers."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection("c", channel_limit=LIMIT, counters=Counters())
        self.next_id = 1
        self.sent: dict[int, str] = {}
        self.handled: list[int] = []
        self.pending: list[Any] = []
        self.answered: set[int] = set()
        self.was_closed = False
        self.subscribed: set[str] = set()

    # --- actions -----------------------------------------------------------------------------

    def take(self, actions: list[Any], *, completes: int | None = None) -> None:
        for action in actions:
            assert not self.was_closed, "nothing follows a close"
            if isinstance(action, Close):
                self.was_closed = True
                assert self.connection.state is State.CLOSED
            elif isinstance(action, Send):
                self.replied(orjson.loads(action.payload), completes)
            elif isinstance(action, Leave):
                assert action.channel in self.subscribed
                self.subscribed.discard(action.channel)
            else:
                self.began(action.id)
                self.pending.append(action)

    def began(self, number: int) -> None:
        self.handled.append(number)
        assert self.handled == sorted(self.handled), "commands are handled in order"
        before = [n for n in self.sent if n < number]
        if self.sent[number] != "subscribe":
            assert not [one for one in self.pending if isinstance(one, protocol.Subscribe)]
        if before:
            assert min(before) in self.answered, "everything waits for the connect"

    def replied(self, document: dict[str, Any], completes: int | None) -> None:
        if "push" in document:
            return
        number = document["id"]
        assert number in self.sent
        assert number not in self.answered, "one reply per command"
        if number != completes:
            self.began(number)
        self.answered.add(number)
        assert "error" in document or self.sent[number] in document

    def command(self, method: str, params: dict[str, Any]) -> bytes:
        number, self.next_id = self.next_id, self.next_id + 1
        if method == "send":
            return orjson.dumps({method: params})
        self.sent[number] = method
        return orjson.dumps({"id": number, method: params})

    def alive(self) -> bool:
        return not self.was_closed

    # --- the client --------------------------------------------------------------------------

    @precondition(lambda self: self.connection.state is State.NEW)
    @rule(rest=st.lists(ORDINARY, max_size=4))
    def connects(self, rest: list[tuple[str, dict[str, Any]]]) -> None:
        frame = [self.command("connect", {}), *(self.command(*one) for one in rest)]
        self.take(self.connection.receive(b"\n".join(frame)))

    @precondition(lambda self: self.connection.state in (State.CONNECTING, State.CONNECTED))
    @rule(commands=st.lists(ORDINARY, min_size=1, max_size=5))
    def commands(self, commands: list[tuple[str, dict[str, Any]]]) -> None:
        frame = b"\n".join(self.command(*one) for one in commands)
        self.take(self.connection.receive(frame))

    @precondition(alive)
    @rule(command=ODD)
    def is_odd(self, command: tuple[str, dict[str, Any]]) -> None:
        self.take(self.connection.receive(self.command(*command)))

    @precondition(alive)
    @rule(payload=st.binary(max_size=30))
    def sends_garbage(self, payload: bytes) -> None:
        self.take(self.connection.receive(payload))

    @precondition(lambda self: self.connection.awaits_pong)
    @rule()
    def pongs(self) -> None:
        assert self.connection.receive(b"{}") == []

    # --- the node ----------------------------------------------------------------------------

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), error=st.none() | ERRORS)
    def completes(self, data: st.DataObject, error: Any) -> None:
        action = data.draw(st.sampled_from(self.pending))
        self.pending.remove(action)
        number = action.id
        if isinstance(action, protocol.Connect):
            self.complete_connect(number, error)
        elif isinstance(action, protocol.Subscribe):
            self.complete_subscribe(action, error)
        elif isinstance(action, protocol.Publish):
            size = len(action.data)
            self.take(self.connection.published(number, error, size), completes=number)
        elif error is None:
            method = self.sent[number]
            self.take(self.connection.replied(number, method, {}), completes=number)
        else:
            self.take(self.connection.answered(number, error), completes=number)

    def complete_connect(self, number: int, error: Any) -> None:
        if error is not None:
            self.take(self.connection.connect_refused(number, error), completes=number)
            return
        actions = self.connection.connected(
            number, {}, user="u", info=b"", expires_at=0, server_side={}
        )
        self.take(actions, completes=number)

    def complete_subscribe(self, action: protocol.Subscribe, error: Any) -> None:
        number, channel = action.id, action.request.channel
        if error is None:
            actions = self.joined(number, channel)
            if actions:
                assert channel not in self.subscribed
                self.subscribed.add(channel)
        else:
            actions = self.connection.subscribe_refused(number, channel, error)
        self.take(actions, completes=number)
        self.take(self.connection.resume())

    def joined(self, number: int, channel: str) -> list[protocol.Action]:
        return [*self.connection.subscribed(number, channel, {}, is_positioned=True)]

    # --- the server --------------------------------------------------------------------------

    @rule()
    def is_pinged(self) -> None:
        self.connection.ping_due()

    @precondition(lambda self: self.subscribed)
    @rule(data=st.data(), is_lost=st.booleans())
    def is_unsubscribed(self, data: st.DataObject, is_lost: bool) -> None:
        channel = data.draw(st.sampled_from(sorted(self.subscribed)))
        if is_lost:
            actions = self.connection.insufficient_state(channel, UNSUBSCRIBE_INSUFFICIENT_STATE)
        else:
            actions = self.connection.unsubscribe(channel, SERVER_UNSUBSCRIBE)
        self.take(actions)

    @precondition(lambda self: len(self.handled) > 6)
    @rule(why=st.sampled_from([SHUTDOWN, INVALID_TOKEN]))
    def is_closed(self, why: Any) -> None:
        self.take(self.connection.disconnect(why))

    # --- invariants --------------------------------------------------------------------------

    @invariant()
    def keeps_the_limit(self) -> None:
        assert len(self.connection.channels) <= LIMIT

    @invariant()
    def knows_its_channels(self) -> None:
        if not self.was_closed:
            assert set(self.connection.channels) == self.subscribed

    @invariant()
    def answers_everything_once_nothing_is_pending(self) -> None:
        if self.connection.state is State.CONNECTED and not self.pending:
            assert self.answered == set(self.sent)
            assert not self.connection.is_congested


TestOneClient = OneClient.TestCase
TestOneClient.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
