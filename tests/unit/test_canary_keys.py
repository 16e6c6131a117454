"""A key on a certain server is computed: a master may own a single slot of 16,384."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest
from redis.crc import key_slot

from cluster.broker.canary import Canary
from cluster.config.redis_url import Address
from cluster.resp.discovery import SLOTS, Master
from cluster.resp.keys import tag_on
from cluster.resp.router import Router
from cluster.resp.shard import Shard


class Counting(Router):
    """A router without servers, that counts for how many keys it was asked who owns them."""

    asked = 0

    def shard_of(self, key: str) -> Shard:
        self.asked += 1
        return super().shard_of(key)


@pytest.fixture
async def router() -> AsyncIterator[Counting]:
    made = Counting(["redis://127.0.0.1:1"], timeout_seconds=1.0)
    yield made
    await made.aclose()


def owning(*, slot: int) -> list[Master]:
    """Two masters, of which the second owns one slot."""
    return [
        Master(Address(port=1), (range(slot), range(slot + 1, SLOTS))),
        Master(Address(port=2), (range(slot, slot + 1),)),
    ]


def canary_of(router: Router, name: str) -> Canary:
    return Canary(
        router,
        router.subscriptions,
        prefix="ws:0",
        name=name,
        interval_seconds=1.0,
        deaf_after_seconds=5.0,
    )


@pytest.mark.parametrize("slot", [0, 1, 4242, SLOTS - 1])
async def test_a_master_with_one_slot_gets_its_canary_without_a_search(router: Counting, slot: int):
    router._use(owning(slot=slot))
    for number in range(8):
        canary = canary_of(router, f"here:w{number}a:1")
        router.asked = 0
        canary._send_all()
        assert router.asked < 10
        keys = [canary._keys[str(shard.address)] for shard in router.shards]
        assert [router.shard_of(key) for key in keys] == router.shards


async def test_a_brace_in_the_name_of_a_worker_does_not_hinder_its_canary(router: Counting):
    router._use(owning(slot=77))
    canary = canary_of(router, "he}re{:w0a:1")
    canary._send_all()
    keys = [canary._keys[str(shard.address)] for shard in router.shards]
    assert [router.shard_of(key) for key in keys] == router.shards


async def test_a_master_without_a_slot_has_no_canary(router: Counting):
    masters = [Master(Address(port=1), (range(SLOTS),)), Master(Address(port=2), ())]
    router._use(masters)
    canary = canary_of(router, "here:w0a:1")
    canary._send_all()
    assert list(canary._keys) == [str(router.shards[0].address)]
    assert not canary.is_deaf


def test_there_is_a_tag_in_every_slot():
    router = cast(Router, SimpleNamespace(slot_of=lambda slot: slot))
    tags = [tag_on(router, cast(Shard, slot), "ws:0:i:access:") for slot in range(SLOTS)]
    assert [key_slot(str(tag).encode()) for tag in tags] == list(range(SLOTS))
