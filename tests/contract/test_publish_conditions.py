"""Idempotency keys and versions of publications: a repetition is published once, whoever repeats it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster.broker import IDEMPOTENCY_MS, HistoryPolicy
from cluster.protocol import Position
from tests.contract.conftest import program
from tests.contract.servers import Server
from tests.contract.stores import FORGET, KEEP, WAIT_SECONDS, Bench, RedisBench
from tests.contract.test_failover import in_step


def body(number: int) -> bytes:
    return b'{"data":%d}' % number


async def test_a_repeated_key_gets_the_result_of_the_first_publish(bench: Bench):
    one, two = await bench.worker(), await bench.worker()
    await one.subscribe()
    first = await one.publish_conditional(body(1), idempotency_key="k")
    await one.publish(body(2))
    again = await two.publish_conditional(body(3), idempotency_key="k")
    await one.publish(body(4))
    await one.recorder.until(lambda: len(one.recorder.received) >= 3)
    assert (first.position.offset, first.suppressed_by) == (1, "")
    assert again == (first.position, "idempotency_key")
    assert one.recorder.bodies() == [body(1), body(2), body(4)]
    read = await one.broker.read("c", KEEP, limit=-1)
    assert [publication.body for publication in read.publications] == one.recorder.bodies()


async def test_a_key_is_known_without_history_too(bench: Bench):
    worker = await bench.worker()
    await worker.subscribe()
    results = [
        await worker.publish_conditional(body(n), history=FORGET, idempotency_key="k")
        for n in range(3)
    ]
    await worker.publish(body(9), history=FORGET)
    await worker.recorder.until(lambda: body(9) in worker.recorder.bodies())
    assert [each.suppressed_by for each in results] == ["", "idempotency_key", "idempotency_key"]
    assert {each.position for each in results} == {Position(0, "")}
    assert worker.recorder.bodies() == [body(0), body(9)]


async def test_a_key_counts_in_its_channel_only(bench: Bench):
    worker = await bench.worker()
    for channel, key in (("a", "k"), ("b", "k"), ("a", "K"), ("a", "k\0é{}\ud800")):
        result = await worker.publish_conditional(channel=channel, idempotency_key=key)
        assert result.suppressed_by == "", (channel, key)


async def test_of_publishes_at_once_with_one_key_one_is_published(bench: Bench):
    workers = [await bench.worker() for _ in range(3)]
    results = await asyncio.gather(
        *(
            one.publish_conditional(body(n), idempotency_key="k")
            for n in range(30)
            for one in workers
        )
    )
    assert sorted(each.suppressed_by for each in results).count("") == 1
    assert len({each.position for each in results}) == 1
    read = await workers[0].broker.read("c", KEEP, limit=-1)
    assert len(read.publications) == 1


async def test_a_version_that_is_not_above_the_last_is_dropped_and_the_position_answered(
    bench: Bench,
):
    worker = await bench.worker()
    versions = [3, 2, 3, 4, 9007199254740990, 9007199254740991, 9007199254740990]
    results = [await worker.publish_conditional(body(n), version=n) for n in versions]
    assert [each.position.offset for each in results] == [1, 1, 1, 2, 3, 4, 4]
    assert [each.suppressed_by == "version" for each in results] == [
        False, True, True, False, False, False, True,
    ]  # fmt: skip
    assert len({each.position.epoch for each in results}) == 1


async def test_publications_without_a_version_leave_it_as_it_is(bench: Bench):
    worker = await bench.worker()
    await worker.publish_conditional(version=5)
    await worker.publish()
    await worker.publish_conditional(idempotency_key="k")
    result = await worker.publish_conditional(version=5)
    assert (result.position.offset, result.suppressed_by) == (3, "version")


async def test_versions_of_another_epoch_are_not_compared(bench: Bench):
    worker = await bench.worker()
    steps = [(9, "a", ""), (1, "b", ""), (9, "a", ""), (9, "a", "version"), (8, "", "version")]
    for version, epoch, suppressed_by in steps:
        result = await worker.publish_conditional(version=version, version_epoch=epoch)
        assert result.suppressed_by == suppressed_by, (version, epoch)


async def test_without_history_a_version_means_nothing(bench: Bench):
    worker = await bench.worker()
    for _ in range(2):
        result = await worker.publish_conditional(history=FORGET, version=1)
        assert result == (Position(0, ""), "")


async def test_a_dropped_version_does_not_use_the_idempotency_key_up(bench: Bench):
    worker = await bench.worker()
    await worker.publish_conditional(version=5)
    dropped = await worker.publish_conditional(version=5, idempotency_key="k")
    taken = await worker.publish_conditional(version=6, idempotency_key="k")
    again = await worker.publish_conditional(version=7, idempotency_key="k")
    assert [each.suppressed_by for each in (dropped, taken, again)] == [
        "version", "", "idempotency_key",
    ]  # fmt: skip


async def test_plain_publishes_and_those_with_a_condition_keep_their_order(bench: Bench):
    speaker, listener = await bench.worker(), await bench.worker()
    for history in (KEEP, FORGET):
        listener.recorder.received.clear()
        await listener.subscribe(f"c{history.size}")
        sent = []
        for n in range(60):
            to = {"channel": f"c{history.size}", "history": history}
            if n % 2:
                sent.append(speaker.publish(body(n), **to))  # type: ignore[arg-type]
            else:
                sent.append(speaker.publish_conditional(body(n), idempotency_key=f"{n}", **to))  # type: ignore[arg-type]
        await asyncio.gather(*sent)
        await listener.recorder.until(lambda: len(listener.recorder.received) == 60)
        bodies = listener.recorder.bodies(f"c{history.size}")
        assert bodies == [body(n) for n in range(60)]


async def test_after_a_renewed_epoch_the_version_still_counts(bench: Bench):
    worker = await bench.worker()
    first = await worker.publish_conditional(version=5, idempotency_key="k")
    renewed = await worker.broker.renew_epoch("c", first.position.epoch)
    dropped = await worker.publish_conditional(version=5)
    repeated = await worker.publish_conditional(version=6, idempotency_key="k")
    assert renewed.epoch != first.position.epoch
    assert dropped == (renewed, "version")
    assert repeated == (first.position, "idempotency_key")


async def test_every_subscriber_is_called_when_an_epoch_is_ended_and_once_only(bench: Bench):
    one, two = await bench.worker(), await bench.worker()
    for worker in (one, two):
        await worker.subscribe()
    position = await one.publish()
    for _ in range(2):
        await two.broker.renew_epoch("c", position.epoch)
    await one.publish(b'{"data":2}')
    for worker in (one, two):
        await worker.recorder.until(lambda worker=worker: len(worker.recorder.received) == 2)  # type: ignore[misc]
        assert worker.recorder.resumptions == ["c"]


async def test_a_stream_that_is_forgotten_forgets_its_version(bench: Bench):
    worker = await bench.worker()
    await worker.publish_conditional(version=5)
    await bench.forget()
    result = await worker.publish_conditional(version=5)
    assert (result.position.offset, result.suppressed_by) == (1, "")


async def test_what_is_kept_of_conditions_has_an_end(real: RedisBench):
    worker = await real.worker()
    [server] = real.servers
    for number in range(5):
        await worker.publish_conditional(idempotency_key=f"{number}", version=number)
    lives = [server.ask("PTTL", key) for key in server.ask("KEYS", real.key("c", "result.*"))]
    assert len(lives) == 5
    assert all(0 < life <= IDEMPOTENCY_MS for life in lives)
    assert 0 < server.ask("PTTL", real.key("c", "meta")) <= KEEP.meta_ttl_ms
    await worker.publish_conditional(channel="e", history=HistoryPolicy(5, 60_000, 0), version=1)
    assert server.ask("PTTL", real.key("e", "meta")) == -1, "0 is for ever"


async def test_in_a_redis_cluster_conditions_hold_on_every_node(clustered: RedisBench):
    one, two = await clustered.worker(), await clustered.worker()
    for number in range(20):
        channel = f"channel-{number}"
        first = await one.publish_conditional(channel=channel, idempotency_key="k", version=1)
        again = await two.publish_conditional(channel=channel, idempotency_key="k")
        dropped = await two.publish_conditional(channel=channel, version=1)
        assert [each.suppressed_by for each in (first, again, dropped)] == [
            "", "idempotency_key", "version",
        ]  # fmt: skip
        assert {each.position for each in (first, again, dropped)} == {first.position}


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_replica_that_becomes_the_master_knows_what_was_published(
    kind: str, tmp_path: Path
):
    with Server(program(kind), tmp_path / "master") as master:
        options = ("--replicaof", f"127.0.0.1 {master.port}")
        with Server(program(kind), tmp_path / "replica", options=options) as replica:
            await in_step(replica)
            bench = RedisBench([master])
            before = await bench.worker()
            first = await before.publish_conditional(idempotency_key="k", version=7)
            assert master.ask("WAIT", 1, 10_000) == 1
            await bench.aclose()
            await asyncio.to_thread(master.stop)
            replica.ask("REPLICAOF", "NO", "ONE")
            later = RedisBench([replica], name=bench.name)
            try:
                worker = await asyncio.wait_for(later.worker(), WAIT_SECONDS)
                again = await worker.publish_conditional(idempotency_key="k")
                dropped = await worker.publish_conditional(version=7)
                assert again == (first.position, "idempotency_key")
                assert dropped == (first.position, "version")
            finally:
                await later.aclose()
