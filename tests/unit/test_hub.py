"""Local fan-out: delivery, its order, gaps, and subscribers that miss publications."""

from __future__ import annotations

import orjson
import pytest

from cluster import hub as hubs
from cluster.hub import Channel, Hub
from cluster.metrics.counters import Counters
from cluster.protocol import Position, Publication

E = "epoch"


def pub(offset: int, epoch: str = E) -> Publication:
    return Publication(offset, epoch, b'{"data":%d}' % offset)


def pubs(first: int, last: int) -> list[Publication]:
    return [pub(offset) for offset in range(first, last + 1)]


class Reader:
    """A subscriber that records what is written to it."""

    def __init__(self) -> None:
        self.writes = 0
        self.got: list[int] = []
        self.is_broken = False

    def write(self, data: bytes) -> None:
        if self.is_broken:
            raise RuntimeError("the handler is closed")
        self.writes += 1
        while data:
            size = data[1]
            pushed = orjson.loads(data[2 : 2 + size])["push"]["pub"]
            self.got.append(pushed.get("offset", pushed["data"]))
            data = data[2 + size :]


@pytest.fixture
def hub() -> Hub:
    return Hub(Counters())


def join(hub: Hub, reader: Reader, top: int, epoch: str = E, *, name: str = "c") -> Channel:
    channel, _ = hub.join_begin(name, is_positioned=True)
    hub.join(channel, reader, reader.write, Position(top, epoch))
    return channel


def filled(hub: Hub, channel: Channel, top: Position, missing: list[Publication]) -> bool:
    """Fill with a read that begins now, and continue as the node does."""
    is_whole = hub.fill(channel, top, missing, held_before=len(channel.held))
    if not is_whole:
        hub.release(channel)
    return is_whole


# --- joining and leaving -------------------------------------------------------------------


def test_only_the_first_joiner_makes_the_channel_new(hub: Hub):
    channel, is_new = hub.join_begin("c", is_positioned=True)
    again, is_new_again = hub.join_begin("c", is_positioned=True)
    assert (is_new, is_new_again) == (True, False)
    assert again is channel


def test_the_channel_is_removed_with_its_last_subscriber(hub: Hub):
    one, two = Reader(), Reader()
    join(hub, one, 0)
    join(hub, two, 0)
    assert not hub.leave("c", one)
    assert hub.leave("c", two)
    assert hub.channels == {}
    assert hub.subscriptions == 0


def test_a_joiner_keeps_the_channel_alive_until_it_aborts(hub: Hub):
    reader = Reader()
    join(hub, reader, 0)
    channel, _ = hub.join_begin("c", is_positioned=True)
    assert not hub.leave("c", reader)
    assert hub.join_abort(channel)
    assert hub.channels == {}


def test_leaving_an_unknown_channel_or_twice_changes_nothing(hub: Hub):
    reader, other = Reader(), Reader()
    assert not hub.leave("c", reader)
    join(hub, reader, 0)
    join(hub, other, 0)
    hub.leave("c", reader)
    hub.leave("c", reader)
    assert hub.subscriptions == 1


def test_publications_of_a_channel_without_subscribers_are_dropped(hub: Hub):
    assert hub.deliver("c", pubs(1, 3)) is None


# --- without history -----------------------------------------------------------------------


def test_a_channel_without_history_delivers_everything_at_once(hub: Hub):
    reader = Reader()
    channel, _ = hub.join_begin("c", is_positioned=False)
    hub.join(channel, reader, reader.write, Position(0, ""))
    gap = hub.deliver("c", [Publication(0, "", b'{"data":5}'), Publication(0, "", b'{"data":5}')])
    assert gap is None
    assert reader.got == [5, 5]


# --- with history --------------------------------------------------------------------------


def test_a_batch_is_one_write_per_subscriber(hub: Hub):
    readers = [Reader() for _ in range(3)]
    for reader in readers:
        join(hub, reader, 0)
    hub.deliver("c", pubs(1, 5))
    assert [(reader.writes, reader.got) for reader in readers] == [(1, [1, 2, 3, 4, 5])] * 3


def test_what_arrived_before_the_first_read_is_not_delivered_twice(hub: Hub):
    reader = Reader()
    channel, _ = hub.join_begin("c", is_positioned=True)
    hub.deliver("c", pubs(1, 4))
    hub.join(channel, reader, reader.write, Position(2, E))
    assert reader.got == [3, 4]
    assert channel.position == Position(4, E)


def test_repeated_and_late_publications_are_dropped(hub: Hub):
    reader = Reader()
    join(hub, reader, 3)
    hub.deliver("c", [pub(2), pub(3), pub(4), pub(4), pub(1), pub(5)])
    assert reader.got == [4, 5]


def test_a_joiner_ahead_of_the_channel_skips_publications_until_the_channel_catches_up(hub: Hub):
    first, ahead = Reader(), Reader()
    channel = join(hub, first, 2)
    join(hub, ahead, 5)
    assert channel.offset == 2
    hub.deliver("c", pubs(3, 4))
    assert (first.got, ahead.got) == ([3, 4], [])
    hub.deliver("c", pubs(5, 7))
    assert (first.got, ahead.got) == ([3, 4, 5, 6, 7], [6, 7])
    assert not channel.ahead


def test_a_joiner_ahead_may_leave(hub: Hub):
    first, ahead = Reader(), Reader()
    join(hub, first, 2)
    join(hub, ahead, 5)
    hub.leave("c", ahead)
    hub.deliver("c", pubs(3, 9))
    assert ahead.got == []
    assert hub.subscriptions == 1


def test_a_joiner_behind_gets_the_publications_since_its_read(hub: Hub):
    first, behind = Reader(), Reader()
    channel = join(hub, first, 0)
    joining, _ = hub.join_begin("c", is_positioned=True)
    hub.deliver("c", pubs(1, 4))
    hub.join(joining, behind, behind.write, Position(2, E))
    assert behind.got == [3, 4]
    hub.deliver("c", pubs(5, 5))
    assert behind.got == [3, 4, 5]
    assert channel.tail is None


def test_the_tail_is_kept_while_there_is_a_joiner(hub: Hub):
    readers = [Reader() for _ in range(3)]
    channel = join(hub, readers[0], 0)
    hub.join_begin("c", is_positioned=True)
    hub.join_begin("c", is_positioned=True)
    hub.deliver("c", pubs(1, 2))
    hub.join(channel, readers[1], readers[1].write, Position(0, E))
    hub.deliver("c", pubs(3, 3))
    hub.join(channel, readers[2], readers[2].write, Position(1, E))
    assert (readers[1].got, readers[2].got) == ([1, 2, 3], [2, 3])
    assert channel.tail is None


# --- gaps ----------------------------------------------------------------------------------


def test_a_gap_holds_what_follows_until_it_is_filled(hub: Hub):
    reader = Reader()
    channel = join(hub, reader, 0)
    assert hub.deliver("c", [pub(1), pub(3), pub(4)]) is channel
    assert hub.deliver("c", [pub(5)]) is None
    assert reader.got == [1]
    assert hub.fill(channel, Position(4, E), pubs(2, 4), held_before=2)
    assert reader.got == [1, 2, 3, 4, 5]
    assert not channel.is_held


def test_a_gap_that_the_stream_has_trimmed_is_reported(hub: Hub):
    reader = Reader()
    channel = join(hub, reader, 0)
    hub.deliver("c", [pub(9)])
    assert not filled(hub, channel, Position(9, E), pubs(5, 9))
    assert reader.got == []
    hub.deliver("c", [pub(10)])
    assert reader.got == [10]


def test_a_channel_with_a_loss_is_held_until_the_loss_was_reported(hub: Hub):
    reader = Reader()
    channel = join(hub, reader, 0)
    hub.deliver("c", [pub(9)])
    hub.deliver("c", [pub(10)])
    assert not hub.fill(channel, Position(9, E), pubs(5, 9), held_before=1)
    assert (channel.is_held, reader.got) == (True, [])
    hub.release(channel)
    assert (channel.is_held, reader.got) == (False, [10])


def test_a_read_that_stops_below_the_top_is_not_whole(hub: Hub):
    channel = join(hub, Reader(), 0)
    hub.deliver("c", [pub(9)])
    assert not filled(hub, channel, Position(9, E), pubs(1, 8))


def test_another_epoch_is_a_gap_that_cannot_be_filled(hub: Hub):
    reader = Reader()
    channel = join(hub, reader, 5)
    assert hub.deliver("c", [pub(1, "new")]) is channel
    assert not filled(hub, channel, Position(1, "new"), [pub(1, "new")])
    assert channel.position == Position(1, "new")
    assert not channel.is_held


def test_a_stream_that_went_backwards_is_reported(hub: Hub):
    channel = join(hub, Reader(), 5)
    assert hub.hold(channel)
    assert not filled(hub, channel, Position(3, E), [])
    assert channel.position == Position(3, E)


def test_a_held_channel_with_nothing_missing_continues(hub: Hub):
    reader = Reader()
    channel = join(hub, reader, 2)
    assert hub.hold(channel)
    assert not hub.hold(channel)
    hub.deliver("c", [pub(3)])
    assert hub.fill(channel, Position(2, E), [], held_before=0)
    assert reader.got == [3]


def test_publications_during_the_read_follow_the_fill(hub: Hub):
    reader = Reader()
    channel = join(hub, reader, 0)
    hub.deliver("c", [pub(2)])
    hub.deliver("c", [pub(3), pub(4)])
    assert hub.fill(channel, Position(2, E), pubs(1, 2), held_before=1)
    assert reader.got == [1, 2, 3, 4]
    assert not channel.is_held


def test_a_second_gap_after_the_first_needs_another_fill(hub: Hub):
    reader = Reader()
    channel = join(hub, reader, 0)
    hub.deliver("c", [pub(2)])
    hub.deliver("c", [pub(5)])
    assert hub.fill(channel, Position(3, E), pubs(1, 3), held_before=1)
    assert (reader.got, channel.is_held) == ([1, 2, 3], True)
    assert filled(hub, channel, Position(5, E), pubs(4, 5))
    assert (reader.got, channel.is_held) == ([1, 2, 3, 4, 5], False)


@pytest.mark.parametrize("stale", [pub(7, "old"), pub(40)], ids=["old epoch", "beyond the top"])
def test_what_was_held_before_the_read_and_is_not_in_the_stream_is_dropped(
    hub: Hub, stale: Publication
):
    reader = Reader()
    channel = join(hub, reader, 3)
    hub.deliver("c", [stale])
    assert filled(hub, channel, Position(4, E), [pub(4)])
    assert (reader.got, channel.is_held) == ([4], False)


def test_a_publication_without_history_is_no_gap(hub: Hub):
    reader, ahead = Reader(), Reader()
    channel = join(hub, reader, 3)
    join(hub, ahead, 4)
    assert hub.deliver("c", [Publication(0, "", b'{"data":77}'), pub(4)]) is None
    assert reader.got == [77, 4]
    assert channel.position == Position(4, E)


def test_more_buffered_publications_than_the_limit_are_reported_as_lost(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hubs, "HELD_LIMIT", 5)
    reader = Reader()
    channel = join(hub, reader, 0)
    hub.deliver("c", pubs(2, 20))
    assert len(channel.held) == 5
    assert not filled(hub, channel, Position(1, E), pubs(1, 1))
    assert not channel.has_overflown


def test_a_joiner_ahead_becomes_a_subscriber_when_its_channel_jumps(hub: Hub):
    first, ahead = Reader(), Reader()
    channel = join(hub, first, 0)
    hub.deliver("c", [pub(9)])
    join(hub, ahead, 9)
    assert not filled(hub, channel, Position(9, E), pubs(5, 9))
    hub.deliver("c", [pub(10)])
    assert first.got[-1:] == ahead.got == [10]


def test_a_subscriber_that_leaves_while_the_channel_is_held_gets_nothing(hub: Hub):
    one, two = Reader(), Reader()
    channel = join(hub, one, 0)
    join(hub, two, 0)
    hub.deliver("c", [pub(2)])
    hub.leave("c", one)
    filled(hub, channel, Position(2, E), pubs(1, 2))
    assert (one.got, two.got) == ([], [1, 2])


# --- broken sockets ------------------------------------------------------------------------


def test_a_broken_socket_does_not_harm_the_others(hub: Hub):
    readers = [Reader() for _ in range(5)]
    for reader in readers:
        join(hub, reader, 0)
    readers[0].is_broken = readers[3].is_broken = readers[4].is_broken = True
    hub.deliver("c", pubs(1, 2))
    assert [reader.got for reader in readers] == [[], [1, 2], [1, 2], [], []]


def test_a_broken_joiner_does_not_harm_the_channel(hub: Hub):
    first, ahead, behind = Reader(), Reader(), Reader()
    ahead.is_broken = behind.is_broken = True
    channel = join(hub, first, 0)
    join(hub, ahead, 1)
    hub.join_begin("c", is_positioned=True)
    hub.deliver("c", pubs(1, 3))
    hub.join(channel, behind, behind.write, Position(2, E))
    assert first.got == [1, 2, 3]


def test_deliveries_are_counted_once_per_recipient_and_publication():
    counters = Counters()
    hub = Hub(counters)
    readers = [Reader() for _ in range(4)]
    for reader in readers:
        join(hub, reader, 0)
    readers[1].is_broken = True
    hub.deliver("c", pubs(1, 3))
    assert counters.messages_out == 9
    assert counters.dropped["closed"] == 3
    assert counters.bytes_out > 0


# --- joiners whose read is old ---------------------------------------------------------------


def test_a_joiner_with_an_earlier_read_gets_the_publications_in_between(hub: Hub):
    late, early = Reader(), Reader()
    channel, _ = hub.join_begin("c", is_positioned=True)
    hub.join_begin("c", is_positioned=True)
    hub.deliver("c", pubs(4, 5))
    hub.join(channel, late, late.write, Position(5, E))
    assert hub.join(channel, early, early.write, Position(3, E))
    hub.deliver("c", [pub(6)])
    assert early.got == [4, 5, 6]
    assert late.got == [6]


def test_a_joiner_that_misses_publications_is_reported(hub: Hub):
    late, early = Reader(), Reader()
    channel, _ = hub.join_begin("c", is_positioned=True)
    hub.join_begin("c", is_positioned=True)
    assert hub.join(channel, late, late.write, Position(5, E))
    assert not hub.join(channel, early, early.write, Position(3, E))


def test_a_joiner_whose_channel_jumped_meanwhile_is_reported(hub: Hub):
    first, joiner = Reader(), Reader()
    channel = join(hub, first, 3)
    hub.join_begin("c", is_positioned=True)
    hub.deliver("c", [pub(9)])
    assert not filled(hub, channel, Position(9, E), pubs(8, 9))
    assert not hub.join(channel, joiner, joiner.write, Position(3, E))


def test_a_joiner_of_another_epoch_is_reported(hub: Hub):
    first, joiner = Reader(), Reader()
    channel = join(hub, first, 3)
    hub.join_begin("c", is_positioned=True)
    hub.deliver("c", [pub(1, "new")])
    assert not filled(hub, channel, Position(1, "new"), [pub(1, "new")])
    assert not hub.join(channel, joiner, joiner.write, Position(3, E))
