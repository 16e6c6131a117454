"""The state machine of a connection: connects and subscriptions, order, limits and codes."""

from __future__ import annotations

import pytest

from cluster import connection as machine
from cluster.connection import Connection, Send, State, Subscription
from cluster.errors import (
    INTERNAL,
    INVALID_TOKEN,
    SERVER_UNSUBSCRIBE,
    SHUTDOWN,
    TOKEN_EXPIRED,
    UNKNOWN_CHANNEL,
    UNRECOVERABLE_POSITION,
    UNSUBSCRIBE_INSUFFICIENT_STATE,
)
from tests.unit.spoken import codes, enter, error_code, line, lines, make, said, subscribe


@pytest.fixture
def connection() -> Connection:
    """A connection that is connected."""
    made = make()
    made.receive(line(1, "connect"))
    enter(made)
    return made


# --- connect -------------------------------------------------------------------------------


def test_a_connect_is_requested_and_answered():
    connection = make()
    [action] = connection.receive(line(5, "connect", token="t", name="js"))
    assert isinstance(action, machine.Connect)
    assert (action.id, action.request.token, connection.state) == (5, "t", State.CONNECTING)
    assert said(enter(connection)) == [{"id": 1, "connect": {"client": "client-id"}}]
    assert (connection.state, connection.user) == (State.CONNECTED, "u")


@pytest.mark.parametrize("method", ["subscribe", "publish", "rpc", "history", "send", "ping"])
def test_any_command_before_connect_closes_with_3501(method: str):
    connection = make()
    assert codes(connection.receive(line(1, method, channel="a"))) == [3501]
    assert connection.state is State.CLOSED


def test_a_second_connect_closes_with_3501(connection: Connection):
    assert codes(connection.receive(line(2, "connect"))) == [3501]


def test_a_second_connect_in_the_same_frame_closes_after_the_first_reply():
    connection = make()
    connection.receive(lines(line(1, "connect"), line(2, "connect")))
    actions = enter(connection)
    assert [document["id"] for document in said(actions)] == [1]
    assert codes(actions) == [3501]


def test_all_commands_wait_for_the_connect_and_then_run_in_order():
    connection = make()
    frame = lines(
        line(1, "connect"),
        line(2, "publish", channel="a", data=1),
        line(3, "subscribe", channel="a"),
        line(4, "rpc", method="m"),
    )
    assert [type(action) for action in connection.receive(frame)] == [machine.Connect]
    kinds = [type(action) for action in enter(connection)]
    assert kinds == [Send, machine.Publish, machine.Subscribe]
    connection.subscribed(3, "a", {}, is_positioned=False)
    assert [type(action) for action in connection.resume()] == [machine.Rpc]


def test_a_refused_connect_drops_the_rest_of_its_frame():
    connection = make()
    connection.receive(lines(line(1, "connect"), line(2, "subscribe", channel="a")))
    assert error_code(connection.connect_refused(1, TOKEN_EXPIRED)) == 109
    assert connection.state is State.REFUSED
    assert connection.resume() == []


@pytest.mark.parametrize("method", ["connect", "subscribe", "rpc"])
def test_a_command_after_a_refused_connect_closes_with_3501(method: str):
    connection = make()
    connection.receive(line(1, "connect"))
    connection.connect_refused(1, TOKEN_EXPIRED)
    assert codes(connection.receive(line(2, method, channel="a"))) == [3501]


def test_a_bad_token_closes_with_3500_and_sends_no_reply():
    connection = make()
    connection.receive(line(1, "connect"))
    actions = connection.connect_refused(1, INVALID_TOKEN)
    assert (codes(actions), said(actions)) == ([3500], [])


def test_a_connect_that_ends_after_the_close_does_nothing():
    connection = make()
    connection.receive(line(1, "connect"))
    connection.disconnect(SHUTDOWN)
    assert enter(connection) == []
    assert connection.connect_refused(1, INTERNAL) == []


# --- subscribe -----------------------------------------------------------------------------


def test_subscribes_to_different_channels_run_concurrently(connection: Connection):
    frame = lines(line(2, "subscribe", channel="a"), line(3, "subscribe", channel="b"))
    assert [action.id for action in connection.receive(frame)] == [2, 3]  # type: ignore[union-attr]


def test_commands_after_a_subscribe_wait_for_it(connection: Connection):
    connection.receive(line(2, "subscribe", channel="a"))
    assert connection.receive(line(3, "unsubscribe", channel="a")) == []
    assert connection.receive(line(4, "subscribe", channel="b")) == []
    [reply] = said(connection.subscribed(2, "a", {"epoch": "e"}, is_positioned=True))
    assert reply == {"id": 2, "subscribe": {"epoch": "e"}}
    kinds = [type(action) for action in connection.resume()]
    assert kinds == [machine.Leave, Send, machine.Subscribe]


def test_a_second_subscribe_to_the_same_channel_waits_and_is_refused(connection: Connection):
    connection.receive(lines(line(2, "subscribe", channel="a"), line(3, "subscribe", channel="a")))
    connection.subscribed(2, "a", {}, is_positioned=True)
    assert error_code(connection.resume()) == 105


def test_a_channel_that_is_not_a_string_closes_with_3501_even_while_another_subscribe_runs(
    connection: Connection,
):
    connection.receive(line(2, "subscribe", channel="a"))
    actions = connection.receive(line(3, "subscribe", channel=["b"]))
    actions += connection.subscribed(2, "a", {}, is_positioned=True)
    assert codes([*actions, *connection.resume()]) == [3501]


def test_after_a_refused_subscribe_the_channel_is_free_again(connection: Connection):
    connection.receive(line(2, "subscribe", channel="a"))
    assert error_code(connection.subscribe_refused(2, "a", UNKNOWN_CHANNEL)) == 102
    assert connection.resume() == []
    [action] = connection.receive(line(3, "subscribe", channel="a"))
    assert isinstance(action, machine.Subscribe)


def test_a_subscribed_channel_is_refused_with_105(connection: Connection):
    subscribe(connection, "a")
    assert error_code(connection.receive(line(3, "subscribe", channel="a"))) == 105


def test_more_channels_than_the_limit_are_refused_with_106():
    connection = make(channel_limit=2)
    connection.receive(line(1, "connect"))
    enter(connection)
    subscribe(connection, "a")
    frame = lines(line(3, "subscribe", channel="b"), line(4, "subscribe", channel="c"))
    actions = connection.receive(frame)
    assert [type(action) for action in actions] == [machine.Subscribe, Send]
    assert error_code(actions[1:]) == 106


def test_a_subscribe_that_ends_after_the_close_does_nothing(connection: Connection):
    connection.receive(line(2, "subscribe", channel="a"))
    connection.disconnect(SHUTDOWN)
    assert connection.subscribed(2, "a", {}, is_positioned=True) == []
    assert connection.subscribe_refused(2, "a", UNRECOVERABLE_POSITION) == []
    assert connection.channels == {}


def test_a_server_side_subscription_cannot_be_subscribed_to_or_left(connection: Connection):
    [push] = said(connection.subscribe_added("s", {"epoch": "e"}, is_positioned=True))
    assert push == {"push": {"channel": "s", "subscribe": {"epoch": "e"}}}
    assert error_code(connection.receive(line(2, "subscribe", channel="s"))) == 105
    assert said(connection.receive(line(3, "unsubscribe", channel="s"))) == [
        {"id": 3, "unsubscribe": {}}
    ]
    assert "s" in connection.channels


def test_only_one_of_two_subscriptions_to_the_same_channel_is_made(connection: Connection):
    connection.receive(line(2, "subscribe", channel="a"))
    added = connection.subscribe_added("a", {}, is_positioned=True)
    requested = connection.subscribed(2, "a", {}, is_positioned=True)
    succeeded = [document for document in said([*added, *requested]) if "error" not in document]
    assert len(succeeded) == 1


def test_server_side_subscriptions_of_the_connect_exist_at_once():
    connection = make()
    connection.receive(lines(line(1, "connect"), line(2, "subscribe", channel="s")))
    actions = enter(connection, server_side={"s": Subscription(True, is_server_side=True)})
    assert error_code(actions[1:]) == 105


# --- unsubscribe ---------------------------------------------------------------------------


def test_unsubscribing_leaves_and_replies(connection: Connection):
    subscribe(connection, "a")
    actions = connection.receive(line(3, "unsubscribe", channel="a"))
    assert actions[0] == machine.Leave("a")
    assert said(actions) == [{"id": 3, "unsubscribe": {}}]


def test_unsubscribing_from_an_unknown_channel_is_no_error(connection: Connection):
    assert said(connection.receive(line(2, "unsubscribe", channel="x"))) == [
        {"id": 2, "unsubscribe": {}}
    ]


@pytest.mark.parametrize(
    "method", ["subscribe", "unsubscribe", "publish", "history", "sub_refresh"]
)
def test_an_empty_channel_closes_with_3501(connection: Connection, method: str):
    assert codes(connection.receive(line(2, method, channel="", data=1))) == [3501]


def test_the_server_ends_a_subscription_only_if_it_exists(connection: Connection):
    assert connection.unsubscribe("a", SERVER_UNSUBSCRIBE) == []
    subscribe(connection, "a")
    leave, push = connection.unsubscribe("a", SERVER_UNSUBSCRIBE)
    assert leave == machine.Leave("a")
    assert said([push])[0]["push"]["unsubscribe"]["code"] == 2000


def test_lost_publications_unsubscribe_a_positioned_client_with_2500(connection: Connection):
    subscribe(connection, "a")
    actions = connection.insufficient_state("a", UNSUBSCRIBE_INSUFFICIENT_STATE)
    assert said(actions)[0]["push"]["unsubscribe"]["code"] == 2500


def test_lost_publications_close_a_server_side_subscriber_with_3010(connection: Connection):
    connection.subscribe_added("s", {}, is_positioned=True)
    actions = connection.insufficient_state("s", UNSUBSCRIBE_INSUFFICIENT_STATE)
    assert codes(actions) == [3010]


def test_lost_publications_do_not_affect_an_unpositioned_client(connection: Connection):
    subscribe(connection, "a", is_positioned=False)
    assert connection.insufficient_state("a", UNSUBSCRIBE_INSUFFICIENT_STATE) == []
    assert connection.insufficient_state("b", UNSUBSCRIBE_INSUFFICIENT_STATE) == []
