"""A real server that stops, loses its data, refuses commands or has payloads of another layout."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from cluster.config.redis_url import Address
from cluster.errors import StoreError, StoreRefused, StoreUnavailable
from cluster.metrics.counters import Counters
from cluster.resp.link import Link
from cluster.resp.router import Router
from tests.contract.conftest import program
from tests.contract.servers import Server
from tests.contract.stores import (
    KEEP,
    TIMEOUT_SECONDS,
    WAIT_SECONDS,
    Recorder,
    RedisBench,
    RedisParts,
)
from tests.harness.proxy import FaultProxy
from tests.harness.waiting import until


def body(number: int) -> bytes:
    return b'{"data":%d}' % number


async def test_a_server_that_has_stopped_is_unavailable_at_once(own: RedisBench):
    worker = await own.worker()
    await worker.publish()
    own.servers[0].stop()
    await until(lambda: not worker.parts.router.is_up, 10, "the loss is noticed")
    async with asyncio.timeout(0.5):
        with pytest.raises(StoreUnavailable):
            await worker.publish()
        with pytest.raises(StoreUnavailable):
            await worker.broker.read("c", KEEP)
        with pytest.raises(StoreUnavailable):
            await worker.sessions.attach("u", None, "h")


async def test_what_is_under_way_when_the_server_stops_is_answered_once(own: RedisBench):
    worker = await own.worker()
    own.servers[0].pause()
    publishes = [asyncio.ensure_future(worker.publish(body(number))) for number in range(50)]
    await asyncio.sleep(0)
    own.servers[0].stop()
    outcomes = await asyncio.gather(*publishes, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}


async def test_a_server_that_does_not_answer_is_given_up(own: RedisBench):
    worker = await own.worker()
    own.servers[0].pause()
    async with asyncio.timeout(TIMEOUT_SECONDS * 3):
        with pytest.raises(StoreUnavailable):
            await worker.publish()
    own.servers[0].go_on()
    await worker.publish_until_it_works(body(2))


async def test_a_publish_is_never_sent_twice(own: RedisBench):
    async with FaultProxy(own.servers[0].port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        worker = await own.worker(urls=[url], listens_to_sessions=False)
        await worker.publish(body(0))
        proxy.deafen()
        with pytest.raises(StoreUnavailable):
            await worker.publish(body(1))
        await worker.publish_until_it_works(body(2))
        read = await worker.broker.read("c", KEEP, limit=-1)
        assert [one.body for one in read.publications] == [body(0), body(1), body(2)]
        assert proxy.accepted >= 3


async def test_subscriptions_come_back_with_the_server(own: RedisBench):
    worker = await own.worker()
    await worker.subscribe("a")
    await worker.subscribe("b")
    server = own.servers[0]
    server.stop()
    await until(lambda: not worker.parts.router.is_up, 10, "the loss is noticed")
    late = worker.broker.subscribe("late")
    server.start()
    await asyncio.wait_for(late, WAIT_SECONDS)
    await worker.recorder.until(lambda: {"a", "b"} <= set(worker.recorder.resumptions))
    assert "late" not in worker.recorder.resumptions
    await worker.publish_until_it_works(body(1), channel="late")
    await worker.recorder.until(lambda: bool(worker.recorder.bodies("late")))


async def test_a_server_that_lost_its_data_begins_a_new_epoch(own: RedisBench):
    worker = await own.worker()
    before = await worker.publish()
    own.servers[0].ask("FLUSHALL")
    after = await worker.publish()
    assert after.offset == 1
    assert after.epoch != before.epoch


async def test_what_a_forgotten_script_was_to_publish_is_refused_and_the_next_is_taken(
    real: RedisBench,
):
    worker = await real.worker()
    assert (await worker.publish()).offset == 1
    real.servers[0].ask("SCRIPT", "FLUSH")
    publishes = [worker.publish(body(number)) for number in range(20)]
    outcomes = await asyncio.gather(*publishes, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreRefused}
    assert (await worker.publish(body(20))).offset == 2
    read = await worker.broker.read("c", KEEP, since=1, limit=-1)
    assert [one.body for one in read.publications] == [body(20)]


async def test_a_forgotten_script_whose_order_does_not_matter_is_run_by_its_text(real: RedisBench):
    worker = await real.worker()
    real.servers[0].ask("SCRIPT", "FLUSH")
    sessions = await asyncio.gather(*(worker.sessions.attach("u", None, n) for n in range(20)))
    assert len({session.id for session in sessions}) == 20


async def test_a_refusal_is_an_error_and_the_connection_lives_on(real: RedisBench):
    worker = await real.worker()
    with real.servers[0].client() as client:
        client.set(f"{{{real.prefix}:c:c}}.meta", "not a hash")
        with pytest.raises(StoreRefused):
            await worker.publish()
        with pytest.raises(StoreRefused):
            await worker.broker.read("c", KEEP)
        client.delete(f"{{{real.prefix}:c:c}}.meta")
    assert (await worker.publish()).offset == 1


async def test_a_subscription_that_was_refused_is_confirmed_when_it_is_allowed(own: RedisBench):
    worker = await own.worker()
    server = own.servers[0]
    server.ask("ACL", "SETUSER", "default", "resetchannels", f"&{{{own.prefix}:s:*")
    waiting = worker.broker.subscribe("c")
    await asyncio.sleep(0.05)
    assert not waiting.done()
    server.ask("ACL", "SETUSER", "default", "allchannels")
    async with asyncio.timeout(8):
        while not waiting.done():
            worker.parts.subscriptions.retry_unconfirmed()
            await asyncio.sleep(0.1)
    await worker.publish()
    await worker.recorder.until(lambda: bool(worker.recorder.received))


async def test_payloads_of_another_layout_are_counted_and_left_alone(real: RedisBench):
    worker = await real.worker()
    await worker.subscribe()
    with real.servers[0].client() as client:
        shard_channel = f"{{{real.prefix}:c:c}}.pub"
        for payload in (b"3:1:e:0:{}", b"", b"1:x:e:0:{}", b"1:1:\xff:0:{}", b"garbage"):
            client.execute_command("SPUBLISH", shard_channel, payload)
    await worker.publish(body(5))
    await worker.recorder.until(lambda: worker.recorder.bodies() == [body(5)])
    assert worker.parts.counters.errors["broker"] == 5
    assert worker.recorder.resumptions == []


async def test_several_servers_share_the_channels(servers: dict[str, Server], tmp_path: Path):
    program("redis")
    bench = RedisBench([servers["valkey"], servers["redis"]])
    try:
        one, two = await bench.worker(), await bench.worker()
        names = [f"channel-{number}" for number in range(40)]
        await asyncio.gather(*(one.subscribe(name) for name in names))
        await asyncio.gather(*(two.publish(channel=name) for name in names))
        await one.recorder.until(lambda: {name for name, _ in one.recorder.received} == set(names))
        counts = []
        for server in bench.servers:
            with server.client() as client:
                counts.append(len(list(client.scan_iter(f"{{{bench.prefix}:c:channel*.meta"))))
        assert sum(counts) == 40
        assert min(counts) > 5
        session = await one.sessions.attach("u", None, "h")
        assert (await two.sessions.attach("u", session.id, "g")).is_resumed
    finally:
        await bench.aclose()


async def test_one_shard_that_is_away_does_not_harm_the_other(
    servers: dict[str, Server], tmp_path: Path
):
    with Server(program("valkey"), tmp_path / "second") as second:
        bench = RedisBench([servers["valkey"], second])
        try:
            worker = await bench.worker()
            shards = worker.parts.router
            names = [f"c{number}" for number in range(20)]
            await asyncio.gather(*(worker.publish(channel=name) for name in names))
            second.stop()
            await until(lambda: not shards.is_up, 10, "the loss is noticed")
            outcomes = await asyncio.gather(
                *(worker.publish(channel=name) for name in names), return_exceptions=True
            )
            kinds = {
                type(outcome).__name__: shards.shard_of(f"{{{bench.prefix}:c:{name}}}").address.port
                for name, outcome in zip(names, outcomes, strict=True)
            }
            assert kinds == {"Position": servers["valkey"].port, "StoreUnavailable": second.port}
        finally:
            await bench.aclose()


async def test_a_server_that_is_not_there_cannot_be_started_with():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        router = Router([f"redis://127.0.0.1:{held.getsockname()[1]}"], timeout_seconds=0.3)
        with pytest.raises(StoreUnavailable, match="no Redis or Valkey answers"):
            await router.start()
        await router.aclose()


async def test_a_worker_that_could_not_start_may_start_again(own: RedisBench):
    server = own.servers[0]
    parts = RedisParts([server.url], own.prefix, Recorder(), Counters())
    try:
        await parts.router.start()
        server.pause()
        first = parts.broker.subscribe("c")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first, 0.2)
        server.go_on()
        await parts.router.start()
        await asyncio.wait_for(parts.broker.subscribe("c"), 5)
    finally:
        await parts.router.aclose()


async def test_a_password_and_a_database_are_used(own: RedisBench):
    server = own.servers[0]
    server.ask("ACL", "SETUSER", "ann", "on", ">s3cret", "~*", "&*", "+@all")
    up = asyncio.Event()
    url = f"redis://ann:s3cret@127.0.0.1:{server.port}/3"
    link = Link(Address.from_url(url), timeout_seconds=2.0, on_up=up.set)
    link.start()
    try:
        await asyncio.wait_for(up.wait(), WAIT_SECONDS)
        assert await link.call("ACL", "WHOAMI") == b"ann"
        assert b" db=3 " in await link.call("CLIENT", "INFO")
    finally:
        await link.aclose()


async def test_a_wrong_password_is_never_up(own: RedisBench):
    url = f"redis://:wrong@127.0.0.1:{own.servers[0].port}"
    router = Router([url], timeout_seconds=0.5)
    with pytest.raises(StoreUnavailable):
        await router.start()
    await router.aclose()


async def test_closing_answers_what_is_under_way(own: RedisBench):
    worker = await own.worker()
    own.servers[0].pause()
    publish = asyncio.ensure_future(worker.publish())
    await asyncio.sleep(0)
    await asyncio.wait_for(worker.parts.router.aclose(), 5)
    with pytest.raises(StoreError):
        await asyncio.wait_for(publish, 5)
