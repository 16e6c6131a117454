"""Server-side subscriptions: of a token, the user's personal channel, the session, and the connect's subs.

The claims `channels` and `subs` are given to the node as if a token had had them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cluster.auth import Authenticator, ChannelOverride, Claims, ServerSubscription
from cluster.config import (
    ChannelConfig,
    ChannelOptions,
    ClientConfig,
    Config,
    Namespace,
    PersonalChannelConfig,
)
from tests.harness.waiting import until
from tests.unit.local_worker import WITHIN_SECONDS, Caller, LocalWorker, ask, entered
from tests.unit.test_websocket_protobuf import ProtobufCaller, protobuf_caller

KEPT = ChannelOptions(history_size=10, history_ttl=60.0)
FORCED = ChannelOptions(history_size=10, history_ttl=60.0, force_recovery=True)
OPEN = ChannelOptions(allow_subscribe_for_client=True, allow_publish_for_client=True)
Give = Callable[[Claims], None]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Lets every token of a test have these claims."""

    def claims(given: Claims) -> None:
        async def verified(*_: object) -> Claims:
            return given

        for name in ("connection", "refreshed"):
            monkeypatch.setattr(Authenticator, name, verified)

    return claims


def config(*, personal: PersonalChannelConfig | None = None, limit: int = 128) -> Config:
    return Config(
        client=ClientConfig(
            subscribe_to_user_personal_channel=personal or PersonalChannelConfig(),
            channel_limit=limit,
        ),
        channel=ChannelConfig(
            without_namespace=KEPT,
            namespaces=(Namespace("forced", FORCED), Namespace("open", OPEN)),
        ),
    )


async def refused(worker: LocalWorker, **request: Any) -> int:
    """The code of the error, or of the close, with which a connect is refused."""
    caller = await worker.caller()
    caller.say({"id": 1, "connect": request})
    await until(
        lambda: bool(caller.heard) or caller.wire.ended.is_set(), WITHIN_SECONDS, "an answer"
    )
    if caller.heard:
        return int(caller.heard[0]["error"]["code"])
    return int((await caller.closed())[0] or 0)


async def ended(caller: Caller | ProtobufCaller) -> tuple[int | None, str]:
    """Wait until a client is closed; returns close code and reason."""
    await asyncio.wait_for(caller.wire.ended.wait(), WITHIN_SECONDS)
    return caller.wire.close_code, caller.wire.close_reason


async def left(worker: LocalWorker) -> None:
    """Wait until the hub has no channel."""
    await until(lambda: not worker.node.hub.channels, WITHIN_SECONDS, "no channel is left")


async def test_the_channels_of_a_token_are_subscribed_to_at_connect(give: Give):
    give(Claims("42", b"", 0, channels=("forced:a", "b")))
    async with LocalWorker(config()).open() as worker:
        caller = await worker.caller()
        subs = (await caller.connect())["subs"]
        assert set(subs) == {"forced:a", "b"}
        assert (subs["forced:a"]["recoverable"], subs["b"]) == (True, {})
        await worker.node.commands.publish_from_server("b", b'{"data":1}')
        await caller.until(lambda: caller.pubs() == [1])
        # Section 2.3: subscribed already. The client cannot end it either.
        assert (await ask(caller, "subscribe", channel="b"))["error"]["code"] == 105
        await ask(caller, "unsubscribe", channel="b")
        await worker.node.commands.publish_from_server("b", b'{"data":2}')
        await caller.until(lambda: caller.pubs() == [1, 2])


async def test_subs_of_a_token_have_data_and_override_the_options_of_the_namespace(give: Give):
    subs = {
        "b": ServerSubscription(data=b'{"a":1}', override=ChannelOverride(force_recovery=True)),
        "forced:a": ServerSubscription(override=ChannelOverride(force_recovery=False)),
        "c": ServerSubscription(override=ChannelOverride(force_positioning=True)),
    }
    give(Claims("42", b"", 0, subs=subs))
    async with LocalWorker(config()).open() as worker:
        caller = await worker.caller()
        result = (await caller.connect())["subs"]
        assert (result["b"]["recoverable"], result["b"]["data"]) == (True, {"a": 1})
        assert result["forced:a"] == {}
        assert (result["c"]["positioned"], "recoverable" in result["c"]) == (True, False)


async def test_overrides_of_presence_and_joins_reach_the_subscription(give: Give):
    over = ChannelOverride(presence=True, join_leave=True, force_push_join_leave=True)
    give(Claims("42", b"", 0, subs={"b": ServerSubscription(info=b'"i"', override=over)}))
    async with LocalWorker(config()).open() as worker:
        seen: list[Any] = []
        prepare = worker.node.subscriptions.prepare_server_side

        async def recorded(*args: Any) -> Any:
            seen.extend(await prepare(*args))
            return seen

        worker.node.subscriptions.prepare_server_side = recorded  # type: ignore[method-assign, assignment]
        await entered(worker)
        [one] = seen
        assert (one.modes.has_presence, one.modes.emits_join_leave, one.modes.gets_join_leave) == (
            True, True, True,
        )  # fmt: skip
        assert one.details is not None
        assert one.details.info == b'"i"'


async def test_server_side_subscriptions_are_recovered_from_the_position_in_subs(give: Give):
    give(Claims("42", b"", 0, channels=("forced:a",)))
    async with LocalWorker(config()).open() as worker:
        first = await worker.caller()
        epoch = (await first.connect())["subs"]["forced:a"]["epoch"]
        for number in (1, 2, 3):
            await worker.node.commands.publish_from_server("forced:a", b'{"data":%d}' % number)
        again = await worker.caller()
        position = {"recover": True, "offset": 1, "epoch": epoch}
        result = (await again.connect(subs={"forced:a": position}))["subs"]["forced:a"]
        assert (result["recovered"], result["offset"]) == (True, 1)
        assert [one["data"] for one in result["publications"]] == [2, 3]


@pytest.mark.parametrize(
    ("channels", "code"),
    [(("nowhere:a",), 102), (("é",), 107), (tuple(f"c{n}" for n in range(4)), 3505)],
)
async def test_a_token_with_impossible_channels_is_refused(
    give: Give, channels: tuple[str, ...], code: int
):
    give(Claims("42", b"", 0, channels=channels))
    async with LocalWorker(config(limit=3)).open() as worker:
        assert await refused(worker) == code
        assert worker.store.sessions == {}, "no session is left"
        await left(worker)


async def test_the_channels_of_subs_are_subscribed_to_where_no_token_is_needed(give: Give):
    give(Claims("42", b"", 0))
    asked = {"open:a": {}, "b": {}, "$open:c": {}, "é": {}, "open:d": {"recover": True}}
    async with LocalWorker(config()).open() as worker:
        caller = await worker.caller()
        assert set((await caller.connect(subs=asked))["subs"]) == {"open:a", "open:d"}
        assert (await ask(caller, "subscribe", channel="open:a"))["error"]["code"] == 105
        # Nothing was refused: the client has only said what it had.
        assert worker.counters.permission_refusals["subscribe"] == 0


@pytest.mark.parametrize(
    ("asked", "code"), [(("nowhere:a",), 3501), (tuple(f"open:{n}" for n in range(4)), 3505)]
)
async def test_impossible_subs_close_the_connection(give: Give, asked: tuple[str, ...], code: int):
    give(Claims("42", b"", 0))
    async with LocalWorker(config(limit=3)).open() as worker:
        assert await refused(worker, subs={channel: {} for channel in asked}) == code
        await left(worker)


async def test_an_anonymous_user_gets_only_what_is_allowed_for_anonymous_users(give: Give):
    give(Claims("", b"", 0))
    async with LocalWorker(config()).open() as worker:
        caller = await worker.caller()
        assert "subs" not in await caller.connect(subs={"open:a": {}})


# --- sessions ----------------------------------------------------------------------------------


async def test_a_change_of_a_session_ends_only_what_came_from_it(give: Give):
    give(Claims("42", b"", 0, channels=("b",)))
    async with LocalWorker(config()).open() as worker:
        caller = await worker.caller()
        session = (await caller.connect(subs={"open:a": {}}))["data"]["session"]["id"]
        await worker.sessions.update(session, channels=("s", "b", "open:a"))
        await caller.until(lambda: b'"subscribe"' in caller.lines[-1])
        await worker.sessions.update(session, channels=())
        await caller.until(
            lambda: [
                one["push"]["channel"] for one in caller.heard if "unsubscribe" in one.get("push", {})
            ] == ["s"]
        )  # fmt: skip
        assert set(worker.node.hub.channels) == {"b", "open:a"}


async def test_a_session_s_channel_that_an_sdk_asks_for_again_is_still_the_session_s(give: Give):
    give(Claims("42", b"", 0))
    async with LocalWorker(config()).open() as worker:
        first = await worker.caller()
        session = (await first.connect())["data"]["session"]["id"]
        await worker.sessions.update(session, channels=("open:s",))
        await first.until(lambda: "open:s" in worker.node.hub.channels)
        again = await worker.caller()
        await again.connect(data={"session": session}, subs={"open:s": {"recover": True}})
        await worker.sessions.update(session, channels=())
        await left(worker)


# --- refresh -----------------------------------------------------------------------------------


async def test_a_refresh_with_the_same_channels_goes_on(give: Give):
    give(Claims("42", b"", 0, channels=("b", "c")))
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker)
        give(Claims("42", b"", 0, subs={"c": ServerSubscription(), "b": ServerSubscription()}))
        assert "refresh" in await ask(caller, "refresh", token="any")


@pytest.mark.parametrize("channels", [("b",), ("b", "c", "d"), ()])
async def test_a_refresh_whose_channels_have_changed_closes_with_3010(
    give: Give, channels: tuple[str, ...]
):
    give(Claims("42", b"", 0, channels=("b", "c")))
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker, subs={"open:a": {}})
        give(Claims("42", b"", 0, channels=channels))
        caller.say({"id": 2, "refresh": {"token": "any"}})
        assert (await caller.closed())[0] == 3010


# --- personal channels ---------------------------------------------------------------------------


@pytest.mark.parametrize(("namespace", "channel"), [("", "#42"), ("forced", "forced:#42")])
async def test_a_user_is_subscribed_to_its_personal_channel(
    give: Give, namespace: str, channel: str
):
    personal = PersonalChannelConfig(enabled=True, personal_channel_namespace=namespace)
    give(Claims("42", b"", 0))
    async with LocalWorker(config(personal=personal)).open() as worker:
        caller = await worker.caller()
        assert set((await caller.connect())["subs"]) == {channel}
        await worker.node.commands.publish_from_server(channel, b'{"data":1}')
        await caller.until(lambda: caller.pubs() == [1])
        give(Claims("", b"", 0))
        anonymous = await worker.caller()
        assert "subs" not in await anonymous.connect()


async def test_a_single_connection_closes_the_user_s_others(give: Give):
    personal = PersonalChannelConfig(enabled=True, single_connection=True)
    async with LocalWorker(config(personal=personal)).open() as worker:
        give(Claims("43", b"", 0, channels=("#42",)))
        other = await entered(worker)
        give(Claims("42", b"", 0))
        first: Caller = await entered(worker)
        second = await entered(worker)
        assert await first.closed() == (3504, "connection limit")
        assert "error" in await ask(second, "history", channel="nowhere:a", limit=1)
        assert "error" in await ask(other, "history", channel="nowhere:a", limit=1)
        assert not second.wire.ended.is_set()
        assert not other.wire.ended.is_set()


@pytest.mark.parametrize("is_json", [True, False])
async def test_a_single_connection_that_could_not_be_told_closes_and_is_closed_at_its_worker(
    give: Give, is_json: bool
):
    async def enter(worker: LocalWorker) -> Caller | ProtobufCaller:
        if is_json:
            return await entered(worker)
        return await protobuf_caller(worker, "?format=protobuf")

    personal = PersonalChannelConfig(enabled=True, single_connection=True)
    async with LocalWorker(config(personal=personal)).open() as worker:
        give(Claims("42", b"", 0))
        first = await enter(worker)
        worker.store.control.is_up = False
        second = await enter(worker)
        assert await ended(first) == (3504, "connection limit")
        worker.store.control.is_up = True
        third = await entered(worker)
        assert await ended(second) == (3504, "connection limit")
        assert "error" in await ask(third, "history", channel="nowhere:a", limit=1)
        assert not third.wire.ended.is_set()
