"""Tokens at a whole worker: subscriptions that need one, refreshes, expiries, and their codes."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import pytest

from cluster.auth import Claims
from cluster.config import ChannelOptions, Config, TokenConfig
from cluster.errors import StoreUnavailable
from tests.unit.local_worker import Caller, LocalWorker, ask, configured
from tests.unit.test_auth import token as signed

KEY = "k" * 32
OPTIONS = TokenConfig(hmac_secret_key=KEY)


def token(**claims: Any) -> str:
    return signed(key=KEY, **claims)


def for_channel(channel: str = "$a", user: str = "ann", **claims: Any) -> str:
    return token(sub=user, channel=channel, **claims)


def config(**client: Any) -> Config:
    given: dict[str, Any] = {"insecure": False, "token": OPTIONS} | client
    return configured(**given)


async def entered(worker: LocalWorker, **claims: Any) -> Caller:
    caller = await worker.caller()
    await caller.connect(token=token(**({"sub": "ann"} | claims)))
    return caller


# --- subscribing -------------------------------------------------------------------------------


async def test_a_private_channel_needs_a_token_and_a_token_is_all_that_it_needs():
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker)
        assert (await ask(caller, "subscribe", channel="$a"))["error"]["code"] == 103
        for channel in ("$a", "b"):
            answer = await ask(caller, "subscribe", channel=channel, token=for_channel(channel))
            assert "subscribe" in answer


async def test_a_second_subscriber_needs_a_token_too():
    async with LocalWorker(config()).open() as worker:
        for _ in range(2):
            caller = await entered(worker)
            assert (await ask(caller, "subscribe", channel="$a"))["error"]["code"] == 103
            assert "subscribe" in await ask(caller, "subscribe", channel="$a", token=for_channel())
        assert worker.counters.tokens_refused["signature"] == 0


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("nonsense", 103, "malformed"),
        (signed(key="x" * 32, sub="ann", channel="$a"), 103, "signature"),
        (for_channel(exp=1), 109, "expired"),
        (for_channel(nbf=2**40), 109, "not_yet_valid"),
        (for_channel(expire_at=1), 110, "ended"),
        (for_channel(info=[1], b64info="?"), 103, "malformed"),
    ],
)
@pytest.mark.parametrize("insecure", [True, False])
async def test_a_token_that_is_not_accepted_is_an_error(
    text: str, code: int, reason: str, insecure: bool
):
    async with LocalWorker(config(insecure=insecure)).open() as worker:
        caller = await entered(worker)
        answer = await ask(caller, "subscribe", channel="$a", token=text)
        assert answer["error"]["code"] == code
        assert worker.counters.tokens_refused[reason] == 1
        assert "subscribe" in await ask(caller, "subscribe", channel="$a", token=for_channel())


@pytest.mark.parametrize(
    "text",
    [
        for_channel("$b"), for_channel(user="bob"), for_channel(client="another"),
        for_channel(user=""), token(channel="$a"), token(sub="ann"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_served", [True, False])
async def test_a_token_for_another_channel_user_or_client_closes_with_3500(
    text: str, is_served: bool
):
    async with LocalWorker(config()).open() as worker:
        if is_served:
            other = await entered(worker)
            await ask(other, "subscribe", channel="$a", token=for_channel())
        caller = await entered(worker)
        caller.say({"id": 2, "subscribe": {"channel": "$a", "token": text}})
        assert (await caller.closed())[0] == 3500


async def test_a_token_may_be_for_one_client_alone():
    async with LocalWorker(config()).open() as worker:
        caller = await worker.caller()
        client = (await caller.connect(token=token(sub="ann")))["client"]
        answer = await ask(caller, "subscribe", channel="$a", token=for_channel(client=client))
        assert "subscribe" in answer


async def test_the_reply_has_the_token_s_data_and_expiry():
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker)
        text = for_channel(exp=time.time() + 60, data={"a": 1})
        result = (await ask(caller, "subscribe", channel="$a", token=text))["subscribe"]
        assert (result["data"], result["expires"]) == ({"a": 1}, True)
        assert 50 <= result["ttl"] <= 60
        once = for_channel("$b", exp=time.time() + 60, expire_at=0)
        result = (await ask(caller, "subscribe", channel="$b", token=once))["subscribe"]
        assert "expires" not in result


async def test_a_token_overrides_the_options_of_the_channel():
    options = ChannelOptions(history_size=10, history_ttl=60.0)
    settings = dataclasses.replace(config(), channel=configured(options=options).channel)
    async with LocalWorker(settings).open() as worker:
        caller = await entered(worker)
        plain = await ask(caller, "subscribe", channel="$a", token=for_channel())
        assert "recoverable" not in plain["subscribe"]
        override = {"force_recovery": {"value": True}, "presence": {"value": True}}
        text = for_channel("$b", override=override)
        forced = await ask(caller, "subscribe", channel="$b", token=text)
        assert forced["subscribe"]["recoverable"] is True


async def test_the_info_of_a_token_is_in_the_client_s_publications_in_that_channel():
    async with LocalWorker(config(insecure=True)).open() as worker:
        caller = await entered(worker, info={"conn": 1})
        await ask(caller, "subscribe", channel="a", token=for_channel("a", info={"n": 1.10}))
        await ask(caller, "subscribe", channel="b")
        for channel in ("a", "b"):
            await ask(caller, "publish", channel=channel, data=1)
        await caller.until(lambda: len(caller.pubs()) == 2)
        infos = {
            one["push"]["channel"]: one["push"]["pub"]["info"]
            for one in caller.heard
            if "pub" in one.get("push", {})
        }
        assert infos["a"]["chan_info"] == {"n": 1.1}
        assert "chan_info" not in infos["b"]
        assert infos["a"]["conn_info"] == infos["b"]["conn_info"] == {"conn": 1}


# --- refreshes ---------------------------------------------------------------------------------


async def test_a_refresh_extends_a_connection():
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker, exp=time.time() + 30)
        result = (await ask(caller, "refresh", token=token(sub="ann", exp=time.time() + 60)))[
            "refresh"
        ]
        assert result["expires"] is True
        assert 50 <= result["ttl"] <= 60
        assert result["client"]
        last = (await ask(caller, "refresh", token=token(sub="ann", info={"n": 2})))["refresh"]
        assert "expires" not in last
        [client] = worker.server.clients
        assert (client.connection.info, client.connection.expires_at) == (b'{"n":2}', 0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nonsense", 3500),
        (token(sub="bob"), 3500),
        (token(), 3500),
        (for_channel(), 3500),
        (token(sub="ann", exp=1), 3005),
        (token(sub="ann", nbf=2**40), 3005),
        ("", 3501),
    ],
)
async def test_a_refresh_with_a_wrong_token_closes(text: str, code: int):
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker, exp=time.time() + 60)
        caller.say({"id": 2, "refresh": {"token": text}})
        assert (await caller.closed())[0] == code
        assert worker.counters.refresh_failures["connection"] == (1 if text else 0)


async def test_a_refresh_whose_expiry_has_passed_is_110():
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker)
        answer = await ask(caller, "refresh", token=token(sub="ann", expire_at=1))
        assert answer["error"]["code"] == 110


async def test_a_connection_without_a_token_is_not_refreshed_by_its_client():
    async with LocalWorker(config(insecure=True)).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        caller.say({"id": 2, "refresh": {"token": token()}})
        assert (await caller.closed())[0] == 3501


async def test_a_connection_that_is_not_refreshed_is_closed_with_3005():
    async with LocalWorker(config(expired_close_delay=0.0)).open() as worker:
        caller = await entered(worker, exp=time.time() + 4)
        assert await caller.closed() == (3005, "connection expired")
        assert worker.counters.refresh_failures["connection"] == 1


async def test_a_subscription_that_is_not_refreshed_ends_with_2501_and_the_connection_stays():
    async with LocalWorker(config(expired_sub_close_delay=0.0)).open() as worker:
        caller = await entered(worker)
        text = for_channel(exp=time.time() + 4)
        await ask(caller, "subscribe", channel="$a", token=text)
        push = await caller.until(
            lambda: next((one for one in caller.heard if "unsubscribe" in one.get("push", {})), {})
        )
        assert push["push"] == {
            "channel": "$a", "unsubscribe": {"code": 2501, "reason": "subscription expired"},
        }  # fmt: skip
        assert "subscribe" in await ask(caller, "subscribe", channel="$a", token=for_channel())
        assert worker.counters.refresh_failures["subscription"] == 1


async def test_a_sub_refresh_extends_a_subscription():
    async with LocalWorker(config(expired_sub_close_delay=0.0)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="$a", token=for_channel(exp=time.time() + 30))
        text = for_channel(exp=time.time() + 60)
        result = (await ask(caller, "sub_refresh", channel="$a", token=text))["sub_refresh"]
        assert result["expires"] is True
        assert 50 <= result["ttl"] <= 60
        assert (await ask(caller, "sub_refresh", channel="$a", token=for_channel())) == {
            "id": 4, "sub_refresh": {},
        }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nonsense", 3500),
        (for_channel("$b"), 3500),
        (for_channel(user="bob"), 3500),
        (for_channel(client="another"), 3500),
        (token(sub="ann"), 3500),
        (for_channel(exp=1), 3006),
    ],
)
async def test_a_sub_refresh_with_a_wrong_token_closes(text: str, code: int):
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="$a", token=for_channel())
        caller.say({"id": 3, "sub_refresh": {"channel": "$a", "token": text}})
        assert (await caller.closed())[0] == code
        assert worker.counters.refresh_failures["subscription"] == 1


async def test_a_sub_refresh_with_info_changes_the_presence_of_its_channel_only(
    monkeypatch: pytest.MonkeyPatch,
):
    seen: list[dict[str, bytes]] = []

    class Members:
        def update(self, client: object, chan_infos: dict[str, bytes]) -> None:
            seen.append(chan_infos)

    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker)
        for channel in ("$a", "$b"):
            await ask(caller, "subscribe", channel=channel, token=for_channel(channel))
        with monkeypatch.context() as patch:
            patch.setattr(worker.node, "members", Members())
            await ask(caller, "sub_refresh", channel="$a", token=for_channel(info={"n": 1}))
            await ask(caller, "refresh", token=token(sub="ann", info={"n": 2}))
    assert seen == [{"$a": b'{"n":1}'}, {"$a": b'{"n":1}', "$b": b""}]


async def test_a_sub_refresh_that_cannot_be_done_is_an_error():
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="$a", token=for_channel())
        for params, code in (
            ({"channel": "$b", "token": for_channel("$b")}, 103),
            ({"channel": "$a"}, 107),
            ({"channel": "$a", "token": for_channel(expire_at=1)}, 110),
        ):
            assert (await ask(caller, "sub_refresh", **params))["error"]["code"] == code


# --- revoked tokens ------------------------------------------------------------------------------


class Revoked:
    """Says of a token what the test wants."""

    def __init__(self) -> None:
        self.answer: str | Exception | None = None

    def look_up(self, claims: Claims) -> asyncio.Future[str] | None:
        if self.answer is None:
            return None
        found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if isinstance(self.answer, Exception):
            found.set_exception(self.answer)
        else:
            found.set_result(self.answer)
        return found


@pytest.mark.parametrize(("answer", "code"), [("revoked", 3500), ("blocked", 3507)])
async def test_a_revoked_token_or_a_blocked_user_is_refused_at_connect_and_refresh(
    answer: str, code: int
):
    revoked = Revoked()
    worker = LocalWorker(config())
    worker.node._revocations = worker.node.refreshes._revocations = revoked
    async with worker.open():
        caller = await entered(worker)
        revoked.answer = answer
        other = await worker.caller()
        other.say({"id": 1, "connect": {"token": token(sub="ann")}})
        assert (await other.closed())[0] == code
        caller.say({"id": 2, "refresh": {"token": token(sub="ann")}})
        assert (await caller.closed())[0] == code
        assert worker.counters.tokens_refused[answer] == 2


async def test_a_look_up_that_fails_is_temporary():
    revoked = Revoked()
    worker = LocalWorker(config())
    worker.node._revocations = worker.node.refreshes._revocations = revoked
    async with worker.open():
        caller = await entered(worker)
        revoked.answer = StoreUnavailable("away")
        assert (await ask(caller, "refresh", token=token(sub="ann")))["error"]["code"] == 100
        other = await worker.caller()
        other.say({"id": 1, "connect": {"token": token(sub="ann")}})
        assert (await other.reply(1))["error"]["code"] == 100
        assert worker.counters.errors["store"] == 2
