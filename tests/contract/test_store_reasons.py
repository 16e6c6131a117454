"""A store that cannot be used: the error has the server's reason. One that can: with exactly the documented rules."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import BrokerConfig, Config, load
from cluster.errors import StoreDenied, StoreError
from cluster.metrics.counters import Counters
from cluster.worker.stores import RedisStores
from tests.architecture.tree import ROOT
from tests.contract.conftest import program
from tests.contract.servers import Server
from tests.contract.stores import KEEP, Recorder, RedisBench, Worker
from tests.contract.test_canary import running
from tests.harness.waiting import until, until_async

PAGE = ROOT / "docs/how-to/external-redis.md"


def rules(prefix: str = "ws", database: int = 0) -> list[str]:
    """The documented ACL rules of the user, for another prefix and database."""
    [block] = re.findall(r"(?ms)^ACL SETUSER ws-cluster (.*?)^```", PAGE.read_text("utf-8"))
    changed = str(block).replace("{ws:0:", f"{{{prefix}:{database}:")
    return changed.replace("{ws:s", f"{{{prefix}:s").split()


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with Server(program(request.param), tmp_path / "own") as running_server:
        yield running_server


async def failure(url: str, *, prefix: str = "ws") -> str:
    """Start a worker's stores; returns the error's text, "" if they can be used."""
    config = Config(broker=BrokerConfig(redis_urls=(url,), prefix=prefix, timeout=1.0))
    stores = RedisStores(config, Counters(), name="one")
    stores.open_broker(Recorder())
    stores.open_sessions(Recorder())
    try:
        await asyncio.wait_for(stores.start(), 20)
    except StoreError as error:
        return str(error)
    finally:
        await stores.aclose()
    return ""


async def test_with_exactly_the_documented_rules_everything_works(server: Server):
    server.ask("ACL", "SETUSER", "ws-cluster", *rules(prefix="mine", database=3))
    url = f"redis://ws-cluster:PASSWORD@127.0.0.1:{server.port}/3?client_name=one"
    assert await failure(url, prefix="mine") == ""
    bench = RedisBench([server], urls=[url], name="mine", database=3)
    try:
        one, two = await bench.worker(), await bench.worker()
        await use(one, two)
        async with running(bench, one) as canary:
            before = canary.last_heard_timestamp
            await until(lambda: canary.last_heard_timestamp > before, 10, "the canary is heard")
        assert (await bench.statistics())["created"] >= 1
    finally:
        await bench.aclose()
    log = server.ask("ACL", "LOG")
    assert log == [], "nothing was refused"


async def use(one: Worker, two: Worker) -> None:
    """Do everything that a worker does with a store."""
    await one.subscribe()
    for history in (KEEP, KEEP._replace(meta_ttl_ms=0), KEEP._replace(size=0)):
        await two.publish(history=history)
    await one.recorder.until(lambda: len(one.recorder.received) == 3)
    for reverse in (False, True):
        read = await one.broker.read("c", KEEP, since=2, limit=-1, reverse=reverse)
        assert read.top.offset == 2
    one.broker.unsubscribe("c")
    session = await one.sessions.attach("ann", None, "h")
    assert (await two.sessions.attach("ann", session.id, "g")).is_resumed
    await two.sessions.update(session.id, state=1, channels=("a",))
    await one.recorder.until(lambda: bool(one.recorder.changes))
    await one.sessions.renew()
    short = await one.sessions.attach("ann", None, "k")
    one.sessions.detach(short, "k", may_end=True)
    await asyncio.wait_for(one.sessions.flush(), 10)


def needed() -> list[str]:
    return [rule for rule in rules() if rule.startswith("+") and rule not in OPTIONAL]


#: Needed with a Redis Cluster, a database or a name, or when a server has forgotten a script.
OPTIONAL = {
    "+auth",
    "+asking",
    "+cluster|slots",
    "+select",
    "+client|setname",
    "+eval",
    "+info",
    "+sunsubscribe",
}


@pytest.mark.parametrize("rule", needed())
async def test_without_one_of_the_rules_a_worker_does_not_start_and_says_so(
    own: RedisBench, rule: str
):
    server = own.servers[0]
    server.ask("ACL", "SETUSER", "ws-cluster", *rules(), f"-{rule[1:]}")
    text = await failure(f"redis://ws-cluster:PASSWORD@127.0.0.1:{server.port}")
    assert "permission" in text or "can't run this command" in text, text


async def test_a_wrong_password_a_missing_one_and_another_prefix_are_named(server: Server):
    server.ask("ACL", "SETUSER", "ws-cluster", *rules())
    at = f"127.0.0.1:{server.port}"
    assert "WRONGPASS" in await failure(f"redis://ws-cluster:other@{at}")
    assert "permission" in await failure(f"redis://ws-cluster:PASSWORD@{at}", prefix="other")
    assert "permission" in await failure(f"redis://ws-cluster:PASSWORD@{at}/1")
    assert "index is out of range" in await failure(f"redis://{at}/99")
    server.ask("ACL", "SETUSER", "default", "resetpass", ">secret")
    assert "NOAUTH" in await failure(f"redis://{at}")


async def test_a_refused_password_is_told_at_once_and_taken_once_it_is_right(server: Server):
    server.ask("ACL", "SETUSER", "ws-cluster", *rules())
    url = f"redis://ws-cluster:next@127.0.0.1:{server.port}"
    # Longer than the test may take.
    config = Config(broker=BrokerConfig(redis_urls=(url,), timeout=600.0))
    stores = RedisStores(config, Counters(), name="one")
    stores.open_broker(Recorder())
    stores.open_sessions(Recorder())
    try:
        for _ in range(2):
            with pytest.raises(StoreDenied, match="WRONGPASS"):
                await asyncio.wait_for(stores.start(), 20)
        server.ask("ACL", "SETUSER", "ws-cluster", ">next")

        async def is_taken() -> bool:
            try:
                await stores.start()
            except StoreDenied:
                return False
            return True

        await until_async(is_taken, 20, "the new password is taken")
        assert stores.is_up
    finally:
        await stores.aclose()


async def test_a_user_without_the_shard_channels_is_named(own: RedisBench):
    server = own.servers[0]
    given = [rule for rule in rules() if not rule.startswith("&")]
    server.ask("ACL", "SETUSER", "ws-cluster", *given, "&{ws:0:i:*")
    text = await failure(f"redis://ws-cluster:PASSWORD@127.0.0.1:{server.port}")
    assert "subscriptions" in text
    assert "channel" in text


async def test_a_replica_and_nothing_at_all_are_named(own: RedisBench, tmp_path: Path):
    master = own.servers[0]
    options = ("--replicaof", f"127.0.0.1 {master.port}")
    with Server(program("valkey"), tmp_path / "replica", options=options) as replica:
        text = await failure(replica.url)
        assert any(reason in text for reason in ("READONLY", "MASTERDOWN", "LOADING")), text
    assert "onnect" in await failure("redis://127.0.0.1:1")


async def test_a_full_server_starts_workers(own: RedisBench):
    own.servers[0].ask("CONFIG", "SET", "maxmemory", "1")
    assert await failure(own.servers[0].url) == ""


@pytest.mark.parametrize("user", ["", "ws-cluster"])
async def test_the_password_may_come_from_a_file(server: Server, tmp_path: Path, user: str):
    secret = "p#/@: ü"
    name = user or "default"
    server.ask("ACL", "SETUSER", name, "on", "resetpass", f">{secret}", "~*", "&*", "+@all")
    (tmp_path / "password").write_text(secret + "\n", "utf-8")
    at = f"127.0.0.1:{server.port}"
    config = load(
        flags={
            "client.insecure": True,
            "broker.redis_urls": [f"redis://{user}@{at}" if user else f"redis://{at}"],
            "broker.redis_password_file": str(tmp_path / "password"),
        }
    )
    [url] = config.broker.redis_urls
    assert await failure(url) == ""
    assert secret not in repr(config)
