"""Local fan-out: which connections of this worker listen to which channel, and from where.

Rules of this file: no event loop, no socket, no Redis, no clock.

The position is kept per channel, not per subscriber, because every caught-up local subscriber
has the same one; so gap detection costs one comparison per publication, and the frames of a
batch are joined once and written to all. A joiner whose read of the stream is ahead of the
channel waits beside it (`skip_until`) and joins the common path when the channel has come that
far; one whose read is behind gets what passed meanwhile from the channel's `tail`. The channel's
position never moves for a joiner: the others would lose what lies between.

A channel that misses publications is *held*: what arrives is kept back until the missing range
has been read from the stream (`fill`), so nothing is delivered out of order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from cluster.metrics.counters import Counters
from cluster.protocol import Position, Publication, push_frame, push_prefix

#: Writes one or more whole frames to a subscriber; must not change the hub. A RuntimeError says
#: that the socket has broken.
Write = Callable[[bytes], None]

#: Most publications kept back for one channel while a gap is filled; beyond it the gap is lost.
HELD_LIMIT: Final = 10_000


class Channel:
    """One channel with at least one local subscriber or joiner."""

    __slots__ = (
        "active_at", "ahead", "epoch", "has_overflown", "held", "is_held",
        "is_positioned", "joining", "name", "offset", "prefix", "tail", "writes",
    )  # fmt: skip

    def __init__(self, name: str, *, is_positioned: bool) -> None:
        self.name = name
        self.prefix = push_prefix(name)
        self.is_positioned = is_positioned
        self.offset = 0
        self.epoch = ""
        self.writes: dict[object, Write] = {}
        self.ahead: dict[object, tuple[Write, int]] = {}
        self.joining = 0
        self.tail: list[tuple[int, bytes]] = []
        # A positioned channel is held until its first read has given it a position.
        self.is_held = is_positioned
        self.held: list[Publication] = []
        self.has_overflown = False
        self.active_at = 0.0

    @property
    def has_position(self) -> bool:
        """Whether the channel has a position yet."""
        return bool(self.epoch)

    @property
    def position(self) -> Position:
        return Position(self.offset, self.epoch)

    @property
    def is_empty(self) -> bool:
        return not (self.writes or self.ahead or self.joining)


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
            The channel, and whether it is new: then the broker must be asked for it.
        """
        channel = self.channels.get(name)
        is_new = channel is None
        if channel is None:
            channel = self.channels[name] = Channel(name, is_positioned=is_positioned)
        channel.joining += 1
        return channel, is_new

    def join_abort(self, channel: Channel) -> bool:
        """A joiner gave up. Returns whether the channel is empty now and has been forgotten."""
        self._joined(channel)
        return self._forget_if_empty(channel)

    def join(self, channel: Channel, subscriber: object, write: Write, top: Position) -> bool:
        """Make a joiner a subscriber; what it has missed since its read is written at once.

        If the channel `is_held` afterwards, it misses publications and wants to be filled.

        Args:
            top: what its read of the stream gave; ignored in a channel without positions.

        Returns:
            True if it misses nothing. False if what passed since its read is no longer known: it
            is a subscriber, and must be told that its state is insufficient.
        """
        is_whole = True
        self.subscriptions += 1
        if not channel.is_positioned:
            channel.writes[subscriber] = write
        elif not channel.has_position:
            self._place(channel, top)
            channel.writes[subscriber] = write
            self.release(channel)
            if channel.has_overflown:
                channel.has_overflown = False
                channel.is_held = True
        elif top.epoch == channel.epoch and top.offset > channel.offset:
            channel.ahead[subscriber] = (write, top.offset)
        else:
            is_same = top.epoch == channel.epoch
            missed = [frame for offset, frame in channel.tail if is_same and offset > top.offset]
            is_whole = is_same and len(missed) == channel.offset - top.offset
            if missed and is_whole:
                self._write((write,), b"".join(missed), len(missed))
            channel.writes[subscriber] = write
        self._joined(channel)
        return is_whole

    def _place(self, channel: Channel, top: Position) -> None:
        """Give the channel its first position; joiners with an earlier read need what is before."""
        channel.offset, channel.epoch = top
        if channel.joining > 1:
            channel.tail.extend(
                (held.offset, push_frame(channel.prefix, held))
                for held in channel.held
                if held.epoch == top.epoch and 0 < held.offset <= top.offset
            )

    def leave(self, name: str, subscriber: object) -> bool:
        """Remove a subscriber. Returns whether the channel is empty now and has been forgotten."""
        channel = self.channels.get(name)
        if channel is None:
            return False
        if channel.writes.pop(subscriber, None) or channel.ahead.pop(subscriber, None):
            self.subscriptions -= 1
        return self._forget_if_empty(channel)

    def _joined(self, channel: Channel) -> None:
        channel.joining -= 1
        if not channel.joining:
            channel.tail.clear()

    def _forget_if_empty(self, channel: Channel) -> bool:
        if not channel.is_empty:
            return False
        self.channels.pop(channel.name, None)
        return True

    # --- delivery --------------------------------------------------------------------------

    def deliver(self, name: str, publications: list[Publication]) -> Channel | None:
        """Fan a batch out.

        Returns:
            The channel if it misses publications now and wants to be filled, else None.
        """
        channel = self.channels.get(name)
        if channel is None:
            return None
        if channel.is_held:
            self._hold(channel, publications)
            return None
        if not channel.is_positioned:
            self._fan_out(channel, [(0, push_frame(channel.prefix, p)) for p in publications])
            return None
        return self._advance(channel, publications)

    def _advance(self, channel: Channel, publications: list[Publication]) -> Channel | None:
        frames: list[tuple[int, bytes]] = []
        offset, epoch, prefix = channel.offset, channel.epoch, channel.prefix
        gap_at = None
        for index, publication in enumerate(publications):
            if not publication.offset:
                # From a worker whose configuration gives this channel no history (a roll).
                frames.append((0, push_frame(prefix, publication)))
                continue
            if publication.epoch == epoch:
                if publication.offset == offset + 1:
                    offset += 1
                    frames.append((offset, push_frame(prefix, publication)))
                    continue
                if publication.offset <= offset:
                    continue
            gap_at = index
            break
        channel.offset = offset
        if frames:
            self._fan_out(channel, frames)
        if gap_at is None:
            return None
        channel.is_held = True
        self._hold(channel, publications[gap_at:])
        return channel

    def _hold(self, channel: Channel, publications: list[Publication]) -> None:
        room = HELD_LIMIT - len(channel.held)
        if len(publications) > room:
            channel.has_overflown = True
            publications = publications[:room]
        channel.held.extend(publications)

    def _fan_out(self, channel: Channel, frames: list[tuple[int, bytes]]) -> None:
        data = frames[0][1] if len(frames) == 1 else b"".join([frame for _, frame in frames])
        self._write(channel.writes.values(), data, len(frames))
        if channel.joining and channel.is_positioned:
            channel.tail.extend(frames)
        if channel.ahead:
            self._catch_up(channel, frames)

    def _catch_up(self, channel: Channel, frames: list[tuple[int, bytes]]) -> None:
        for subscriber, (write, skip_until) in list(channel.ahead.items()):
            news = [frame for offset, frame in frames if offset > skip_until]
            if news:
                self._write((write,), b"".join(news), len(news))
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
                # uvloop refuses a socket that has broken but has not been reported lost yet;
                # its client leaves in a moment, and the iterator goes on with the next one.
                self._counters.dropped["closed"] += frames
                continue
            break
        self._counters.messages_out += count * frames
        self._counters.bytes_out += count * len(data)

    # --- filling gaps ----------------------------------------------------------------------

    def hold(self, channel: Channel) -> bool:
        """Hold a channel that may miss publications. Returns False if it is held already."""
        if channel.is_held:
            return False
        channel.is_held = True
        return True

    def fill(
        self, channel: Channel, top: Position, missing: list[Publication], *, held_before: int
    ) -> bool:
        """Give a held channel what its stream has after the channel's position, and release it.

        Args:
            top: the stream's top at the time of the read.
            missing: the publications after the channel's position, ascending.
            held_before: how many publications were held when the read began; they are in the
                stream as read, or no longer true (a failover went back).

        Returns:
            True if nothing is missing any more; if the channel `is_held` all the same, it wants to
            be filled again. False if the stream no longer has all of it: the channel stands at
            the top and is still held; tell the subscribers that their state is insufficient, then
            `release` it, or they would get what is newer first.
        """
        del channel.held[:held_before]
        is_whole = (
            not channel.has_overflown
            and top.epoch == channel.epoch
            and top.offset >= channel.offset
            and _is_contiguous(missing, channel.offset, top.offset)
        )
        if is_whole:
            channel.is_held = False
            self._advance(channel, missing)
        else:
            channel.offset, channel.epoch = top
            self._place_ahead(channel)
        channel.has_overflown = False
        if is_whole:
            self.release(channel)
        return is_whole

    def _place_ahead(self, channel: Channel) -> None:
        for subscriber, (write, _) in channel.ahead.items():
            channel.writes[subscriber] = write
        channel.ahead.clear()

    def release(self, channel: Channel) -> None:
        """Deliver what was held; if the channel `is_held` afterwards, it wants to be filled."""
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
