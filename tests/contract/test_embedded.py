"""The embedded Valkey as the supervisor starts it: its limits, and what a full one means for clients."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster.broker import HistoryPolicy
from cluster.children.valkey import ValkeySpec
from cluster.config import load
from cluster.errors import ConfigError
from cluster.metrics.system import memory
from tests.contract.conftest import program
from tests.contract.stores import RedisBench
from tests.harness.waiting import until

MEMORY = 32 << 20
KEEP = HistoryPolicy(100, 600_000, 6_000_000)
CHANNELS = 200
EACH = 10
BODY = b'{"data":"' + b"x" * 30_000 + b'"}'


class Embedded:
    """Stands in for a `Server`: the process that the specification launches."""

    def __init__(self, spec: ValkeySpec, socket: Path) -> None:
        self.url = spec.url
        self.socket = socket
        launch = spec.launch("valkey")
        self.process = subprocess.Popen(
            launch.argv, env=launch.env, pass_fds=launch.pass_fds, stdout=subprocess.DEVNULL
        )

    def ask(self, *words: Any) -> Any:
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5.0)
        try:
            return client.execute_command(*words)
        finally:
            client.close()

    def is_up(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[ValkeySpec]:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    yield ValkeySpec(
        program("valkey"),
        data_dir=tmp_path,
        socket_path=tmp_path / "v.sock",
        lock_fd=lock,
        max_memory=MEMORY,
    )
    os.close(lock)


@pytest.fixture
async def embedded(spec: ValkeySpec, tmp_path: Path) -> Any:
    server = Embedded(spec, tmp_path / "v.sock")
    try:
        await until(server.is_up, 10, "it answers")
        yield server
    finally:
        server.process.kill()
        server.process.wait(10)


@pytest.fixture
async def bench(embedded: Embedded) -> Any:
    made = RedisBench([embedded])  # type: ignore[list-item]
    yield made
    await made.aclose()


def settings(server: Embedded, name: str) -> Any:
    [(_, value)] = server.ask("CONFIG", "GET", name).items()
    return value.decode()


async def test_it_has_limits_of_memory_and_of_unsent_replies(embedded: Embedded):
    assert settings(embedded, "maxmemory") == str(MEMORY)
    assert settings(embedded, "maxmemory-policy") == "volatile-ttl"
    limits = settings(embedded, "client-output-buffer-limit").split()
    classes = dict(zip(limits[::4], limits[1::4], strict=True))
    assert 0 < int(classes["normal"]) <= 256 << 20
    assert 0 < int(classes["pubsub"]) <= 256 << 20


def test_without_an_option_it_may_use_half_of_the_memory(tmp_path: Path):
    spec = ValkeySpec("v", data_dir=tmp_path, socket_path=tmp_path / "v.sock", lock_fd=0)
    argv = spec.launch("valkey").argv
    assert int(argv[argv.index("--maxmemory") + 1]) == memory().limit // 2


def test_less_memory_than_it_needs_empty_is_refused():
    with pytest.raises(ConfigError, match="33554432"):
        load(flags={"client.insecure": True, "broker.valkey_maxmemory": 1_000_000})


async def test_a_full_one_accepts_publishes_and_never_recovers_what_it_has_removed(
    embedded: Embedded, bench: RedisBench
):
    worker = await bench.worker(ttl=60_000.0)
    session = await worker.sessions.attach("ann", None, "h")
    await worker.sessions.update(session.id, state={"cart": 1})
    tops = {}
    for number in range(CHANNELS):
        name = f"c{number}"
        for _ in range(EACH):
            tops[name] = await worker.publish(BODY, channel=name, history=KEEP)
    assert embedded.ask("INFO", "stats")["evicted_keys"] > 0
    recovered = 0
    for name, top in tops.items():
        read = await worker.broker.read(name, KEEP, since=0, limit=EACH, is_whole=True)
        offsets = [publication.offset for publication in read.publications]
        if read.top == top and offsets:
            assert offsets == list(range(1, EACH + 1)), "all or nothing"
            recovered += 1
        else:
            # `SubscriptionBuilder` reports both as not recovered.
            assert not offsets
            assert read.top.epoch != top.epoch or read.top.offset == EACH
    assert 0 < recovered < CHANNELS
    assert recovered * EACH * len(BODY) < MEMORY
    assert (await worker.publish(channel="another")).offset == 1
    resumed = await worker.sessions.attach("ann", session.id, "g")
    assert resumed.state == b'{"cart":1}', "what expires sooner was removed first"


async def test_a_position_that_was_removed_begins_a_new_epoch(bench: RedisBench):
    worker = await bench.worker()
    first = await worker.publish()
    bench.servers[0].ask("DEL", bench.key("c", "meta"))
    read = await worker.broker.read("c", KEEP, since=0, limit=-1)
    assert read.top.epoch != first.epoch
    assert read.publications == []
    await worker.publish()
    bench.servers[0].ask("DEL", bench.key("c", "meta"))
    read = await worker.broker.read("c", KEEP, since=0, limit=-1, leaves_epoch=False)
    assert read.publications == []
    second = await worker.publish()
    assert second.offset == 1
    assert len({first.epoch, read.top.epoch, second.epoch}) == 3
