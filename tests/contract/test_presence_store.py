"""The contract of presence: what `cluster.presence.PresenceStore` promises with every kind of store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.errors import StoreError, StoreUnavailable
from cluster.presence import (
    ADD,
    JOIN,
    LEAVE,
    Change,
    PresenceMode,
    PresenceStats,
    PresenceTooLarge,
    Renewed,
)
from cluster.presence.client_info import client_info
from tests.contract.stores import WAIT_SECONDS, Bench, RedisBench, Worker
from tests.harness.waiting import until, until_async

FULL = PresenceMode(has_entries=True, is_published=True)
SILENT = PresenceMode(has_entries=True, is_published=False)
BARE = PresenceMode(has_entries=False, is_published=True)


def info(user: str, client: str) -> bytes:
    return client_info(user, client, b"", b"")


def one(kind: bytes, user: str, client: str) -> Change:
    return Change(kind, client, user, info(user, client))


async def change(
    worker: Worker, *changes: Change, channel: str = "c", mode: PresenceMode = FULL
) -> None:
    answer: asyncio.Future[StoreError | None] = asyncio.get_running_loop().create_future()
    worker.presence.change(channel, changes, mode, answer.set_result)
    error = await asyncio.wait_for(answer, WAIT_SECONDS)
    if error is not None:
        raise error


async def renew(worker: Worker, *clients: str, sweeps: bool = True) -> Renewed:
    answer: asyncio.Future[Renewed | StoreError] = asyncio.get_running_loop().create_future()
    worker.presence.renew("c", clients, answer.set_result, sweeps=sweeps)
    reply = await asyncio.wait_for(answer, WAIT_SECONDS)
    assert isinstance(reply, Renewed), reply
    return reply


async def stats(worker: Worker, channel: str = "c", *, sweeps: bool = True) -> PresenceStats:
    return await worker.presence.stats(channel, sweeps=sweeps)


async def entries(worker: Worker, max_bytes: int = 1 << 20) -> dict[str, bytes]:
    return await worker.presence.entries("c", max_bytes=max_bytes, sweeps=True)


async def test_members_are_seen_by_every_worker_and_gone_when_they_leave(bench: Bench):
    here, there = await bench.worker(), await bench.worker()
    assert await stats(there) == (0, 0)
    assert await entries(there) == {}
    await change(here, one(JOIN, "ann", "1"), one(JOIN, "ann", "2"), one(JOIN, "", "3"))
    assert await stats(there) == (3, 2)
    assert await entries(there) == {
        "1": info("ann", "1"),
        "2": info("ann", "2"),
        "3": info("", "3"),
    }
    await change(here, one(LEAVE, "ann", "1"))
    assert await stats(there) == (2, 2)
    await change(here, one(LEAVE, "ann", "2"), one(LEAVE, "", "3"))
    assert await stats(there) == (0, 0)
    assert await entries(there) == {}


async def test_names_of_any_characters_are_kept(bench: Bench):
    worker = await bench.worker()
    users = ["12:3", "Zoë", ":", "a\nb", '"{}', "%s"]
    await change(worker, *(one(JOIN, user, str(n)) for n, user in enumerate(users)))
    assert await entries(worker) == {str(n): info(user, str(n)) for n, user in enumerate(users)}
    assert await stats(worker) == (6, 6)
    await change(worker, *(one(LEAVE, user, str(n)) for n, user in enumerate(users)))
    assert await stats(worker) == (0, 0)


async def test_an_entry_that_is_added_twice_counts_once(bench: Bench):
    worker = await bench.worker()
    await change(worker, one(JOIN, "ann", "1"), one(ADD, "ann", "1"), one(JOIN, "ann", "1"))
    assert await stats(worker) == (1, 1)


async def test_joins_and_leaves_reach_the_subscribers_in_order(bench: Bench):
    speaker, listener = await bench.worker(), await bench.worker()
    await listener.subscribe()
    await change(speaker, one(JOIN, "ann", "1"), one(LEAVE, "ann", "1"), one(JOIN, "bob", "2"))
    await listener.recorder.until(lambda: len(listener.recorder.events) == 3)
    assert listener.recorder.events == [
        ("c", b"j" + info("ann", "1")),
        ("c", b"l" + info("ann", "1")),
        ("c", b"j" + info("bob", "2")),
    ]
    assert listener.recorder.received == []


async def test_what_is_added_silently_and_what_is_not_there_is_not_told(bench: Bench):
    worker = await bench.worker()
    await worker.subscribe()
    await change(worker, one(ADD, "ann", "1"), one(LEAVE, "bob", "2"))
    await change(worker, one(JOIN, "eve", "3"), mode=SILENT)
    await change(worker, one(JOIN, "zed", "4"))
    await worker.recorder.until(lambda: bool(worker.recorder.events))
    assert worker.recorder.events == [("c", b"j" + info("zed", "4"))]


async def test_without_entries_joins_and_leaves_are_only_told(bench: Bench):
    worker = await bench.worker()
    await worker.subscribe()
    await change(worker, one(JOIN, "ann", "1"), one(LEAVE, "ann", "1"), mode=BARE)
    await worker.recorder.until(lambda: len(worker.recorder.events) == 2)
    assert [event[:1] for _, event in worker.recorder.events] == [JOIN, LEAVE]
    assert await stats(worker) == (0, 0)


async def test_a_renewal_keeps_entries_and_names_those_that_are_missing(bench: Bench):
    worker = await bench.worker(presence_ttl=1.0)
    await change(worker, one(JOIN, "ann", "1"))
    renewed = await renew(worker, "1", "2")
    assert renewed.missing == ["2"]
    assert renewed.expires_in_seconds == pytest.approx(1.0, abs=0.5)
    assert (await renew(worker)).missing == []


async def test_a_channel_without_entries_has_none_that_expires(bench: Bench):
    assert await renew(await bench.worker(), "1") == Renewed(["1"], None)


async def test_an_expired_entry_gives_one_leave_whoever_removes_it(bench: Bench):
    dead = await bench.worker(presence_ttl=0.3)
    survivors = [await bench.worker() for _ in range(3)]
    await survivors[0].subscribe()
    await change(dead, one(JOIN, "ann", "1"), one(JOIN, "bob", "2"))
    await change(survivors[0], one(JOIN, "ann", "3"))
    heard = survivors[0].recorder

    async def is_swept() -> bool:
        await asyncio.gather(*(renew(one) for one in survivors))
        return await stats(survivors[1]) == (1, 1)

    await until_async(is_swept, WAIT_SECONDS, "the dead entries are gone")
    await change(survivors[0], one(LEAVE, "ann", "3"))
    last = ("c", b"l" + info("ann", "3"))
    await heard.until(lambda: last in heard.events)
    assert sorted(event for event in heard.events if event[1][:1] == LEAVE) == sorted(
        [("c", b"l" + info("ann", "1")), ("c", b"l" + info("bob", "2")), last]
    )


@pytest.mark.parametrize("user", ["", "ann", "a name of 23 characters"])
async def test_of_an_entry_that_nobody_is_told_of_nobody_is_told_whoever_removes_it(
    bench: Bench, user: str
):
    dead, survivor = await bench.worker(presence_ttl=0.3), await bench.worker()
    await survivor.subscribe()
    await change(dead, one(JOIN, user, "1"), one(ADD, user, "1"), mode=SILENT)
    await change(dead, one(JOIN, user, "2"))
    await change(survivor, one(JOIN, user, "3"), mode=SILENT)
    assert await stats(survivor, sweeps=False) == (3, 1)
    assert (await entries(survivor))["3"] == info(user, "3")

    async def is_swept() -> bool:
        await renew(survivor, "3")
        return await stats(survivor, sweeps=False) == (1, 1)

    await until_async(is_swept, WAIT_SECONDS, "the dead entries are gone")
    await change(survivor, one(LEAVE, user, "3"), mode=SILENT)
    await change(survivor, one(JOIN, user, "4"))
    last = ("c", b"j" + info(user, "4"))
    await survivor.recorder.until(lambda: last in survivor.recorder.events)
    told = [(b"j", "2"), (b"l", "2"), (b"j", "4")]
    assert survivor.recorder.events == [("c", kind + info(user, name)) for kind, name in told]


async def test_a_read_does_not_show_what_has_expired(bench: Bench):
    dead, reader = await bench.worker(presence_ttl=0.2), await bench.worker()
    await change(dead, *(one(JOIN, "ann", str(n)) for n in range(3)))
    await change(reader, one(JOIN, "bob", "9"))

    async def is_gone() -> bool:
        return await entries(reader) == {"9": info("bob", "9")}

    await until_async(is_gone, WAIT_SECONDS, "only the living entry is shown")
    assert await stats(reader) == (1, 1)


async def test_without_sweeping_nothing_is_removed(bench: Bench):
    worker = await bench.worker(presence_ttl=0.1)
    await change(worker, one(JOIN, "ann", "1"))

    async def is_expired() -> bool:
        return (await renew(worker, sweeps=False)).expires_in_seconds == 0.0

    await until_async(is_expired, WAIT_SECONDS, "the entry has expired")
    assert await stats(worker, sweeps=False) == (1, 1)
    assert await stats(worker) == (0, 0)


async def test_more_entries_than_the_reader_can_take_are_refused(bench: Bench):
    worker = await bench.worker()
    await change(worker, *(one(JOIN, f"user {n}", f"client {n:036}") for n in range(2000)))
    assert len(await entries(worker)) == 2000
    for most in (1000, 150_000):
        with pytest.raises(PresenceTooLarge):
            await entries(worker, most)
    assert await stats(worker) == (2000, 2000)


async def test_channels_do_not_mix(bench: Bench):
    worker = await bench.worker()
    await change(worker, one(JOIN, "ann", "1"), channel="a")
    await change(worker, one(JOIN, "ann", "1"), channel="b")
    await change(worker, one(LEAVE, "ann", "1"), channel="a")
    assert [await stats(worker, channel) for channel in "ab"] == [(0, 0), (1, 1)]


# --- real servers alone -----------------------------------------------------------------------


async def test_nothing_is_left_of_a_channel_whose_members_have_left(real: RedisBench):
    worker = await real.worker()
    await change(worker, one(JOIN, "ann", "1"), one(JOIN, "bob", "2"))
    await change(worker, one(LEAVE, "ann", "1"), one(LEAVE, "bob", "2"))
    assert await real.streams() == 0


async def test_the_keys_of_a_channel_that_nobody_renews_expire(real: RedisBench):
    worker = await real.worker(presence_ttl=5.0)
    await change(worker, one(JOIN, "ann", "1"))
    for part in ("members", "member_ends", "member_users"):
        life = real.servers[0].ask("PTTL", real.key("c", part))
        assert 5_000 < life <= 65_000


async def test_numbers_are_right_again_after_the_store_has_dropped_one_of_the_keys(
    real: RedisBench,
):
    worker = await real.worker()
    await change(worker, one(JOIN, "ann", "1"), one(JOIN, "bob", "2"))
    real.servers[0].ask("DEL", real.key("c", "members"))
    assert (await renew(worker, "1", "2")).missing == ["1", "2"]
    await change(worker, one(ADD, "ann", "1"))
    assert await stats(worker) == (1, 1)


async def test_many_expired_entries_are_removed_before_the_number_is_told(real: RedisBench):
    dead, reader = await real.worker(presence_ttl=0.1), await real.worker()
    for first in range(0, 2000, 200):
        await change(dead, *(one(JOIN, str(n), str(n)) for n in range(first, first + 200)))

    async def is_empty() -> bool:
        return await stats(reader) == (0, 0)

    await until_async(is_empty, WAIT_SECONDS, "all are gone")


async def test_presence_works_in_a_redis_cluster(clustered: RedisBench):
    here, there = await clustered.worker(), await clustered.worker()
    for channel in "abcdef":
        await asyncio.wait_for(there.broker.subscribe(channel), WAIT_SECONDS)
        await change(here, one(JOIN, "ann", "1"), one(JOIN, "bob", "2"), channel=channel)
        await change(here, one(LEAVE, "ann", "1"), channel=channel)
        assert await stats(there, channel) == (1, 1)
        read = await there.presence.entries(channel, max_bytes=1000, sweeps=True)
        assert read == {"2": info("bob", "2")}
    await there.recorder.until(lambda: len(there.recorder.events) == 18)


async def test_a_store_that_is_away_refuses_and_is_used_again_when_it_is_back(own: RedisBench):
    worker = await own.worker()
    await change(worker, one(JOIN, "ann", "1"))
    own.servers[0].stop()
    await until(lambda: not worker.parts.router.is_up, WAIT_SECONDS, "the store is lost")
    with pytest.raises(StoreUnavailable):
        await change(worker, one(LEAVE, "ann", "1"))
    with pytest.raises(StoreUnavailable):
        await stats(worker)
    own.servers[0].start()
    await until(lambda: worker.parts.router.is_up, WAIT_SECONDS, "the store is back")
    # The server has kept nothing: the next renewal finds what is missing.
    answer: Any = await renew(worker, "1")
    assert answer.missing == ["1"]
    await change(worker, one(ADD, "ann", "1"))
    assert await stats(worker) == (1, 1)
