"""Which node of a Redis Cluster is asked for the map of the slots, and when."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.broker.canary import Canary
from cluster.config.redis_url import Address
from cluster.errors import StoreRefused, StoreUnavailable
from cluster.resp.discovery import SLOTS, ClusterDiscovery
from cluster.resp.router import Router
from cluster.resp.shard import Shard
from cluster.resp.subscriptions import Subscriptions

SEED = Address(port=1)


class Node:
    """What discovery and canary use of a shard; its map says that it owns every slot itself."""

    def __init__(self, port: int, *, is_cut_off: bool = False, is_up: bool = True) -> None:
        self.address = SEED.at("127.0.0.1", port)
        self.is_cut_off = is_cut_off
        self.commands = SimpleNamespace(is_up=is_up, call=self.call, submit=self.submit)
        self.subscriptions = SimpleNamespace(is_up=is_up, reset=lambda: None)
        self.answer: Any = 1

    async def call(self, *_command: str) -> Any:
        return [[0, SLOTS - 1, [b"127.0.0.1", self.address.port, b"name"]]]

    def submit(self, command: tuple[Any, ...], done: Callable[[Any], None]) -> None:
        done(self.answer)


async def asked_first(*nodes: Node) -> int:
    """The port of the node whose map is used."""
    discovery = ClusterDiscovery(SEED, timeout_seconds=5.0)
    [master] = await discovery.masters(cast(list[Shard], nodes))
    return master.address.port


async def test_the_map_of_a_node_that_says_it_is_cut_off_is_not_used_if_there_is_another():
    assert await asked_first(Node(1, is_cut_off=True), Node(2)) == 2
    assert await asked_first(Node(1), Node(2, is_cut_off=True)) == 1


async def test_the_map_of_a_node_that_says_it_is_cut_off_is_used_if_no_other_answers():
    assert await asked_first(Node(1, is_up=False), Node(2, is_cut_off=True)) == 2
    assert await asked_first(Node(1, is_cut_off=True), Node(2, is_cut_off=True)) == 1
    with pytest.raises(StoreUnavailable):
        await asked_first(Node(1, is_up=False, is_cut_off=True))


class Masters:
    """What the canary uses of a router with one master, and how often it was told to ask again."""

    def __init__(self, node: Node) -> None:
        self.shards = [node]
        self.refreshed = 0

    def shard_of(self, key: str) -> Node:
        return self.shards[0]

    def slot_of(self, shard: Node) -> int:
        return 0

    def refresh(self) -> None:
        self.refreshed += 1


def canary_of(masters: Masters) -> Canary:
    silent = SimpleNamespace(
        subscribe=lambda *_, **__: None, unsubscribe=lambda *_: None, retry_unconfirmed=lambda: None
    )
    return Canary(
        cast(Router, masters),
        cast(Subscriptions, silent),
        prefix="ws:0",
        name="here:w0a:1",
        interval_seconds=1.0,
        deaf_after_seconds=60.0,
    )


@pytest.mark.parametrize(
    "refusal", ["CLUSTERDOWN The cluster is down", "NOREPLICAS too few", "MOVED 1 127.0.0.1:2"]
)
async def test_as_long_as_a_master_refuses_the_canary_the_masters_are_asked_for(refusal: str):
    node = Node(1)
    masters = Masters(node)
    canary = canary_of(masters)
    canary._send_all()
    assert masters.refreshed == 0
    node.answer = StoreRefused(refusal)
    canary._send_all()
    canary._send_all()
    assert masters.refreshed == 2
    node.answer = 1
    canary._send_all()
    assert masters.refreshed == 2
    assert not canary.is_deaf


async def test_a_node_that_takes_the_canarys_write_is_no_longer_cut_off():
    node = Node(1, is_cut_off=True)
    canary = canary_of(Masters(node))
    node.answer = StoreUnavailable("no answer")
    canary._send_all()
    assert node.is_cut_off
    node.answer = 0
    canary._send_all()
    assert not node.is_cut_off
