"""Subscribers with a filter: they get what passes, in order and once, and share the work."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from cluster.hub import Channel, Hub
from cluster.metrics.counters import Counters
from cluster.protocol import Position, Publication
from cluster.subscriber_groups import Delivery, FilteredDelivery
from cluster.tags_filter import TagsFilter, compiled

E = "epoch"


def pub(offset: int, kind: str = "") -> Publication:
    tags = b',"tags":{"kind":"%b"}' % kind.encode() if kind else b""
    return Publication(offset, E, b'{"data":%d%b}' % (offset, tags))


def wants(kind: str) -> Delivery:
    return FilteredDelivery(compiled(orjson.dumps({"key": "kind", "cmp": "eq", "val": kind})))


class Reader:
    def __init__(self) -> None:
        self.got: list[int] = []
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        for part in data.split(b'"data":')[1:]:
            digits = part[: min(part.index(end) for end in b",}" if end in part)]
            self.got.append(int(digits))


@pytest.fixture
def hub() -> Hub:
    return Hub(Counters())


def join(
    hub: Hub,
    reader: Reader,
    top: int,
    delivery: Delivery | None = None,
    *,
    has_history: bool = True,
) -> Channel:
    channel, _ = hub.join_begin("c", is_positioned=has_history)
    assert hub.join(channel, reader, reader.write, Position(top, E), delivery)
    return channel


def test_a_subscriber_gets_what_passes_its_filter_and_others_get_all(hub: Hub):
    plain, goals, fouls = Reader(), Reader(), Reader()
    join(hub, plain, 0)
    join(hub, goals, 0, wants("goal"))
    channel = join(hub, fouls, 0, wants("foul"))
    hub.deliver("c", [pub(1), pub(2, "goal"), pub(3, "foul"), pub(4, "goal")])
    assert (plain.got, goals.got, fouls.got) == ([1, 2, 3, 4], [2, 4], [3])
    assert [reader.writes for reader in (plain, goals, fouls)] == [1, 1, 1]
    assert channel.position == Position(4, E), "what was filtered counts"
    hub.deliver("c", [pub(5, "goal")])
    assert fouls.writes == 1


def test_a_channel_without_history_filters_too(hub: Hub):
    goals = Reader()
    join(hub, goals, 0, wants("goal"), has_history=False)
    hub.deliver("c", [Publication(0, "", pub(1, "goal").body), Publication(0, "", pub(2).body)])
    assert goals.got == [1]


def test_equal_filters_are_evaluated_once_for_each_publication(hub: Hub):
    calls: list[Any] = []

    def passes(tags: Any) -> bool:
        calls.append(tags)
        return True

    readers = [Reader() for _ in range(50)]
    for reader in readers:
        channel = join(hub, reader, 0, FilteredDelivery(TagsFilter(b"same", passes)))
    hub.deliver("c", [pub(1, "goal"), pub(2)])
    assert calls == [{"kind": "goal"}, {}]
    assert all(reader.got == [1, 2] for reader in readers)
    assert len(channel.subscribers) == 50


def test_the_last_subscriber_with_a_filter_leaves_a_plain_channel(hub: Hub):
    plain, goals = Reader(), Reader()
    channel = join(hub, plain, 0)
    join(hub, goals, 0, wants("goal"))
    assert hub.subscriptions == 2
    assert not hub.leave("c", goals)
    assert channel.groups is None
    assert hub.subscriptions == 1
    assert hub.leave("c", plain)
    join(hub, goals, 0, wants("goal"))
    assert hub.leave("c", goals), "the channel is removed with its last subscriber"
    assert hub.channels == {}


def test_a_joiner_ahead_of_the_channel_skips_what_it_has_read(hub: Hub):
    plain, goals = Reader(), Reader()
    join(hub, plain, 0)
    channel = join(hub, goals, 3, wants("goal"))
    hub.deliver("c", [pub(1, "goal"), pub(2, "goal")])
    assert goals.got == []
    hub.deliver("c", [pub(3, "goal"), pub(4, "goal"), pub(5)])
    hub.deliver("c", [pub(6, "goal")])
    assert goals.got == [4, 6]
    assert plain.got == [1, 2, 3, 4, 5, 6]
    assert channel.offset == 6


def test_a_joiner_behind_gets_what_passes_since_its_read(hub: Hub):
    plain, goals = Reader(), Reader()
    join(hub, plain, 0)
    channel, _ = hub.join_begin("c", is_positioned=True)
    hub.deliver("c", [pub(1, "goal"), pub(2), pub(3, "goal")])
    assert hub.join(channel, goals, goals.write, Position(1, E), wants("goal"))
    hub.deliver("c", [pub(4, "goal")])
    assert goals.got == [3, 4]


def test_a_gap_is_filled_for_filtered_subscribers_too(hub: Hub):
    goals = Reader()
    channel = join(hub, goals, 0, wants("goal"))
    assert hub.deliver("c", [pub(1, "goal"), pub(4, "goal")]) is channel
    missing = [pub(2, "goal"), pub(3), pub(4, "goal")]
    assert hub.fill(channel, Position(4, E), missing, held_before=1)
    assert goals.got == [1, 2, 4]


def test_a_loss_is_reported_to_filtered_subscribers_too(hub: Hub):
    plain, goals, ahead = Reader(), Reader(), Reader()
    join(hub, plain, 0)
    join(hub, goals, 0, wants("goal"))
    channel = join(hub, ahead, 9, wants("goal"))
    hub.deliver("c", [pub(7)])
    assert not hub.fill(channel, Position(7, E), [pub(6), pub(7)], held_before=1)
    assert set(channel.subscribers) == {plain, goals, ahead}


def test_deliveries_are_counted_for_those_who_got_them():
    counters = Counters()
    hub = Hub(counters)
    for kind in ("goal", "foul"):
        reader = Reader()
        join(hub, reader, 0, wants(kind))
    hub.deliver("c", [pub(1, "goal"), pub(2), pub(3, "foul"), pub(4, "goal")])
    assert counters.messages_out == 3


def test_a_broken_socket_does_not_harm_its_group(hub: Hub):
    def broken(data: bytes) -> None:
        raise RuntimeError

    first, last = Reader(), Reader()
    join(hub, first, 0, wants("goal"))
    channel, _ = hub.join_begin("c", is_positioned=True)
    hub.join(channel, "broken", broken, Position(0, E), wants("goal"))
    join(hub, last, 0, wants("goal"))
    hub.deliver("c", [pub(1, "goal")])
    assert (first.got, last.got) == ([1], [1])
