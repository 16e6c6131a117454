"""Presence, joins and leaves over a socket, with an in-memory store."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import orjson
import pytest

from cluster.config import ChannelConfig, ChannelOptions, Config, Namespace
from cluster.presence import PresenceMode
from tests.harness.waiting import until
from tests.unit.local_worker import Caller, LocalWorker, ask, changed, configured, entered
from tests.unit.test_auth import token

KEY = "k" * 32
WITHIN = 10.0
BOTH = ChannelOptions(presence=True, join_leave=True)
NAMESPACES = (
    Namespace("here", ChannelOptions(presence=True)),
    Namespace("told", ChannelOptions(join_leave=True)),
    Namespace("both", BOTH),
    Namespace("pushed", dataclasses.replace(BOTH, force_push_join_leave=True)),
)


def config(**client: Any) -> Config:
    channels = ChannelConfig(without_namespace=ChannelOptions(), namespaces=NAMESPACES)
    return changed(configured(**client), channel=channels)


def events(caller: Caller, channel: str = "pushed:a") -> list[tuple[str, str]]:
    """The kind and the client of every join and leave that a caller has received."""
    pushes = [one["push"] for one in caller.heard if "push" in one]
    return [
        (kind, push[kind]["info"]["client"])
        for push in pushes
        for kind in ("join", "leave")
        if push.get("channel") == channel and kind in push
    ]


async def person(worker: LocalWorker, **claims: Any) -> tuple[Caller, str]:
    """A connected caller, and its client id."""
    caller = await worker.caller()
    request = {"token": token(key=KEY, **claims)} if claims else {}
    return caller, (await caller.connect(**request))["client"]


async def members(caller: Caller, channel: str) -> dict[str, Any]:
    found: dict[str, Any] = (await ask(caller, "presence", channel=channel))["presence"]
    return found["presence"]


async def test_presence_has_the_info_of_every_member_and_stats_count_users():
    secret = dataclasses.replace(config().client.token, hmac_secret_key=KEY)
    async with LocalWorker(config(token=secret)).open() as worker:
        ann, one = await person(worker, sub="ann", info={"name": "Ann"})
        again, two = await person(worker, sub="ann")
        guest, three = await person(worker)
        for caller in (ann, again, guest):
            await ask(caller, "subscribe", channel="here:a")
        assert await members(guest, "here:a") == {
            one: {"user": "ann", "client": one, "conn_info": {"name": "Ann"}},
            two: {"user": "ann", "client": two},
            three: {"user": "", "client": three},
        }
        stats = (await ask(ann, "presence_stats", channel="here:a"))["presence_stats"]
        assert stats == {"num_clients": 3, "num_users": 2}
        assert worker.node.members is not None
        assert worker.node.members.entries == 3


@pytest.mark.parametrize("method", ["presence", "presence_stats"])
async def test_presence_is_refused_where_it_is_off_unknown_or_not_allowed(method: str):
    async with LocalWorker(config()).open() as worker:
        caller = await entered(worker)
        for channel, code in (("a", 108), ("told:a", 108), ("not-there:a", 102)):
            assert (await ask(caller, method, channel=channel))["error"]["code"] == code
        empty: dict[str, Any] = {"presence": {"presence": {}}}
        none = {"presence_stats": {"num_clients": 0, "num_users": 0}}
        answer = await ask(caller, method, channel="here:empty")
        assert answer == {"id": answer["id"], **(empty if method == "presence" else none)}


async def test_a_member_is_gone_at_once_when_it_unsubscribes_closes_or_its_socket_breaks():
    async with LocalWorker(config()).open() as worker:
        reader = await entered(worker)
        leavers = [await person(worker) for _ in range(3)]
        for caller, _ in leavers:
            await ask(caller, "subscribe", channel="here:a")
        assert set(await members(reader, "here:a")) == {client for _, client in leavers}
        (one, _), (two, _), (three, last) = leavers
        await ask(one, "unsubscribe", channel="here:a")
        two.wire.close()
        await until(lambda: len(worker.server.clients) == 3, WITHIN, "the second is closed")
        assert set(await members(reader, "here:a")) == {last}
        three.wire.abort()
        await until(lambda: len(worker.server.clients) == 2, WITHIN, "the third is gone")
        assert await members(reader, "here:a") == {}


async def test_a_client_gets_its_own_join_and_those_of_others_where_they_are_forced():
    async with LocalWorker(config()).open() as worker:
        ann, one = await person(worker)
        await ask(ann, "subscribe", channel="pushed:a")
        await ann.until(lambda: events(ann) == [("join", one)])
        replied = [number for number, said in enumerate(ann.heard) if "subscribe" in said]
        assert replied == [1], "the reply comes before the join"
        bob, two = await person(worker)
        await ask(bob, "subscribe", channel="pushed:a")
        await ask(bob, "unsubscribe", channel="pushed:a")
        await ann.until(lambda: events(ann)[1:] == [("join", two), ("leave", two)])
        # Its own leave is not for it any more.
        assert ("leave", two) not in events(bob)


async def test_joins_and_leaves_go_to_those_that_ask_and_to_no_others():
    async with LocalWorker(config()).open() as worker:
        quiet, told = await entered(worker), await entered(worker)
        await ask(quiet, "subscribe", channel="both:a")
        await ask(told, "subscribe", channel="both:a", join_leave=True)
        guest, client = await person(worker)
        await ask(guest, "subscribe", channel="both:a")
        guest.wire.abort()
        wanted = [("join", client), ("leave", client)]
        await told.until(lambda: events(told, "both:a")[-2:] == wanted)
        await ask(quiet, "publish", channel="both:a", data=1)
        await quiet.until(lambda: quiet.pubs() == [1])
        assert events(quiet, "both:a") == []


async def test_joins_and_leaves_are_told_without_presence_and_not_without_their_option():
    async with LocalWorker(config()).open() as worker:
        caller, client = await person(worker)
        await ask(caller, "subscribe", channel="told:a", join_leave=True)
        await caller.until(lambda: events(caller, "told:a") == [("join", client)])
        await ask(caller, "subscribe", channel="here:a", join_leave=True)
        assert set(await members(caller, "here:a")) == {client}
        assert events(caller, "here:a") == []


async def test_a_join_and_a_leave_of_one_turn_are_both_told():
    async with LocalWorker(config()).open() as worker:
        ann, _ = await person(worker)
        await ask(ann, "subscribe", channel="pushed:a")
        bob, two = await person(worker)
        # The second subscribe needs nothing of the store, so all of it happens in one turn.
        bob.say(
            {"id": 2, "subscribe": {"channel": "pushed:a"}},
            {"id": 3, "unsubscribe": {"channel": "pushed:a"}},
        )
        await ann.until(lambda: events(ann)[1:] == [("join", two), ("leave", two)])
        assert set(await members(ann, "pushed:a")) != {two}


async def test_the_joins_of_one_turn_are_one_message():
    async with LocalWorker(config()).open() as worker:
        ann, _ = await person(worker)
        await ask(ann, "subscribe", channel="pushed:a")
        await ann.until(lambda: len(events(ann)) == 1)
        frames: list[bytes] = []
        ann.wire.on_message = lambda opcode, data: frames.append(data)
        joins = [b'j{"user":"","client":"%d"}' % number for number in range(50)]
        worker.store.tell("pushed:a", joins)
        await until(lambda: bool(frames), WITHIN, "the joins have arrived")
        assert [frame.count(b'"join"') for frame in frames] == [50]


async def test_a_session_s_channel_has_members_too():
    async with LocalWorker(config()).open() as worker:
        caller = await worker.caller()
        session = (await caller.connect())["data"]["session"]["id"]
        await worker.sessions.update(session, channels=("pushed:a",))
        await caller.until(lambda: len(events(caller)) == 1)
        other = await worker.caller()
        connected = await other.connect(data={"session": session})
        assert list(connected["subs"]) == ["pushed:a"]
        await caller.until(lambda: len(events(caller)) == 2)
        await worker.sessions.update(session, channels=())
        await other.until(lambda: any("unsubscribe" in one.get("push", ()) for one in other.heard))
        assert await members(caller, "pushed:a") == {}


async def test_a_channel_with_more_members_than_a_reply_holds_is_refused_and_can_be_counted():
    async with LocalWorker(config(queue_max_size=2048)).open() as worker:
        caller = await entered(worker)
        for number in range(20):
            info = orjson.dumps({"user": str(number), "client": f"{number:036}"})
            worker.store.members.setdefault("here:a", {})[str(number)] = (9e9, str(number), info)
        assert (await ask(caller, "presence", channel="here:a"))["error"]["code"] == 106
        stats = (await ask(caller, "presence_stats", channel="here:a"))["presence_stats"]
        assert stats == {"num_clients": 20, "num_users": 20}


async def test_the_server_reads_presence_without_a_client():
    async with LocalWorker(config(insecure=True)).open() as worker:
        caller, client = await person(worker)
        await ask(caller, "subscribe", channel="here:a")
        assert await worker.node.presence.stats("here:a") == {"num_clients": 1, "num_users": 1}
        assert list((await worker.node.presence.read("here:a"))["presence"]) == [client]


# --- the lease --------------------------------------------------------------------------------

QUICK = {"presence_update_interval": 0.3, "presence_ttl": 1.0}


async def test_entries_are_renewed_and_come_back_when_the_store_has_lost_them():
    async with LocalWorker(config(**QUICK)).open() as worker:
        ann, one = await person(worker)
        await ask(ann, "subscribe", channel="pushed:a")
        renewals = worker.counters.presence_renewals
        await until(lambda: renewals["renewed"] > 5, WITHIN, "it is renewed")
        assert set(worker.store.members["pushed:a"]) == {one}
        worker.store.members.clear()
        await until(lambda: renewals["restored"] == 1, WITHIN, "it is back")
        assert set(await members(ann, "pushed:a")) == {one}
        # The others know it: nothing is told.
        assert events(ann) == [("join", one)]


async def test_a_store_that_is_away_is_counted_and_logged_once(capsys: pytest.CaptureFixture[str]):
    async with LocalWorker(config(**QUICK)).open() as worker:
        ann, one = await person(worker)
        await ask(ann, "subscribe", channel="here:a")
        await ask(ann, "presence_stats", channel="here:a")
        worker.store.is_up = False
        counters = worker.counters
        await until(lambda: counters.presence_renewals["failed"] > 3, WITHIN, "renewals fail")
        assert counters.errors["presence"] > 3
        assert (await ask(ann, "presence", channel="here:a"))["error"]["code"] == 100
        worker.store.members.clear()
        worker.store.is_up = True
        await until(lambda: counters.presence_renewals["restored"] == 1, WITHIN, "it is back")
        assert set(await members(ann, "here:a")) == {one}
        assert capsys.readouterr().out.count("presence_renew_failed") <= 1


async def test_the_leaves_of_a_dead_worker_come_when_its_lease_ends():
    async with LocalWorker(
        config(presence_update_interval=5.0, presence_ttl=12.0)
    ).open() as worker:
        ann, one = await person(worker)
        await ask(ann, "subscribe", channel="pushed:a")
        await ann.until(lambda: bool(events(ann)))
        assert worker.node.members is not None
        [channel] = worker.node.members._channels.values()
        # Left by a worker that was killed; its end lies before this worker's renewal.
        info = orjson.dumps({"user": "bob", "client": "dead"})
        loop_now = worker.node.members._loop.time()
        worker.store.members["pushed:a"]["dead"] = (loop_now + 0.5, "bob", info)
        worker.node.members._renew_at(channel, loop_now)
        await ann.until(lambda: events(ann) == [("join", one), ("leave", "dead")])
        assert worker.node.members._loop.time() < loop_now + 4.0, "it was not the next renewal"


async def test_after_a_failure_nothing_is_swept_until_all_may_have_renewed():
    slow = {"presence_update_interval": 20.0, "presence_ttl": 60.0}
    async with LocalWorker(config(**slow)).open() as worker:
        ann, _ = await person(worker)
        await ask(ann, "subscribe", channel="here:a")
        await ask(ann, "subscribe", channel="here:b")
        stats = worker.node.presence.stats
        assert (await stats("here:a"))["num_clients"] == 1
        # Not renewed in time, because its worker lost the store as well.
        worker.store.members["here:a"]["other"] = (0.0, "bob", b'{"user":"bob","client":"other"}')
        worker.store.is_up = False
        await ask(ann, "unsubscribe", channel="here:b")
        await until(lambda: worker.counters.errors["presence"] > 0, WITHIN, "the change fails")
        worker.store.is_up = True
        assert worker.node.members is not None
        assert worker.node.members.may_sweep is False
        assert (await stats("here:a"))["num_clients"] == 2
        worker.node.members._failed_at -= slow["presence_update_interval"]
        assert (await stats("here:a"))["num_clients"] == 1


async def test_after_a_failure_a_renewal_sweeps_nobody_until_all_may_have_renewed():
    slow = {"presence_update_interval": 20.0, "presence_ttl": 60.0}
    async with LocalWorker(config(**slow)).open() as worker:
        ann, one = await person(worker)
        await ask(ann, "subscribe", channel="pushed:a")
        await ann.until(lambda: bool(events(ann)))
        found, renewals = worker.node.members, worker.counters.presence_renewals
        assert found is not None
        channel = found._channels["pushed:a"]
        info = orjson.dumps({"user": "bob", "client": "other"})
        worker.store.members["pushed:a"]["other"] = (0.0, "bob", info)
        found._failed_at = found._loop.time()
        found._renew_at(channel, found._loop.time())
        await until(lambda: renewals["renewed"] == 1, WITHIN, "it is renewed")
        assert set(worker.store.members["pushed:a"]) == {one, "other"}
        found._failed_at -= slow["presence_update_interval"]
        found._renew_at(channel, found._loop.time())
        await ann.until(lambda: events(ann) == [("join", one), ("leave", "other")])


async def test_a_worker_that_was_stopped_for_longer_than_its_lease_tells_that_its_members_are_back():
    slow = {"presence_update_interval": 20.0, "presence_ttl": 60.0}
    async with LocalWorker(config(**slow)).open() as worker:
        ann, one = await person(worker)
        await ask(ann, "subscribe", channel="pushed:a")
        await ann.until(lambda: events(ann) == [("join", one)])
        found = worker.node.members
        assert found is not None
        channel = found._channels["pushed:a"]
        # Others have removed its entry, and have told that it has left.
        del worker.store.members["pushed:a"][one]
        channel.renewed_at -= slow["presence_ttl"] + 1
        found._renew_at(channel, found._loop.time())
        await ann.until(lambda: events(ann) == [("join", one), ("join", one)])
        assert set(await members(ann, "pushed:a")) == {one}


async def test_the_first_renewal_is_at_a_random_point_in_the_second_half_of_the_interval():
    async with LocalWorker(
        config(presence_update_interval=20.0, presence_ttl=60.0)
    ).open() as worker:
        ann, _ = await person(worker)
        found = worker.node.members
        assert found is not None
        began = found._loop.time()
        for number in range(40):
            await ask(ann, "subscribe", channel=f"here:{number}")
        ended = found._loop.time()
        times = [channel.renew_at for channel in found._channels.values()]
        assert len(times) == 40
        assert all(began + 10.0 <= at <= ended + 20.0 for at in times)
        # That forty of them fall into one half of it has a probability of 2 in 2^40.
        assert min(times) < began + 15.0 < max(times)


def test_what_a_channel_keeps_is_what_its_namespace_says():
    async def mode() -> list[PresenceMode]:
        worker = LocalWorker(config())
        permissions = worker.node.channels._permissions
        return [permissions.presence_mode(f"{name}:a") for name in ("here", "told", "both")]

    assert asyncio.run(mode()) == [(True, False), (False, True), (True, True)]


async def test_after_a_refresh_presence_has_the_new_info_and_the_leave_too():
    secret = dataclasses.replace(config().client.token, hmac_secret_key=KEY)
    async with LocalWorker(config(token=secret)).open() as worker:
        ann, one = await person(worker, sub="ann", info={"n": 1})
        bob, _ = await person(worker, sub="bob")
        await ask(bob, "subscribe", channel="pushed:a")
        await ask(ann, "subscribe", channel="pushed:a")
        assert (await members(bob, "pushed:a"))[one]["conn_info"] == {"n": 1}
        await ask(ann, "refresh", token=token(key=KEY, sub="ann", info={"n": 2}))
        known = {"user": "ann", "client": one, "conn_info": {"n": 2}}
        assert (await members(bob, "pushed:a"))[one] == known
        for_channel = token(key=KEY, sub="ann", channel="pushed:a", info={"c": 3})
        answer = await ask(ann, "sub_refresh", channel="pushed:a", token=for_channel)
        assert "sub_refresh" in answer
        known["chan_info"] = {"c": 3}
        assert (await members(bob, "pushed:a"))[one] == known
        stats = (await ask(bob, "presence_stats", channel="pushed:a"))["presence_stats"]
        assert stats == {"num_clients": 2, "num_users": 2}
        assert ann.wire.transport is not None
        ann.wire.transport.abort()
        await bob.until(lambda: ("leave", one) in events(bob))
        [left] = [
            push["push"]["leave"]["info"] for push in bob.heard if "leave" in push.get("push", {})
        ]
        assert left == known
        # A change of the info is neither a join nor a leave.
        assert [kind for kind, client in events(bob) if client == one] == ["join", "leave"]
