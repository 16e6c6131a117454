"""One client's state machine: order, limits, codes and pings, with plain calls."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from cluster import connection as machine
from cluster.connection import Close, Connection, Send, State, Subscription
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
from cluster.metrics.tally import Tally


def line(number: int, command: str, /, **params: Any) -> bytes:
    return orjson.dumps({"id": number, command: params})


def lines(*commands: bytes) -> bytes:
    return b"\n".join(commands)


def said(actions: list[Any]) -> list[dict[str, Any]]:
    """The documents that are sent."""
    return [orjson.loads(action.payload) for action in actions if isinstance(action, Send)]


def codes(actions: list[Any]) -> list[int]:
    return [action.why.code for action in actions if isinstance(action, Close)]


def error_code(actions: list[Any]) -> int:
    [document] = said(actions)
    code: int = document["error"]["code"]
    return code


def make(channel_limit: int = 128) -> Connection:
    return Connection("client-id", channel_limit=channel_limit, tally=Tally())


def enter(connection: Connection, **given: Any) -> list[Any]:
    options: dict[str, Any] = {"user": "u", "info": None, "expires_at": 0, "server_side": {}}
    return connection.connected(1, {"client": "client-id"}, **(options | given))  # type: ignore[arg-type,return-value]


@pytest.fixture
def connection() -> Connection:
    """A connection that is connected."""
    made = make()
    made.receive(line(1, "connect"))
    enter(made)
    return made


def subscribe(connection: Connection, channel: str, number: int = 2, **given: Any) -> None:
    connection.receive(line(number, "subscribe", channel=channel))
    connection.subscribed(number, channel, {}, **({"is_positioned": True} | given))
    connection.resume()


# --- connect -------------------------------------------------------------------------------


def test_a_connect_is_asked_for_and_answered():
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
    assert connection.is_closed


def test_a_second_connect_closes_with_3501(connection: Connection):
    assert codes(connection.receive(line(2, "connect"))) == [3501]


def test_a_second_connect_in_the_same_frame_closes_after_the_first_reply():
    connection = make()
    connection.receive(lines(line(1, "connect"), line(2, "connect")))
    actions = enter(connection)
    assert [document["id"] for document in said(actions)] == [1]
    assert codes(actions) == [3501]


def test_everything_waits_for_the_connect_and_then_runs_in_order():
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


def test_a_connect_that_ends_after_the_client_has_gone_does_nothing():
    connection = make()
    connection.receive(line(1, "connect"))
    connection.disconnect(SHUTDOWN)
    assert enter(connection) == []
    assert connection.connect_refused(1, INTERNAL) == []


# --- subscribe -----------------------------------------------------------------------------


def test_subscribes_to_different_channels_run_side_by_side(connection: Connection):
    frame = lines(line(2, "subscribe", channel="a"), line(3, "subscribe", channel="b"))
    assert [action.id for action in connection.receive(frame)] == [2, 3]  # type: ignore[union-attr]


def test_what_follows_a_subscribe_waits_for_it(connection: Connection):
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


def test_a_channel_that_is_no_text_closes_with_3501_even_while_another_subscribe_runs(
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
    asked = connection.subscribed(2, "a", {}, is_positioned=True)
    succeeded = [document for document in said([*added, *asked]) if "error" not in document]
    assert len(succeeded) == 1


def test_server_side_subscriptions_of_the_connect_are_there_at_once():
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


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe", "publish", "history", "sub_refresh"])
def test_an_empty_channel_closes_with_3501(connection: Connection, method: str):
    assert codes(connection.receive(line(2, method, channel="", data=1))) == [3501]


def test_the_server_takes_a_subscription_away_only_if_it_is_there(connection: Connection):
    assert connection.unsubscribe("a", SERVER_UNSUBSCRIBE) == []
    subscribe(connection, "a")
    leave, push = connection.unsubscribe("a", SERVER_UNSUBSCRIBE)
    assert leave == machine.Leave("a")
    assert said([push])[0]["push"]["unsubscribe"]["code"] == 2000


def test_lost_publications_tell_a_positioned_client_2500(connection: Connection):
    subscribe(connection, "a")
    actions = connection.insufficient_state("a", UNSUBSCRIBE_INSUFFICIENT_STATE)
    assert said(actions)[0]["push"]["unsubscribe"]["code"] == 2500


def test_lost_publications_close_a_server_side_subscriber_with_3010(connection: Connection):
    connection.subscribe_added("s", {}, is_positioned=True)
    actions = connection.insufficient_state("s", UNSUBSCRIBE_INSUFFICIENT_STATE)
    assert codes(actions) == [3010]


def test_lost_publications_are_nothing_to_an_unpositioned_client(connection: Connection):
    subscribe(connection, "a", is_positioned=False)
    assert connection.insufficient_state("a", UNSUBSCRIBE_INSUFFICIENT_STATE) == []
    assert connection.insufficient_state("b", UNSUBSCRIBE_INSUFFICIENT_STATE) == []


# --- publish, history, rpc, send -----------------------------------------------------------


def test_a_publish_is_asked_for_and_answered(connection: Connection):
    [action] = connection.receive(line(2, "publish", channel="a", data={"x": 1}))
    assert action == machine.Publish(2, "a", b'{"x":1}')
    assert said(connection.published(2, None)) == [{"id": 2, "publish": {}}]


def test_a_publish_that_failed_is_answered_with_its_error(connection: Connection):
    connection.receive(line(2, "publish", channel="a", data=1))
    [reply] = said(connection.published(2, INTERNAL))
    assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}


def test_a_publish_without_data_is_refused_with_107(connection: Connection):
    assert error_code(connection.receive(line(2, "publish", channel="a"))) == 107


def test_calls_do_not_hold_up_what_follows(connection: Connection):
    frame = lines(
        line(2, "publish", channel="a", data=1),
        line(3, "history", channel="a"),
        line(4, "rpc", method="m"),
        line(5, "unsubscribe", channel="x"),
    )
    kinds = [type(action) for action in connection.receive(frame)]
    assert kinds == [machine.Publish, machine.History, machine.Rpc, Send]


@pytest.mark.parametrize("method", [1, ["m"], {"m": 1}, True])
def test_an_rpc_method_that_is_no_text_closes_with_3501(connection: Connection, method: Any):
    assert codes(connection.receive(line(2, "rpc", method=method))) == [3501]


def test_a_send_without_a_handler_closes_with_3508(connection: Connection):
    assert codes(connection.receive(b'{"send":{"data":1}}')) == [3508]


@pytest.mark.parametrize("data", [b"", b'"data":' + b"[" * 500 + b"]" * 500])
def test_a_send_is_never_replied_to(connection: Connection, data: bytes):
    assert said(connection.receive(b'{"send":{%b}}' % data)) == []


@pytest.mark.parametrize("method", ["ping", "presence", "presence_stats"])
def test_what_is_not_built_is_not_available(connection: Connection, method: str):
    assert error_code(connection.receive(line(2, method, channel="a"))) == 108


def test_a_sub_refresh_of_a_foreign_channel_is_denied(connection: Connection):
    assert error_code(connection.receive(line(2, "sub_refresh", channel="a", token="t"))) == 103


@pytest.mark.parametrize("token", ["", None, 1, ["t"]])
def test_a_refresh_without_a_token_closes_with_3501(connection: Connection, token: Any):
    assert codes(connection.receive(line(2, "refresh", token=token))) == [3501]


def test_a_refresh_is_asked_for_and_answered(connection: Connection):
    assert connection.receive(line(2, "refresh", token="t")) == [machine.Refresh(2, "t")]
    assert said(connection.replied(2, "refresh", {})) == [{"id": 2, "refresh": {}}]


def test_a_call_may_close_the_connection(connection: Connection):
    connection.receive(line(2, "refresh", token="t"))
    assert codes(connection.answered(2, INVALID_TOKEN)) == [3500]


def test_answers_after_the_close_are_dropped(connection: Connection):
    connection.receive(lines(line(2, "publish", channel="a", data=1), line(3, "rpc")))
    connection.disconnect(SHUTDOWN)
    assert connection.published(2, None) == []
    assert connection.replied(3, "rpc", {}) == []
    assert connection.message({"x": 1}) == []


def test_a_client_with_too_much_under_way_is_congested_until_it_is_answered():
    connection = make()
    connection.receive(line(1, "connect"))
    waiting = machine.CONGESTED_COMMANDS + 1
    frame = lines(*(line(n + 2, "publish", channel="a", data=n) for n in range(waiting)))
    connection.receive(frame)
    assert connection.is_congested
    enter(connection)
    assert connection.is_congested
    for number in range(waiting):
        connection.published(number + 2, None)
    assert not connection.is_congested


# --- pings, time, closing ------------------------------------------------------------------


def test_a_ping_awaits_a_pong(connection: Connection):
    assert connection.ping_due()
    assert not connection.ping_due()
    assert connection.receive(b"{}") == []
    assert connection.pong_due() == []
    assert connection.ping_due()


def test_a_missing_pong_closes_with_3012(connection: Connection):
    connection.ping_due()
    assert codes(connection.pong_due()) == [3012]


def test_a_pong_nobody_asked_for_closes_with_3501(connection: Connection):
    assert codes(connection.receive(b"{}")) == [3501]


def test_a_connection_is_not_pinged_before_it_is_connected():
    connection = make()
    assert not connection.ping_due()
    connection.receive(line(1, "connect"))
    assert not connection.ping_due()


def test_a_client_that_says_nothing_is_stale():
    assert codes(make().stale_due()) == [3502]


def test_a_client_whose_connect_was_refused_is_stale():
    connection = make()
    connection.receive(line(1, "connect"))
    assert connection.stale_due() == []
    connection.connect_refused(1, TOKEN_EXPIRED)
    assert codes(connection.stale_due()) == [3502]


def test_a_connected_client_is_not_stale(connection: Connection):
    assert connection.stale_due() == []


def test_an_expired_connection_has_time_to_refresh():
    connection = make()
    connection.receive(line(1, "connect"))
    enter(connection, expires_at=1000)
    assert connection.expiry_due(1000 + machine.EXPIRED_CLOSE_DELAY_SECONDS) == []
    assert codes(connection.expiry_due(1001 + machine.EXPIRED_CLOSE_DELAY_SECONDS)) == [3005]


def test_a_connection_that_never_expires_stays(connection: Connection):
    assert connection.expiry_due(1e12) == []


def test_a_connection_is_closed_once(connection: Connection):
    assert codes(connection.disconnect(SHUTDOWN)) == [3001]
    assert connection.disconnect(SHUTDOWN) == []
    assert connection.receive(b"garbage") == []
    assert connection.pong_due() == []


def test_commands_and_faults_are_counted():
    tally = Tally()
    connection = Connection("c", channel_limit=1, tally=tally)
    connection.receive(lines(line(1, "connect"), line(2, "ping"), line(3, "dance")))
    assert tally.commands["connect"] == 0
    connection = Connection("c", channel_limit=1, tally=tally)
    connection.receive(line(1, "connect"))
    enter(connection)
    connection.receive(line(2, "ping"))
    connection.receive(b"{")
    assert (tally.commands["connect"], tally.commands["ping"]) == (1, 1)
    assert (tally.client_errors["108"], tally.client_errors["3501"]) == (1, 2)
    assert (connection.commands, tally.messages_in) == (2, 2)
