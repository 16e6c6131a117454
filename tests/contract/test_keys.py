"""The names in the store: clusters, databases and kinds of keys do not share any; layout 1 is refused."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from cluster.broker.redis_broker import RedisBroker
from cluster.config import BrokerConfig, load
from cluster.config.redis_url import Address, database_of
from cluster.errors import ConfigError, StoreRefused
from cluster.metrics.counters import Counters
from cluster.protocol import Position
from cluster.resp.keys import key_prefix
from cluster.sessions.redis_sessions import _bucket
from cluster.worker.stores import RedisStores
from tests.contract.conftest import program
from tests.contract.servers import Server
from tests.contract.stores import KEEP, RedisBench
from tests.contract.test_canary import DEAF_SECONDS, running
from tests.contract.test_walks import OneWorker
from tests.harness.waiting import until

PREFIXES = st.from_regex(r"[-A-Za-z0-9_.]{1,64}", fullmatch=True)
URL = "redis://h:6379"


def keys(prefix: str, urls: tuple[str, ...], channel: str) -> set[str]:
    broker = RedisBroker(
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        prefix=key_prefix(BrokerConfig(redis_urls=urls, prefix=prefix)),
        listener=None,  # type: ignore[arg-type]
        counters=Counters(),
    )
    return {broker._key(channel, part) for part in ("meta", "stream", "pub")}


names = st.tuples(
    PREFIXES, st.integers(0, 15), st.text(st.characters(max_codepoint=127), max_size=9)
)


@given(names, names)
def test_names_that_differ_in_prefix_database_or_channel_share_no_key(
    one: tuple[str, int, str], two: tuple[str, int, str]
):
    these, those = (keys(p, (f"{URL}/{d}",), channel) for p, d, channel in (one, two))
    assert (one == two) == bool(these & those)
    assert len({key_slot(key.encode()) for key in these}) == 1


def test_a_prefix_is_not_continued_by_a_namespace_or_a_database():
    assert not keys("ws", (URL,), "aa:x") & keys("ws.aa", (URL,), "x")
    assert not keys("ws", (URL,), "0:c:x") & keys("ws", (URL,), "x")
    assert not keys("ws", (f"{URL}/0", f"{URL}/1"), "x") & keys("ws", (URL,), "x")
    assert not keys("ws", (f"{URL}/0", f"{URL}/1"), "x") & keys("ws", (f"{URL}/1",), "x")


@pytest.mark.parametrize("prefix", ["ws:aa", "{ws}", "ws}", "", "a b", "w" * 65, "wß", "ws\n", "*"])
def test_a_prefix_with_other_characters_is_refused(prefix: str):
    with pytest.raises(ConfigError) as caught:
        load(flags={"client.insecure": True, "broker.prefix": prefix})
    [problem] = caught.value.problems
    assert problem.key == "broker.prefix"


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://h/", "redis://h/3", "redis://h/3/", "redis://h?db=4", "redis://h?db=%34", "rediss://u:p%2F9@h/2",
     "unix:///run/7", "unix:///run/v.sock?db=5", "redis://[::1]:7000/1", "valkey://h/0"],
)  # fmt: skip
def test_the_database_is_the_one_that_is_selected(url: str):
    assert database_of(url) == Address.from_url(url).database


async def test_clusters_in_two_databases_get_only_their_own_publications(real: RedisBench):
    server = real.servers[0]
    benches = [
        RedisBench([server], urls=[f"{server.url}/{n}"], name=real.name, database=n) for n in (0, 1)
    ]
    try:
        workers = [await bench.worker() for bench in benches]
        for worker in workers:
            await worker.subscribe()
        for number, worker in enumerate(workers):
            await worker.publish(b'{"data":%d}' % number)
        for number, worker in enumerate(workers):
            await worker.recorder.until(lambda worker=worker: bool(worker.recorder.received))  # type: ignore[misc]
            assert worker.recorder.bodies() == [b'{"data":%d}' % number]
            assert worker.recorder.offsets() == [1]
    finally:
        for bench in benches:
            await bench.aclose()


async def test_a_client_cannot_take_the_canarys_channel(real: RedisBench):
    worker = await real.worker()
    async with running(real, worker) as canary:
        await until(lambda: bool(canary._keys), 5, "it has a channel")
        [key] = canary._keys.values()
        inner = key[1:].split("}")[0]
        tails = [inner[at + 1 :] for at, letter in enumerate(inner) if letter == ":"]
        assert any(tail.startswith("canary:") for tail in tails)
        for name in (inner, *tails):
            await worker.subscribe(name)
            worker.broker.unsubscribe(name)
        before = canary.last_heard_timestamp
        await until(
            lambda: canary.last_heard_timestamp > before + 2 * DEAF_SECONDS, 10, "it is heard"
        )
        assert not canary.is_deaf


# --- layout 1 ----------------------------------------------------------------------------------


def stores(bench: RedisBench) -> RedisStores:
    config = OneWorker(bench).config
    config = dataclasses.replace(
        config, broker=dataclasses.replace(config.broker, redis_urls=tuple(bench._urls))
    )
    made = RedisStores(config, Counters(), name="one")
    made.open_sessions(None)  # type: ignore[arg-type]
    return made


@pytest.fixture(params=["one server", "shards", "cluster"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A store of each form."""
    if request.param == "cluster":
        clustered = request.getfixturevalue("cluster")
        made = RedisBench(clustered.nodes, urls=[clustered.url])
        yield made
        await made.aclose()
        return
    count = 1 if request.param == "one server" else 3
    servers = [Server(program("valkey"), tmp_path / str(number)) for number in range(count)]
    for server in servers:
        server.start()
    made = RedisBench(servers)
    yield made
    await made.aclose()
    for server in servers:
        server.stop()


async def test_a_worker_does_not_start_beside_workers_of_layout_1(store: RedisBench):
    # What every worker of layout 1 subscribes to at its start.
    old = await store.worker(listens_to_sessions=False)
    changes = f"{{{store.name}:s0}}.changes"
    await old.parts.subscriptions.subscribe(changes, "old", lambda *_: None)
    new = stores(store)
    try:
        with pytest.raises(StoreRefused, match="stop all of them first"):
            await new.start()
        await old.parts.router.aclose()
        async with asyncio.timeout(10):
            while True:
                try:
                    await new.start()
                    break
                except StoreRefused:
                    await asyncio.sleep(0.05)
    finally:
        await new.aclose()


async def test_workers_of_this_layout_start_beside_each_other(store: RedisBench):
    one, two = stores(store), stores(store)
    try:
        await one.start()
        await two.start()
    finally:
        await one.aclose()
        await two.aclose()


def left_by_layout_1(server: Server, name: str) -> None:
    """Write what a worker of version 0.1 has written: two publications, a session, its index."""
    ask = server.ask
    for channel in ("news", "aa:x", "s5", "a}.meta"):
        ask("HSET", f"{{{name}:{channel}}}.meta", "e", "oldepoch", "o", 2)
        ask("PEXPIRE", f"{{{name}:{channel}}}.meta", 600_000)
        for offset in (1, 2):
            ask("XADD", f"{{{name}:{channel}}}.stream", f"{offset}-0", "d", b'{"data":1}')
    session, tag = "ab" * 16, f"{{{name}:s{_bucket('ab' * 16)}}}"
    record = {"user": "ann", "created": 1, "messages": 3, "version": 1, "state": '{"cart":1}'}
    ask("HSET", f"{tag}.session.{session}", *[word for pair in record.items() for word in pair])
    ask("PEXPIRE", f"{tag}.session.{session}", 600_000)
    ask("ZADD", f"{tag}.sessions", 10**14, session)
    ask("HSET", f"{tag}.counters", "created", 7)


async def test_the_first_worker_keeps_what_layout_1_left_on_one_server(own: RedisBench):
    server = own.servers[0]
    left_by_layout_1(server, own.name)
    server.ask("SET", f"{{{own.name}x:news}}.meta", "of another prefix")
    server.ask("SET", f"{{{own.name}:what", "is no key of ours")
    one, two = stores(own), stores(own)
    try:
        await asyncio.gather(one.start(), two.start())
        worker = await own.worker()
        for channel in ("news", "aa:x", "s5", "a}.meta"):
            read = await worker.broker.read(channel, KEEP, since=0, limit=-1, leaves_epoch=False)
            assert read.top == Position(2, "oldepoch")
            assert len(read.publications) == 2
            assert 0 < server.ask("PTTL", own.key(channel, "meta")) <= KEEP.meta_ttl_ms
        session = await worker.sessions.attach("ann", "ab" * 16, "h")
        assert (session.is_resumed, session.messages, session.state) == (True, 3, b'{"cart":1}')
        assert (await own.statistics())["created"] == 7
        assert server.ask("EXISTS", f"{{{own.name}x:news}}.meta", f"{{{own.name}:what") == 2
        old = [key for key in server.ask("KEYS", f"{{{own.name}:*") if b":0:" not in key]
        assert old == [f"{{{own.name}:what".encode()]
    finally:
        await one.aclose()
        await two.aclose()


async def test_a_name_that_is_taken_is_left_as_it_is(own: RedisBench):
    worker = await own.worker()
    position = await worker.publish(channel="news")
    left_by_layout_1(own.servers[0], own.name)
    new = stores(own)
    try:
        await new.start()
    finally:
        await new.aclose()
    assert (await worker.broker.read("news", KEEP)).top == position
