"""Answers of a Redis Cluster that have another shape than the documented one: the next node is asked."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, cast

import pytest

from cluster.config.redis_url import Address
from cluster.errors import StoreRefused, StoreUnavailable
from cluster.resp.discovery import ClusterDiscovery
from cluster.resp.redirects import Redirects
from cluster.resp.shard import Shard

SLOTS = [[0, 16383, [b"10.0.0.1", 7000, b"id"]]]
SHAPELESS = [7, b"OK", [7], [[0]], [[0, 16383]], [[0, 16383, [b"h"]]], [[b"a", b"b", [b"h", b"p"]]]]


class Node:
    """Both the shard and its link for commands."""

    is_up = True
    is_cut_off = False

    def __init__(self, answer: Any) -> None:
        self.address = Address("10.0.0.9", 7000)
        self._answer = answer

    @property
    def commands(self) -> Node:
        return self

    async def call(self, *_: object) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def shards(*answers: Any) -> list[Shard]:
    return [cast(Shard, Node(answer)) for answer in answers]


def discovery() -> ClusterDiscovery:
    return ClusterDiscovery(Address("10.0.0.9", 7000), timeout_seconds=5.0)


@pytest.mark.parametrize("answer", SHAPELESS, ids=str)
async def test_a_map_that_is_none_is_named_and_does_not_hide_the_next(answer: Any):
    with pytest.raises(StoreUnavailable, match=r"10\.0\.0\.9:7000 answers CLUSTER SLOTS with"):
        await discovery().masters(shards(answer))
    [master] = await discovery().masters(shards(answer, SLOTS))
    assert master.address == Address("10.0.0.1", 7000)


async def test_a_refused_map_has_the_reason():
    with pytest.raises(StoreUnavailable, match="NOPERM no permissions"):
        await discovery().masters(shards(StoreRefused("NOPERM no permissions")))


@pytest.mark.parametrize("text", ["MOVED", "MOVED 1", "ASK 1 host", "MOVED 1 host:port"])
async def test_a_redirection_that_names_no_node_is_the_answer(text: str):
    class Nodes:
        def shard_of(self, key: str) -> Shard:
            return cast(Shard, Node(None))

        def shard_at(self, address: Address) -> Shard:
            raise AssertionError(address)

        def refresh(self) -> None:
            """Nothing has changed."""

    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    answers: asyncio.Queue[Any] = asyncio.Queue()
    redirects = Redirects(Nodes(), timeout_seconds=5.0)
    redirects.submit(
        "key",
        lambda _, follows_ask, done: done(StoreRefused(text)),
        answers.put_nowait,
        keeps_order=False,
    )
    assert str(await asyncio.wait_for(answers.get(), 10)) == text
    assert not redirects._followed
    await redirects.aclose()
    gc.collect()  # An error that no task has retrieved is reported when the task is freed.
    assert reported == []
