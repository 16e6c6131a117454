"""Subscribers that take deltas: what they make of them is what was published, in order and once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from centrifuge.fossil import apply_delta

from cluster.config import ChannelOptions
from cluster.delta_groups import COMPARED_BYTES, DeltaDelivery
from cluster.hub import Channel, Hub
from cluster.metrics.counters import Counters
from cluster.protocol import Position, Publication, server_publication_body
from tests.unit.local_worker import (
    RECOVERABLE,
    LocalWorker,
    ask,
    configured,
    entered,
)

E = "epoch"
ALWAYS = DeltaDelivery(is_always=True)
ON_REQUEST = DeltaDelivery(is_always=False)
TEXT = "é" * 100
OPTIONS = replace(RECOVERABLE, allowed_delta_types=("fossil",), delta_publish=True)


def pub(offset: int, *, wants_delta: bool = False, text: str = TEXT) -> Publication:
    data = orjson.dumps({"n": offset, "text": text})
    tags = {"kind": "goal"}
    return Publication(offset, E, server_publication_body(data, tags, wants_delta=wants_delta))


class Decoder:
    """What the SDKs do with the publications of one subscription."""

    def __init__(self) -> None:
        self.base = b""
        self.got: list[int] = []
        self.deltas: list[int] = []

    def take(self, publication: dict[str, Any]) -> None:
        text = publication["data"].encode()
        self.base = bytes(apply_delta(self.base, text)) if publication.get("delta") else text
        data = json.loads(self.base)
        assert data["n"] == publication["offset"]
        assert publication["tags"] == {"kind": "goal"}
        self.got.append(data["n"])
        if publication.get("delta"):
            self.deltas.append(data["n"])

    def write(self, frames: bytes) -> None:
        for frame in frames.split(b'{"push":')[1:]:
            text = b'{"push":' + frame[: frame.rindex(b"}") + 1]
            self.take(json.loads(text)["push"]["pub"])


@pytest.fixture
def hub() -> Hub:
    return Hub(Counters())


def join(hub: Hub, decoder: Decoder, top: int, delivery: DeltaDelivery = ALWAYS) -> Channel:
    channel, _ = hub.join_begin("c", is_positioned=True)
    assert hub.join(channel, decoder, decoder.write, Position(top, E), delivery)
    return channel


def test_the_first_publication_is_whole_and_the_others_are_deltas(hub: Hub):
    one = Decoder()
    join(hub, one, 0)
    hub.deliver("c", [pub(1)])
    hub.deliver("c", [pub(2), pub(3)])
    assert (one.got, one.deltas) == ([1, 2, 3], [2, 3])


def test_a_later_subscriber_begins_with_a_whole_publication(hub: Hub):
    one, two = Decoder(), Decoder()
    plain: list[bytes] = []
    join(hub, one, 0)
    hub.deliver("c", [pub(1)])
    join(hub, two, 1)
    channel, _ = hub.join_begin("c", is_positioned=True)
    hub.join(channel, "plain", plain.append, Position(1, E))
    hub.deliver("c", [pub(2), pub(3)])
    assert (one.deltas, two.got, two.deltas) == ([2, 3], [2, 3], [3])
    assert b'"data":{"n":2' in plain[0]


def test_a_subscriber_ahead_begins_after_what_it_has_read(hub: Hub):
    one, two, three = Decoder(), Decoder(), Decoder()
    join(hub, one, 0)
    join(hub, two, 3)
    join(hub, three, 2)
    hub.deliver("c", [pub(1), pub(2)])
    hub.deliver("c", [pub(3), pub(4), pub(5)])
    hub.deliver("c", [pub(6)])
    assert (two.got, two.deltas) == ([4, 5, 6], [5, 6])
    assert (three.got, three.deltas) == ([3, 4, 5, 6], [4, 5, 6])


def test_a_subscriber_behind_gets_what_it_has_missed_whole(hub: Hub):
    one, two = Decoder(), Decoder()
    join(hub, one, 0)
    channel, _ = hub.join_begin("c", is_positioned=True)
    hub.deliver("c", [pub(1), pub(2), pub(3)])
    assert hub.join(channel, two, two.write, Position(1, E), ALWAYS)
    hub.deliver("c", [pub(4), pub(5)])
    assert (two.got, two.deltas) == ([2, 3, 4, 5], [5])


def test_without_the_namespaces_option_the_publisher_asks_for_a_delta(hub: Hub):
    one = Decoder()
    join(hub, one, 0, ON_REQUEST)
    hub.deliver("c", [pub(1), pub(2), pub(3, wants_delta=True), pub(4)])
    assert (one.got, one.deltas) == ([1, 2, 3, 4], [3])


def test_a_delta_that_is_not_smaller_is_not_sent(hub: Hub):
    one = Decoder()
    join(hub, one, 0)
    hub.deliver("c", [pub(1, text="a"), pub(2, text="b")])
    assert (one.got, one.deltas) == ([1, 2], [])


def test_one_batch_compares_a_bounded_number_of_bytes(hub: Hub):
    one = Decoder()
    join(hub, one, 0)
    long = "x" * 60_000
    hub.deliver("c", [pub(n, text=long) for n in range(1, 11)])
    assert one.got == list(range(1, 11))
    assert one.deltas == list(range(2, 2 + -(-COMPARED_BYTES // 120_000)))


def test_the_last_subscriber_leaves_no_group(hub: Hub):
    one, two = Decoder(), Decoder()
    channel = join(hub, one, 0)
    hub.deliver("c", [pub(1)])
    join(hub, two, 1)
    assert not hub.leave("c", two)
    assert hub.leave("c", one)
    assert channel.groups is None


def test_a_recovery_is_a_chain_of_deltas():
    decoder = Decoder()
    for one in ALWAYS.encoded([pub(4), pub(5), pub(6)]):
        decoder.take(json.loads(orjson.dumps(one)))
    assert (decoder.got, decoder.deltas) == ([4, 5, 6], [5, 6])


async def publish(worker: LocalWorker, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await worker.node.commands.publish_from_server("a", pub(number).body)


async def test_a_client_that_asks_for_deltas_gets_them_live_and_in_a_recovery():
    async with LocalWorker(configured(options=OPTIONS)).open() as worker:
        caller = await entered(worker)
        result = (await ask(caller, "subscribe", channel="a", delta="fossil"))["subscribe"]
        assert result["delta"] is True
        await publish(worker, 1, 3)
        decoder = Decoder()
        pushes = await caller.until(
            lambda: (
                found
                if len(found := [one["push"]["pub"] for one in caller.heard if "push" in one]) == 3
                else []
            )
        )
        for one in pushes:
            decoder.take(one)
        assert (decoder.got, decoder.deltas) == ([1, 2, 3], [2, 3])
        back = await entered(worker)
        request = {"recover": True, "offset": 1, "epoch": result["epoch"], "delta": "fossil"}
        again = (await ask(back, "subscribe", channel="a", **request))["subscribe"]
        recovered = Decoder()
        for one in again["publications"]:
            recovered.take(one)
        assert (recovered.got, recovered.deltas, again["delta"]) == ([2, 3], [3], True)


@pytest.mark.parametrize(
    "options",
    [
        RECOVERABLE,
        ChannelOptions(allowed_delta_types=("fossil",)),
        ChannelOptions(history_size=9, history_ttl=60.0, allowed_delta_types=("fossil",)),
    ],
    ids=["not allowed", "no history", "not positioned"],
)
async def test_where_deltas_are_not_possible_data_stays_as_it_is(options: ChannelOptions):
    async with LocalWorker(configured(options=options)).open() as worker:
        caller = await entered(worker)
        result = (await ask(caller, "subscribe", channel="a", delta="fossil"))["subscribe"]
        assert "delta" not in result
        await ask(caller, "publish", channel="a", data={"n": 1})
        await caller.until(lambda: caller.pubs() == [{"n": 1}])
