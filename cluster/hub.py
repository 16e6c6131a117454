"""Local fan-out: the subscribers of each channel on this worker, and their positions.

Rules of this file: no event loop, no socket, no Redis, no clock.

The position is stored per channel, not per subscriber, because all local subscribers that have
caught up share it. So gap detection costs one comparison per publication, and the frames of a
batch are joined once and written to all.

A joiner is a connection that subscribes and reads the stream first. If its read is ahead of the
channel, it skips publications (`skip_until`) until the channel has reached the same position. If
its read is behind, it gets the publications in between from the channel's `tail`. The position of
the channel never jumps forward for a joiner, because the other subscribers would lose the
publications in between.

A channel that misses publications is *held*: new publications are buffered until the missing ones
have been read from the stream (`fill`), so that none is delivered out of order.

Subscribers that get a selection of the publications are in `groups` (see `cluster.subscriber_groups`),
which are None in most channels; the channel's position is theirs too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cluster.joiners_tail import Tail
from cluster.metrics.counters import Counters
from cluster.protocol import Position, Publication, push_frame, push_prefix
from cluster.subscriber_groups import (
    Delivery,
    Framed,
    SubscriberGroup,
    SubscriberGroups,
    Write,
)

#: Maximum number of publications buffered per channel while it is held; beyond it some are lost.
HELD_LIMIT: Final = 10_000


class Channel:
    """One channel with at least one local subscriber or joiner."""

    __slots__ = (
        "active_at", "ahead", "epoch", "groups", "has_overflown", "held", "is_held",
        "is_positioned", "joining", "last", "name", "offset", "prefix", "tail", "writes",
    )  # fmt: skip

    def __init__(self, name: str, *, is_positioned: bool) -> None:
        self.name = name
        self.prefix = push_prefix(name)
        self.is_positioned = is_positioned
        self.offset = 0
        self.epoch = ""
        self.writes: dict[object, Write] = {}
        self.ahead: dict[object, tuple[Write, int]] = {}
        self.groups: SubscriberGroups | None = None
        self.joining = 0
        #: What the joiners may miss; None without any, and in a channel without positions.
        self.tail: Tail | None = None
        # A positioned channel is held until the first read of its stream gives it a position.
        self.is_held = is_positioned
        self.held: list[Publication] = []
        self.has_overflown = False
        self.active_at = 0.0
        #: The body of the publication at `offset`; b"" if it has not passed here.
        self.last = b""

    @property
    def has_position(self) -> bool:
        """Whether the channel has a position yet."""
        return bool(self.epoch)

    @property
    def newest_start(self) -> int:
        """The start of the joiner that has just begun; `join` and `join_abort` take it."""
        return self.tail.next if self.tail is not None else 0

    @property
    def position(self) -> Position:
        return Position(self.offset, self.epoch)

    @property
    def is_empty(self) -> bool:
        return not (self.writes or self.ahead or self.joining or self.groups)

    @property
    def subscribers(self) -> list[object]:
        """All subscribers: those that are ahead of the channel too, and those of the groups."""
        grouped = self.groups.subscribers if self.groups is not None else ()
        return [*self.writes, *self.ahead, *grouped]

    @property
    def count(self) -> int:
        """How many `subscribers` there are."""
        grouped = self.groups.count if self.groups is not None else 0
        return len(self.writes) + len(self.ahead) + grouped

    def add(self, subscriber: object, write: Write) -> None:
        self.writes[subscriber] = write

    def missed(self, framed: list[Framed]) -> list[bytes]:
        """The frames of what a new subscriber has missed."""
        return [frame for _, frame in framed]

    def place(self, subscriber: object, delivery: Delivery | None) -> Channel | SubscriberGroup:
        """Where a new subscriber is to be added."""
        if delivery is None:
            return self
        if self.groups is None:
            self.groups = SubscriberGroups()
        return self.groups.enter(subscriber, delivery, self.prefix)


class Hub:
    """All channels of one worker."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.channels: dict[str, Channel] = {}
        self.subscriptions = 0

    # --- joining and leaving ---------------------------------------------------------------

    def join_begin(self, name: str, *, is_positioned: bool) -> tuple[Channel, bool]:
        """Announce a joiner before it reads the stream.

        Returns:
            The channel, and whether it is new; the caller then subscribes to it at the broker. The
            channel's `newest_start` is the joiner's, until something is delivered.
        """
        channel = self.channels.get(name)
        is_new = channel is None
        if channel is None:
            channel = self.channels[name] = Channel(name, is_positioned=is_positioned)
        channel.joining += 1
        if channel.is_positioned:
            if channel.tail is None:
                channel.tail = Tail()
            channel.tail.begin()
        return channel, is_new

    def join_abort(self, channel: Channel, start: int | None = None) -> bool:
        """Remove a joiner that failed. Returns whether the channel became empty and was removed.

        Args:
            start: the joiner's; if it is not known, what is kept for it stays until no joiner is left.
        """
        self._end_join(channel, start)
        return self._remove_if_empty(channel)

    def join(
        self,
        channel: Channel,
        subscriber: object,
        write: Write,
        top: Position,
        delivery: Delivery | None = None,
        start: int | None = None,
    ) -> bool:
        """Turn a joiner into a subscriber and write what was published since its read.

        If the channel `is_held` afterwards, it misses publications and must be filled.

        Args:
            top: the position of its read of the stream; ignored in a channel without positions.
            delivery: how its publications are prepared, None if it gets them as they are.
            start: as in `join_abort`.

        Returns:
            True if it misses nothing. False if publications since its read are unknown: it is a
            subscriber, and the caller must report insufficient state to it.
        """
        is_whole = True
        self.subscriptions += 1
        place = channel.place(subscriber, delivery)
        if not channel.is_positioned:
            place.add(subscriber, write)
        elif not channel.has_position:
            self._set_first_position(channel, top)
            place.add(subscriber, write)
            self.release(channel)
            if channel.has_overflown:
                channel.has_overflown = False
                channel.is_held = True
        elif top.epoch == channel.epoch and top.offset > channel.offset:
            place.ahead[subscriber] = (write, top.offset)
        else:
            is_same = top.epoch == channel.epoch
            tail = channel.tail
            missed = tail.after(top.offset) if is_same and tail is not None else []
            is_whole = is_same and len(missed) == channel.offset - top.offset
            if is_whole and (frames := place.missed(missed)):
                self._write((write,), b"".join(frames), len(frames))
            place.add(subscriber, write)
        self._end_join(channel, start)
        return is_whole

    def _set_first_position(self, channel: Channel, top: Position) -> None:
        """Set the first position; keep what is before it for joiners with an earlier read."""
        channel.offset, channel.epoch = top
        channel.last = b""
        if channel.joining > 1 and channel.tail is not None:
            channel.tail.add(
                [
                    (held, push_frame(channel.prefix, held))
                    for held in channel.held
                    if held.epoch == top.epoch and 0 < held.offset <= top.offset
                ]
            )

    def subscribers(self, name: str) -> list[object]:
        """The subscribers of a channel here."""
        channel = self.channels.get(name)
        return [] if channel is None else channel.subscribers

    def leave(self, name: str, subscriber: object) -> bool:
        """Remove a subscriber. Returns whether the channel became empty and was removed."""
        channel = self.channels.get(name)
        if channel is None:
            return False
        if (
            channel.writes.pop(subscriber, None)
            or channel.ahead.pop(subscriber, None)
            or (channel.groups is not None and channel.groups.remove(subscriber))
        ):
            self.subscriptions -= 1
            if channel.groups is not None and channel.groups.is_empty:
                channel.groups = None
        return self._remove_if_empty(channel)

    def _end_join(self, channel: Channel, start: int | None) -> None:
        channel.joining -= 1
        if not channel.joining:
            channel.tail = None
        elif start is not None and channel.tail is not None:
            channel.tail.end(start)

    def _remove_if_empty(self, channel: Channel) -> bool:
        if not channel.is_empty:
            return False
        self.channels.pop(channel.name, None)
        return True

    # --- delivery --------------------------------------------------------------------------

    def deliver(self, name: str, publications: list[Publication]) -> Channel | None:
        """Write a batch of publications to all subscribers of a channel.

        Returns:
            The channel if it misses publications now and must be filled, else None.
        """
        channel = self.channels.get(name)
        if channel is None:
            return None
        if channel.is_held:
            self._hold(channel, publications)
            return None
        if not channel.is_positioned:
            self._fan_out(channel, [(p, push_frame(channel.prefix, p)) for p in publications])
            return None
        return self._advance(channel, publications)

    def _advance(self, channel: Channel, publications: list[Publication]) -> Channel | None:
        frames: list[Framed] = []
        offset, epoch, prefix = channel.offset, channel.epoch, channel.prefix
        gap_at, last = None, channel.last
        for index, publication in enumerate(publications):
            if not publication.offset:
                # During a roll, from a worker whose configuration gives this channel no history.
                frames.append((publication, push_frame(prefix, publication)))
                continue
            if publication.epoch == epoch:
                if publication.offset == offset + 1:
                    offset += 1
                    last = publication.body
                    frames.append((publication, push_frame(prefix, publication)))
                    continue
                if publication.offset <= offset:
                    continue
            gap_at = index
            break
        channel.offset, channel.last = offset, last
        if frames:
            self._fan_out(channel, frames)
        if gap_at is None:
            return None
        channel.is_held = True
        self._hold(channel, publications[gap_at:])
        return channel

    def _hold(self, channel: Channel, publications: list[Publication]) -> None:
        free = HELD_LIMIT - len(channel.held)
        if len(publications) > free:
            channel.has_overflown = True
            publications = publications[:free]
        channel.held.extend(publications)

    def _fan_out(self, channel: Channel, frames: list[Framed]) -> None:
        data = frames[0][1] if len(frames) == 1 else b"".join([frame for _, frame in frames])
        self._write(channel.writes.values(), data, len(frames))
        if channel.tail is not None:
            channel.tail.add(frames)
        if channel.ahead:
            self._catch_up(channel, frames)
        if channel.groups is not None:
            channel.groups.fan_out(frames, channel.offset, self._write)

    def _catch_up(self, channel: Channel, frames: list[Framed]) -> None:
        for subscriber, (write, skip_until) in list(channel.ahead.items()):
            new = [frame for publication, frame in frames if publication.offset > skip_until]
            if new:
                self._write((write,), b"".join(new), len(new))
            if channel.offset >= skip_until:
                del channel.ahead[subscriber]
                channel.writes[subscriber] = write

    def _write(self, writes: Iterable[Write], data: bytes, frames: int) -> None:
        count = 0
        rest = iter(writes)
        while True:
            try:
                for write in rest:
                    write(data)
                    count += 1
            except RuntimeError:
                # uvloop raises for a socket that is broken but not yet reported as lost; that
                # connection is removed soon. The iterator continues with the next subscriber.
                self._counters.dropped["closed"] += frames
                continue
            break
        self._counters.messages_out += count * frames
        self._counters.bytes_out += count * len(data)

    # --- filling gaps ----------------------------------------------------------------------

    def hold(self, channel: Channel) -> bool:
        """Hold a channel that may miss publications. Returns False if it is already held."""
        if channel.is_held:
            return False
        channel.is_held = True
        return True

    def fill(
        self,
        channel: Channel,
        top: Position,
        missing: list[Publication],
        *,
        held_before: int,
        is_replaced: bool = False,
    ) -> bool:
        """Deliver what a held channel misses, from a read of its stream, and release it.

        Args:
            top: the position of the stream's newest publication at the time of the read.
            missing: the publications after the channel's position, ascending.
            held_before: the number of publications that were buffered when the read began; the
                read includes them, or they are no longer valid (a failover lost them).
            is_replaced: the stream has another publication at the channel's position.

        Returns:
            True if the gap is filled; if the channel `is_held` afterwards, it must be filled
            again. False if the stream no longer has all missing publications: the position of the
            channel is `top` now and it is still held. Report insufficient state to the
            subscribers first, then `release` it, or they would receive newer publications before.
        """
        del channel.held[:held_before]
        is_whole = (
            not (channel.has_overflown or is_replaced)
            and top.epoch == channel.epoch
            and top.offset >= channel.offset
            and _is_contiguous(missing, channel.offset, top.offset)
        )
        if is_whole:
            channel.is_held = False
            self._advance(channel, missing)
        else:
            channel.offset, channel.epoch = top
            channel.last = b""
            if channel.tail is not None:
                channel.tail.forget()
            self._join_all_ahead(channel)
        channel.has_overflown = False
        if is_whole:
            self.release(channel)
        return is_whole

    def fill_part(self, channel: Channel, top: Position, missing: list[Publication]) -> bool:
        """Deliver the first publications that a held channel misses; it stays held, and is read on.

        Returns:
            True if they follow its position. If not, `fill` finds out the same.
        """
        is_next = (
            not channel.has_overflown
            and top.epoch == channel.epoch
            and bool(missing)
            and _is_contiguous(missing, channel.offset, missing[-1].offset)
        )
        if is_next:
            self._advance(channel, missing)
        return is_next

    def _join_all_ahead(self, channel: Channel) -> None:
        for subscriber, (write, _) in channel.ahead.items():
            channel.writes[subscriber] = write
        channel.ahead.clear()
        if channel.groups is not None:
            channel.groups.join_all_ahead()

    def release(self, channel: Channel) -> None:
        """Deliver the buffered publications; if the channel `is_held` afterwards, fill it again."""
        channel.is_held = False
        held, channel.held = channel.held, []
        if held:
            self._advance(channel, held)


def _is_contiguous(publications: list[Publication], after: int, top: int) -> bool:
    """Whether the publications are exactly those with offsets after+1 … top."""
    if not publications:
        return after == top
    return (
        publications[0].offset == after + 1
        and publications[-1].offset == top
        and len(publications) == top - after
    )
