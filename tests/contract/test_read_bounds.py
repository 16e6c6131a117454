"""What a client can make the store read: a real worker in this process, before a Valkey of its own."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import orjson
import pytest

from cluster.broker import HistoryPolicy
from cluster.connection import COMMANDS_PER_TURN, CONGESTED_COMMANDS
from tests.contract.stores import RedisBench
from tests.contract.test_walks import OneWorker
from tests.harness.waiting import until
from tests.unit.local_worker import RECOVERABLE, Caller

LARGE = b'{"data":"' + b"x" * 60_000 + b'"}'
PUBLICATIONS = 100
KEEP = HistoryPolicy(PUBLICATIONS, 600_000, 6_000_000)
# Replies that wait for their worker: a read of half a megabyte for each of 16 in flight, at most.
MOST_BYTES = 12 << 20
WITHIN = 60.0
#: More than are in flight together, and than a client gets without waiting.
REPLIES = 30


async def fill(node: Any, *channels: str) -> None:
    """Publish `PUBLICATIONS` large publications to each channel."""
    for channel in channels:
        done: asyncio.Queue[object] = asyncio.Queue()
        for _ in range(PUBLICATIONS):
            node.channels.broker.publish(channel, LARGE, KEEP, 0, done.put_nowait)
        for _ in range(PUBLICATIONS):
            assert isinstance(await done.get(), tuple)


def memory(bench: RedisBench, kind: str) -> int:
    with bench.servers[0].client() as client:
        return int(client.info("memory")[kind])


def replies(caller: Caller, first: int) -> list[dict[str, Any]]:
    return [one for one in caller.heard if one.get("id", 0) >= first]


@pytest.mark.parametrize("count", [170, 560], ids=["7.6 kB", "25 kB"])
async def test_a_frame_of_history_commands_makes_the_store_hold_little(own: RedisBench, count: int):
    worker = OneWorker(own)
    client = dataclasses.replace(worker.config.client, command_rate_limit=0)
    worker.config = dataclasses.replace(worker.config, client=client)
    async with worker.open() as caller:
        await caller.connect()
        await fill(worker.node, "a")
        used = memory(own, "used_memory")
        commands = [
            {"id": n, "history": {"channel": "a", "limit": -1}} for n in range(2, count + 2)
        ]
        assert len(b"\n".join(map(orjson.dumps, commands))) < 30_000
        caller.say(*commands)
        async with asyncio.timeout(WITHIN):
            while len(replies(caller, 2)) < REPLIES:
                caller._news.clear()
                await caller._news.wait()
        answers = replies(caller, 2)
        assert [one["id"] for one in answers] == list(range(2, 2 + len(answers))), "in order"
        assert all("history" in one for one in answers), "none failed, and the link held"
        assert memory(own, "used_memory_peak") - used < MOST_BYTES


async def test_a_client_of_many_large_reads_waits_and_that_is_no_error(own: RedisBench):
    worker = OneWorker(own)
    async with worker.open() as caller:
        await caller.connect()
        await fill(worker.node, "a")
        caller.say(*({"id": n, "history": {"channel": "a", "limit": -1}} for n in range(2, 32)))
        assert all(["history" in await caller.reply(n) for n in range(2, 32)])
        assert worker.node.commands._counters.stream_reads["paced"] > 0


async def test_a_client_pages_through_a_history_that_is_larger_than_a_reply(own: RedisBench):
    worker = OneWorker(own)
    async with worker.open() as caller:
        await caller.connect()
        await fill(worker.node, "a")
        seen: list[int] = []
        since: dict[str, Any] = {"offset": 0, "epoch": ""}
        number = 2
        while True:
            caller.say({"id": number, "history": {"channel": "a", "limit": -1, "since": since}})
            page = (await caller.reply(number))["history"]
            number += 1
            offsets = [one["offset"] for one in page["publications"]]
            seen += offsets
            assert len(orjson.dumps(page)) <= 262_144 + len(offsets) * 100
            if seen[-1] == page["offset"]:
                break
            since = {"offset": seen[-1], "epoch": page["epoch"]}
        assert seen == list(range(1, PUBLICATIONS + 1))
        assert worker.node.commands._counters.stream_reads["cut"] == number - 3


async def test_a_client_that_does_not_read_is_read_nothing_more_for(own: RedisBench):
    worker = OneWorker(own)
    async with worker.open() as caller:
        await caller.connect()
        await fill(worker.node, "a")
        counters = worker.node.commands._counters
        assert caller.wire.transport is not None
        caller.wire.transport.pause_reading()
        caller.say(*({"id": n, "history": {"channel": "a", "limit": -1}} for n in range(2, 402)))
        await until(lambda: counters.slow_consumers == 1, WITHIN, "it is closed as slow")
        await until(lambda: not worker.node.reads._readers, WITHIN, "nothing waits for it")
        begun = counters.stream_reads["immediate"] + counters.stream_reads["queued"]
        assert begun <= CONGESTED_COMMANDS + COMMANDS_PER_TURN
        assert counters.stream_reads["dropped"] > begun / 2
        assert counters.errors["store"] == 0


async def test_many_recoveries_of_large_streams_make_the_store_hold_little(own: RedisBench):
    names = [f"c{number}" for number in range(20)]
    worker = OneWorker(own)
    channel = dataclasses.replace(worker.config.channel, without_namespace=RECOVERABLE)
    worker.config = dataclasses.replace(worker.config, channel=channel)
    async with worker.open() as caller:
        await caller.connect()
        await fill(worker.node, *names)
        used = memory(own, "used_memory")
        caller.say(
            *(
                {"id": n, "subscribe": {"channel": name, "recover": True, "offset": 0}}
                for n, name in enumerate(names, 2)
            ),
            {"id": 90, "unsubscribe": {"channel": names[0]}},
        )
        await caller.reply(90)
        answers = [one["subscribe"] for one in replies(caller, 2) if "subscribe" in one]
        assert len(answers) == len(names)
        assert all(one["was_recovering"] and "recovered" not in one for one in answers)
        assert all("publications" not in one for one in answers), "all of them or none"
        assert memory(own, "used_memory_peak") - used < MOST_BYTES


async def test_a_gap_that_is_larger_than_a_read_is_filled_in_order(own: RedisBench):
    worker = OneWorker(own)
    async with worker.open() as caller:
        await caller.connect()
        caller.say({"id": 2, "subscribe": {"channel": "a", "recoverable": True}})
        assert (await caller.reply(2))["subscribe"]["recoverable"]
        cuts: list[bool] = []
        broker = worker.node.channels.broker
        read = broker.read

        async def watched(*words: Any, **more: Any) -> Any:
            found = await read(*words, **more)
            cuts.append(found.is_cut)
            return found

        broker.read = watched  # type: ignore[method-assign]
        await own.break_subscriptions()
        await fill(worker.node, "a")
        await caller.until(lambda: len(caller.pubs()) == PUBLICATIONS)
        pushes = [one["push"]["pub"]["offset"] for one in caller.heard if "push" in one]
        assert pushes == list(range(1, PUBLICATIONS + 1))
        assert sum(cuts) >= 10, "six megabytes in pieces of half a megabyte"
        assert worker.node.commands._counters.dropped["broker"] == 0


async def test_sessions_that_are_read_again_make_the_store_hold_little(own: RedisBench):
    count, state = 400, "x" * 60_000
    server = own.servers[0]

    def reads() -> int:
        return int(server.ask("INFO", "commandstats")["cmdstat_hmget"]["calls"])

    worker = await own.worker()
    for number in range(count):
        session = await worker.sessions.attach("ann", None, number)
        await worker.sessions.update(session.id, state=state)
    used, before = memory(own, "used_memory"), reads()
    # The peak so far is of the updates.
    assert memory(own, "used_memory_peak") - used < count * len(state) // 4
    await own.break_subscriptions()
    await until(lambda: reads() >= before + count, WITHIN, "all of them were read again")
    assert memory(own, "used_memory_peak") - used < count * len(state) // 4


async def test_a_history_read_of_a_channel_never_used_leaves_no_key(own: RedisBench):
    worker = OneWorker(own)
    async with worker.open() as caller:
        await caller.connect()
        keys = own.servers[0].ask("DBSIZE")
        for number, request in enumerate(({}, {"limit": -1}, {"limit": 1, "reverse": True}), 2):
            caller.say({"id": number, "history": {"channel": f"never{number}"} | request})
            page = (await caller.reply(number))["history"]
            assert page == {"publications": [], "epoch": "", "offset": 0}
        assert own.servers[0].ask("DBSIZE") == keys
