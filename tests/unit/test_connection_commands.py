"""The state machine of a connection: calls, pings, deadlines and closes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import connection as machine
from cluster.auth import Claims
from cluster.codec import JSON
from cluster.command_params import ChannelParams
from cluster.connection import Connection, Send
from cluster.decoding_in_parts import DECODED_AT_ONCE, in_parts
from cluster.errors import (
    INTERNAL,
    INVALID_TOKEN,
    SHUTDOWN,
    TOKEN_EXPIRED,
)
from cluster.metrics.counters import Counters
from cluster.protocol import Command
from tests.unit.spoken import codes, enter, error_code, line, lines, make, said

DELAYS = machine.ExpiryDelays(connection=25.0, subscription=5.0)


def replied_ids(actions: list[Any]) -> list[int]:
    return [document["id"] for document in said(actions)]


@pytest.fixture
def connection() -> Connection:
    """A connection that is connected."""
    made = make()
    made.receive(line(1, "connect"))
    enter(made)
    return made


# --- publish, history, rpc, send -----------------------------------------------------------


def test_a_publish_is_requested_and_answered(connection: Connection):
    [action] = connection.receive(line(2, "publish", channel="a", data={"x": 1}))
    assert action == machine.Publish(2, "a", b'{"x":1}')
    assert said(connection.published(2, None, 7)) == [{"id": 2, "publish": {}}]


def test_a_publish_that_failed_is_answered_with_its_error(connection: Connection):
    connection.receive(line(2, "publish", channel="a", data=1))
    [reply] = said(connection.published(2, INTERNAL, 1))
    assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}


def test_a_publish_without_data_is_refused_with_107(connection: Connection):
    assert error_code(connection.receive(line(2, "publish", channel="a"))) == 107


def test_calls_do_not_delay_the_commands_that_follow(connection: Connection):
    frame = lines(
        line(2, "publish", channel="a", data=1),
        line(3, "history", channel="a"),
        line(4, "rpc", method="m"),
        line(5, "unsubscribe", channel="x"),
    )
    kinds = [type(action) for action in connection.receive(frame)]
    assert kinds == [machine.Publish, machine.History, machine.Rpc, Send]


@pytest.mark.parametrize("method", [1, ["m"], {"m": 1}, True])
def test_an_rpc_method_that_is_not_a_string_closes_with_3501(connection: Connection, method: Any):
    assert codes(connection.receive(line(2, "rpc", method=method))) == [3501]


def test_a_send_without_a_handler_closes_with_3508(connection: Connection):
    assert codes(connection.receive(b'{"send":{"data":1}}')) == [3508]


@pytest.mark.parametrize("data", [b"", b'"data":' + b"[" * 500 + b"]" * 500])
def test_a_send_is_never_replied_to(connection: Connection, data: bytes):
    assert said(connection.receive(b'{"send":{%b}}' % data)) == []


@pytest.mark.parametrize("params", [b"{}", b'{"channel":"a"}', b"null", b"1"])
def test_the_ping_command_closes_with_3501_as_in_centrifuge(connection: Connection, params: bytes):
    """centrifuge v0.40.1 lists the methods it has in `dispatchCommand`: ping is not among them."""
    assert codes(connection.receive(b'{"id":2,"ping":%b}' % params)) == [3501]


def test_ping_beside_another_command_is_not_available(connection: Connection):
    """Only then centrifuge comes to `handlePing`."""
    assert error_code(connection.receive(b'{"id":2,"ping":{},"rpc":{}}')) == 108


@pytest.mark.parametrize("method", ["presence", "presence_stats"])
def test_presence_is_requested_and_answered(connection: Connection, method: str):
    assert connection.receive(line(2, method, channel="a")) == [
        machine.PresenceRead(2, method, "a")
    ]
    assert said(connection.replied(2, method, {"presence": {}})) == [
        {"id": 2, method: {"presence": {}}}
    ]
    assert codes(connection.receive(line(3, method))) == [3501]


def test_with_an_application_a_send_is_passed_on_and_data_nested_too_deeply_is_dropped():
    messaging = machine.MessagingConnection("c", channel_limit=1, counters=Counters())
    messaging.receive(b'{"id":1,"connect":{}}')
    messaging.connected(1, {}, user="", info=b"", expires_at=0, server_side={})
    assert messaging.receive(b'{"send":{"data":{"a": 1.0}}}') == [machine.Message(b'{"a": 1.0}')]
    assert messaging.receive(b'{"send":{}}') == [machine.Message(b"null")]
    deep = b"[" * 600 + b"]" * 600
    assert messaging.receive(b'{"send":{"data":%b}}' % deep) == []


def test_a_sub_refresh_of_a_foreign_channel_is_denied(connection: Connection):
    assert error_code(connection.receive(line(2, "sub_refresh", channel="a", token="t"))) == 103


@pytest.mark.parametrize("token", ["", None, 1, ["t"]])
def test_a_refresh_without_a_token_closes_with_3501(connection: Connection, token: Any):
    assert codes(connection.receive(line(2, "refresh", token=token))) == [3501]


def test_a_refresh_is_requested_and_answered(connection: Connection):
    assert connection.receive(line(2, "refresh", token="t")) == [machine.Refresh(2, "t")]
    assert said(connection.replied(2, "refresh", {})) == [{"id": 2, "refresh": {}}]


def test_a_call_may_close_the_connection(connection: Connection):
    connection.receive(line(2, "refresh", token="t"))
    assert codes(connection.answered(2, INVALID_TOKEN)) == [3500]


def test_answers_after_the_close_are_dropped(connection: Connection):
    connection.receive(lines(line(2, "publish", channel="a", data=1), line(3, "rpc")))
    connection.disconnect(SHUTDOWN)
    assert connection.published(2, None, 1) == []
    assert connection.replied(3, "rpc", {}) == []
    assert connection.message({"x": 1}) == []


def test_a_client_with_too_many_commands_is_congested_until_they_are_answered():
    connection = make()
    connection.receive(line(1, "connect"))
    waiting = machine.CONGESTED_COMMANDS + 1
    frame = lines(*(line(n + 2, "publish", channel="a", data=n) for n in range(waiting)))
    connection.receive(frame)
    assert connection.is_congested
    enter(connection)
    while connection.has_waiting:
        assert connection.is_congested
        connection.next_turn()
    assert connection.is_congested
    for number in range(waiting):
        connection.published(number + 2, None, len(str(number)))
    assert not connection.is_congested


LARGE = "x" * (machine.CONGESTED_BYTES // 3)


def test_a_client_with_large_commands_before_its_connect_succeeds_is_congested_until_they_are_answered():
    connection = make()
    connection.receive(line(1, "connect"))
    for number in range(2, 4):
        connection.receive(line(number, "publish", channel="a", data=LARGE))
        assert not connection.is_congested
    connection.receive(line(4, "publish", channel="a", data=LARGE))
    assert connection.is_congested
    enter(connection)
    assert not connection.has_waiting
    assert connection.is_congested, "they are in progress"
    connection.published(2, None, len(LARGE) + 2)
    assert not connection.is_congested


def test_large_commands_that_have_waited_count_no_more(connection: Connection):
    for number in range(2, 42, 2):
        connection.receive(line(number, "subscribe", channel=str(number)))
        connection.receive(line(number + 1, "rpc", method="", data=LARGE))
        connection.subscribed(number, str(number), {}, is_positioned=False)
        assert connection.has_waiting
        connection.budget = machine.COMMANDS_PER_TURN
        assert not connection.is_congested
        assert [type(one) for one in connection.resume()] == [machine.Rpc]
        connection.replied(number + 1, "rpc", {})


def test_only_so_many_commands_are_handled_in_one_turn():
    connection = make()
    connection.receive(line(1, "connect"))
    enter(connection)
    connection.next_turn()
    count = 2 * machine.COMMANDS_PER_TURN + 1
    frame = lines(*(line(n + 2, "unsubscribe", channel="a") for n in range(count)))
    assert len(connection.receive(frame)) == machine.COMMANDS_PER_TURN
    assert len(connection.next_turn()) == machine.COMMANDS_PER_TURN
    assert len(connection.next_turn()) == 1
    assert (connection.has_waiting, connection.is_congested) == (False, False)


def test_a_long_message_is_decoded_part_by_part_and_in_order(connection: Connection):
    connection.next_turn()
    count, decoded = 10 * DECODED_AT_ONCE, 0

    def each() -> Iterator[Command]:
        nonlocal decoded
        for number in range(count):
            decoded += 1
            yield Command(number + 2, "unsubscribe", ChannelParams("a"))

    connection.codec = JSON._replace(decode=lambda _: in_parts(each()))
    actions = connection.receive(b"long")
    assert len(actions) == machine.COMMANDS_PER_TURN
    assert decoded <= machine.COMMANDS_PER_TURN + DECODED_AT_ONCE
    assert (connection.has_waiting, connection.is_congested) == (True, True)
    connection.codec = JSON
    actions += connection.receive(line(count + 2, "unsubscribe", channel="a"))
    while connection.has_waiting:
        actions += connection.next_turn()
    assert replied_ids(actions) == list(range(2, count + 3))
    assert not connection.is_congested


def test_a_connect_that_has_waited_for_a_turn_is_handled():
    connection = make()
    connection.budget = 0
    assert connection.receive(line(1, "connect")) == []
    [action] = connection.next_turn()
    assert isinstance(action, machine.Connect)


def test_what_comes_before_a_fault_in_a_long_message_is_handled(connection: Connection):
    connection.next_turn()
    commands = [line(n + 2, "unsubscribe", channel="a") for n in range(2 * DECODED_AT_ONCE)]
    actions = connection.receive(lines(*commands, b"garbage"))
    while connection.has_waiting:
        actions += connection.next_turn()
    assert len(replied_ids(actions)) >= DECODED_AT_ONCE
    assert codes(actions[-1:]) == [3501]


def test_a_pong_within_a_long_message_is_taken_where_it_stands(connection: Connection):
    connection.next_turn()
    connection.ping_due()
    commands = [line(n + 2, "unsubscribe", channel="a") for n in range(2 * DECODED_AT_ONCE)]
    connection.receive(lines(*commands, b"{}"))
    assert connection.awaits_pong
    while connection.has_waiting:
        connection.next_turn()
    assert not connection.awaits_pong


def test_a_message_that_waits_is_forgotten_with_its_connection(connection: Connection):
    commands = [line(n + 2, "unsubscribe", channel="a") for n in range(4 * DECODED_AT_ONCE)]
    connection.receive(lines(*commands))
    assert connection.has_waiting
    connection.disconnect(SHUTDOWN)
    assert (connection.has_waiting, connection.next_turn()) == (False, [])


def test_the_reason_of_a_close_does_not_hold_what_the_client_has_sent(connection: Connection):
    [action] = connection.receive(b"garbage" * 1000)
    assert isinstance(action, machine.Close)
    assert action.why.__traceback__ is None


# --- pings, time, closing ------------------------------------------------------------------


def test_each_ping_awaits_a_pong(connection: Connection):
    # The second is sent if the first pong is not read yet.
    assert connection.ping_due()
    assert connection.ping_due()
    assert connection.receive(b"{}") == []
    assert connection.awaits_pong
    assert connection.receive(b"{}") == []
    assert connection.pong_due() == []
    assert codes(connection.receive(b"{}")) == [3501]


def test_a_missing_pong_closes_with_3012(connection: Connection):
    connection.ping_due()
    assert codes(connection.pong_due()) == [3012]


def test_an_unexpected_pong_closes_with_3501(connection: Connection):
    assert codes(connection.receive(b"{}")) == [3501]


def test_a_connection_is_not_pinged_before_it_is_connected():
    connection = make()
    assert not connection.ping_due()
    connection.receive(line(1, "connect"))
    assert not connection.ping_due()


def test_a_client_that_sends_no_connect_is_stale():
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
    assert connection.next_expiry(DELAYS) == 1025
    assert connection.expiry_due(1025, DELAYS) == []
    assert codes(connection.expiry_due(1026, DELAYS)) == [3005]


def subscribed(connection: Connection, *, expires_at: int, info: bytes = b"") -> None:
    connection.receive(line(9, "subscribe", channel="a", token="t"))
    details = machine.SubscriptionDetails(info, expires_at)
    assert connection.subscribed(9, "a", {}, is_positioned=False, details=details)


def test_a_subscription_that_was_not_refreshed_ends_with_2501(connection: Connection):
    subscribed(connection, expires_at=1000)
    assert connection.next_expiry(DELAYS) == 1005
    assert connection.expiry_due(1005, DELAYS) == []
    leave, push = connection.expiry_due(1006, DELAYS)
    assert leave == machine.Leave("a")
    assert said([push]) == [
        {"push": {"channel": "a", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}}
    ]
    assert connection.expiry_due(1007, DELAYS) == []


def test_a_server_side_subscription_that_was_not_refreshed_closes_with_3006(
    connection: Connection,
):
    connection.channels["s"] = machine.Subscription(
        False, is_server_side=True, details=machine.SubscriptionDetails(b"", 1000)
    )
    assert codes(connection.expiry_due(1006, DELAYS)) == [3006]


def test_a_refreshed_subscription_goes_on_and_keeps_its_info(connection: Connection):
    subscribed(connection, expires_at=1000, info=b"1")
    assert connection.sub_refreshed("a", b"", 2000)
    assert connection.channels["a"].info == b"1"
    assert connection.expiry_due(1006, DELAYS) == []
    assert connection.sub_refreshed("a", b"2", 0)
    assert (connection.channels["a"].info, connection.next_expiry(DELAYS)) == (b"2", math.inf)
    assert not connection.sub_refreshed("b", b"", 0)


def test_a_sub_refresh_is_requested_and_answered(connection: Connection):
    subscribed(connection, expires_at=1000)
    wanted = connection.receive(line(2, "sub_refresh", channel="a", token="t"))
    assert wanted == [machine.SubRefresh(2, "a", "t")]
    assert said(connection.replied(2, "sub_refresh", {})) == [{"id": 2, "sub_refresh": {}}]


def test_a_sub_refresh_without_a_token_is_107_and_without_a_channel_3501(connection: Connection):
    subscribed(connection, expires_at=1000)
    assert error_code(connection.receive(line(2, "sub_refresh", channel="a"))) == 107
    assert codes(connection.receive(line(3, "sub_refresh", token="t"))) == [3501]


def test_a_refresh_takes_the_new_expiry_and_an_info_if_there_is_one(connection: Connection):
    connection.info = b"1"
    connection.refreshed(Claims("", b"", 2000), 2000)
    assert (connection.expires_at, connection.info) == (2000, b"1")
    connection.refreshed(Claims("", b"2", 0), 0)
    assert (connection.next_expiry(DELAYS), connection.info) == (math.inf, b"2")


def test_a_connection_that_never_expires_stays(connection: Connection):
    assert connection.expiry_due(1e12, DELAYS) == []


def test_a_connection_is_closed_once(connection: Connection):
    assert codes(connection.disconnect(SHUTDOWN)) == [3001]
    assert connection.disconnect(SHUTDOWN) == []
    assert connection.receive(b"garbage") == []
    assert connection.pong_due() == []


def test_commands_and_faults_are_counted():
    counters = Counters()
    connection = Connection("c", channel_limit=1, counters=counters)
    connection.receive(lines(line(1, "connect"), line(2, "presence"), line(3, "dance")))
    assert counters.commands["connect"] == 0
    connection = Connection("c", channel_limit=1, counters=counters)
    connection.receive(line(1, "connect"))
    enter(connection)
    connection.receive(b'{"id":2,"ping":{},"rpc":{}}')
    connection.receive(b"{")
    assert (counters.commands["connect"], counters.commands["ping"]) == (1, 1)
    assert (counters.client_errors["108"], counters.client_errors["3501"]) == (1, 2)
    assert (connection.commands, counters.messages_in) == (2, 2)
