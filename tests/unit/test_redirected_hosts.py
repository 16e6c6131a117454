"""A redirection without a host means the node that answered (https://valkey.io/commands/cluster-slots/)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cluster.config.redis_url import Address
from cluster.errors import StoreRefused
from cluster.resp.link import Done, Link, wait_for
from cluster.resp.redirects import Redirects
from cluster.resp.shard import Shard


class Node:
    """What redirections use of a shard and its link for commands; it gives one answer to everything."""

    def __init__(self, host: str, port: int, answer: Any) -> None:
        self.address = Address(host=host, port=port)
        self.answer = answer
        self.commands = self

    async def wait_up(self) -> None:
        """It is up."""


class Map:
    """The owner of slot 0 is another node than the owner of the key."""

    def __init__(self, owner: Node, *others: Node) -> None:
        self.owner = owner
        self.first = Node("first", 1, "the owner of slot 0")
        self.nodes = {str(node.address): node for node in (owner, self.first, *others)}

    def shard_of(self, key: str) -> Shard:
        return cast(Shard, self.owner if key else self.first)

    def shard_at(self, address: Address) -> Shard:
        unknown = Node(address.host, address.port, f"asked at {address}")
        return cast(Shard, self.nodes.setdefault(str(address), unknown))

    def refresh(self) -> None:
        """The map stays."""


def send(link: Link, follows_ask: bool, done: Done) -> None:
    done(cast(Node, link).answer)


async def reply_of(nodes: Map, *, keeps_order: bool) -> Any:
    redirects = Redirects(nodes, timeout_seconds=5.0)
    return await wait_for(lambda done: redirects.submit("k", send, done, keeps_order=keeps_order))


@pytest.mark.parametrize("keeps_order", [False, True])
@pytest.mark.parametrize("kind", ["MOVED", "ASK"])
async def test_a_redirection_without_a_host_goes_to_the_host_that_answered(
    kind: str, keeps_order: bool
):
    owner = Node("second", 2, StoreRefused(f"{kind} 9000 :7"))
    assert await reply_of(Map(owner), keeps_order=keeps_order) == "asked at second:7"


async def test_each_of_several_redirections_goes_by_the_node_that_gave_it():
    owner = Node("second", 2, StoreRefused("MOVED 9000 third:3"))
    third = Node("third", 3, StoreRefused("ASK 9000 :7"))
    assert await reply_of(Map(owner, third), keeps_order=True) == "asked at third:7"


async def test_a_redirection_with_a_host_goes_there():
    owner = Node("second", 2, StoreRefused("MOVED 9000 fourth:4"))
    assert await reply_of(Map(owner), keeps_order=False) == "asked at fourth:4"


@pytest.mark.parametrize("text", ["MOVED 9000", "MOVED 9000 nothing", "ASK 9000 :x"])
async def test_a_redirection_that_names_no_node_is_the_answer(text: str):
    reply = Node("second", 2, StoreRefused(text))
    with pytest.raises(StoreRefused, match=text):
        await reply_of(Map(reply), keeps_order=False)
