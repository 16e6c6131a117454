"""A real Sentinel: the master is found, and after a failover the new one is used."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config.sentinel_url import SentinelAddress
from cluster.errors import StoreDenied, StoreUnavailable
from cluster.resp.router import Router
from cluster.resp.sentinel import SentinelDiscovery
from tests.contract.conftest import program
from tests.contract.servers import Sentinel, Server
from tests.contract.test_store_reasons import PAGE
from tests.harness.processes import free_ports
from tests.harness.waiting import until

KEY = "{sentinel}.pub"


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Server]:
    with Server(program("redis"), tmp_path / "master") as running:
        yield running


@pytest.fixture
def replica(tmp_path: Path, master: Server) -> Iterator[Server]:
    options = ("--replicaof", f"127.0.0.1 {master.port}")
    with Server(program("redis"), tmp_path / "replica", options=options) as running:
        yield running


@pytest.fixture
def sentinel(tmp_path: Path, master: Server, replica: Server) -> Iterator[Sentinel]:
    with Sentinel(program("redis"), tmp_path / "sentinel", master) as running:
        yield running


def router_of(*ports: int, name: str = "main") -> Router:
    hosts = tuple(("127.0.0.1", port) for port in ports)
    address = SentinelAddress(hosts, name)
    discovery = SentinelDiscovery(address, timeout_seconds=1.0, recheck_seconds=0.2)
    return Router((), timeout_seconds=2.0, discovery=discovery)


async def test_after_a_failover_the_new_master_is_used(
    sentinel: Sentinel, master: Server, replica: Server
):
    # The first sentinel is not there: the next one is asked.
    router = router_of(free_ports(1), sentinel.port)
    heard: list[bytes] = []
    try:
        await router.start()
        assert [shard.address.port for shard in router.shards] == [master.port]
        await router.subscriptions.subscribe(KEY, "c", lambda _, payloads: heard.extend(payloads))
        await until(
            lambda: sentinel.ask("SENTINEL", "replicas", "main") != [], 20, "the replica is known"
        )
        master.stop()
        await until(
            lambda: [shard.address.port for shard in router.shards] == [replica.port],
            30,
            "the new master is used",
        )
        await until(lambda: router.subscriptions.is_confirmed(KEY), 10, "it is subscribed again")
        # Commands have a connection of their own, which may take longer.
        await until(lambda: router.is_up, 10, "commands are taken")
        await router.call(KEY, "SPUBLISH", KEY, b"after")
        await until(lambda: heard == [b"after"], 10, "the publication arrives")
    finally:
        await router.aclose()


async def test_a_master_that_sentinel_does_not_know_cannot_be_started_with(sentinel: Sentinel):
    router = router_of(sentinel.port, name="other")
    with pytest.raises(StoreUnavailable, match="names no master other"):
        await router.start()
    await router.aclose()


@pytest.mark.parametrize("others", [0, 1], ids=["the only one", "one is away"])
async def test_only_if_every_sentinel_refuses_the_password_another_attempt_is_in_vain(
    sentinel: Sentinel, others: int
):
    # As `requirepass`, and the connections that are open stay.
    sentinel.ask("ACL", "SETUSER", "default", "resetpass", ">secret")
    router = router_of(sentinel.port, *(free_ports(1) for _ in range(others)))
    with pytest.raises(StoreUnavailable, match="authenticated") as caught:
        await router.start()
    assert isinstance(caught.value, StoreDenied) == (others == 0)
    await router.aclose()


STRANGERS = {
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Protocol error"),
    "full": (b"-ERR max number of clients reached\r\n", "max number of clients reached"),
    "protected": (b"-DENIED Redis is running in protected mode\r\n", "in protected mode"),
    "numbers": (b":1\r\n" * 9, "its answer is none of Sentinel"),
    "words": (b"+OK\r\n" * 9, "its answer is none of Sentinel"),
}


@pytest.mark.parametrize(("said", "reason"), STRANGERS.values(), ids=STRANGERS)
async def test_a_sentinel_that_is_none_is_named_and_does_not_hide_the_next(
    sentinel: Sentinel, master: Server, said: bytes, reason: str
):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(said)
            while await reader.read(65536):
                pass
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    stranger = listener.sockets[0].getsockname()[1]
    alone, both = router_of(stranger), router_of(stranger, sentinel.port)
    try:
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{stranger}: .*{reason}"):
            await alone.start()
        await both.start()
        assert [shard.address.port for shard in both.shards] == [master.port]
    finally:
        await alone.aclose()
        await both.aclose()
        listener.close()


async def test_the_documented_rules_suffice_for_a_sentinel(sentinel: Sentinel, master: Server):
    [rules] = re.findall(r"such a user needs `([^`]+)`", PAGE.read_text("utf-8"))
    sentinel.ask("ACL", "SETUSER", "ann", "on", ">watch", "nocommands", *rules.split())
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main?sentinel_username=ann"
    router = Router([f"{url}&sentinel_password=watch"], timeout_seconds=2.0)
    try:
        await router.start()
        assert [shard.address.port for shard in router.shards] == [master.port]
    finally:
        await router.aclose()
