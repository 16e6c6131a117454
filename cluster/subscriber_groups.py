"""Subscribers of a channel that do not get every publication as it is; the hub keeps them apart.

Subscribers whose publications are prepared in the same way are one group, so that the work is done once
for all of them. A channel without such subscribers has no groups.

Rules of this file: those of the hub.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple, Protocol

import orjson

from cluster.codec import JSON, Codec
from cluster.protocol import Publication, publications_json, push_document
from cluster.tags_filter import Tags, TagsFilter, tags_of

#: Writes one or more whole frames to a subscriber; must not change the hub. Raises RuntimeError if
#: the socket is broken.
Write = Callable[[bytes], None]

#: Writes to many subscribers: their `Write`s, the data, and the number of frames in it.
WriteAll = Callable[[Iterable[Write], bytes, int], None]

#: A publication with its frame, as it is.
Framed = tuple[Publication, bytes]


class Delivery(Protocol):
    """How a subscriber's publications are prepared; subscribers with the same key are one group."""

    @property
    def key(self) -> bytes: ...

    @property
    def selects(self) -> bool:
        """Whether there are publications that the subscriber does not get."""

    def group(self, prefix: bytes) -> SubscriberGroup:
        """Make an empty group for a channel, whose pushes begin with `prefix`."""

    def selected(self, publications: list[Publication]) -> list[Publication]:
        """Those of the publications that the subscriber gets."""

    def encoded(self, publications: list[Publication]) -> list[orjson.Fragment]:
        """Publications for a reply."""


class EncodedDelivery(NamedTuple):
    """The delivery of a subscription whose client does not speak JSON: every publication."""

    codec: Codec

    @property
    def key(self) -> bytes:
        return self.codec.name.encode()

    @property
    def selects(self) -> bool:
        return False

    def group(self, prefix: bytes) -> SubscriberGroup:
        return EncodedGroup(self.key, prefix, self.codec)

    def selected(self, publications: list[Publication]) -> list[Publication]:
        return publications

    def encoded(self, publications: list[Publication]) -> list[orjson.Fragment]:
        return publications_json(publications)


class FilteredDelivery(NamedTuple):
    """The delivery of a subscription with a tags filter."""

    tags_filter: TagsFilter
    codec: Codec = JSON

    @property
    def key(self) -> bytes:
        return b"%b %b" % (self.codec.name.encode(), self.tags_filter.key)

    @property
    def selects(self) -> bool:
        return True

    def group(self, prefix: bytes) -> SubscriberGroup:
        return FilteredGroup(self.key, prefix, self.codec, self.tags_filter)

    def selected(self, publications: list[Publication]) -> list[Publication]:
        passes = self.tags_filter.passes
        return [one for one in publications if passes(tags_of(one.body))]

    def encoded(self, publications: list[Publication]) -> list[orjson.Fragment]:
        return publications_json(publications)


class SubscriberGroup(ABC):
    """Subscribers with the same delivery.

    Args:
        key: of the delivery.
        prefix: what the channel's pushes begin with.

    Attributes:
        codec: what the subscribers speak.
        writes: those that have caught up.
        ahead: as in a channel, those that skip what they have read before.
        reads_tags: whether `fan_out` needs the publications' tags.
        reads_frames: whether it needs the frames in the subscribers' codec.
    """

    __slots__ = ("ahead", "codec", "key", "prefix", "writes")

    reads_tags: ClassVar[bool] = True
    reads_frames: ClassVar[bool] = True

    def __init__(self, key: bytes, prefix: bytes, codec: Codec) -> None:
        self.key = key
        self.prefix = prefix
        self.codec = codec
        self.writes: dict[object, Write] = {}
        self.ahead: dict[object, tuple[Write, int]] = {}

    def add(self, subscriber: object, write: Write) -> None:
        """Add a subscriber that has caught up."""
        self.writes[subscriber] = write

    @abstractmethod
    def missed(self, framed: Sequence[Framed]) -> list[bytes]:
        """The frames of what a new subscriber has missed."""

    @abstractmethod
    def fan_out(
        self, framed: Sequence[Framed], tags: Sequence[Tags], offset: int, write_all: WriteAll
    ) -> None:
        """Write publications to the subscribers.

        Args:
            tags: of each publication; empty unless `reads_tags`.
            offset: the channel's, to which all publications have passed.
        """

    def framed(self, framed: Sequence[Framed]) -> Sequence[Framed]:
        """The publications with their frames in the subscribers' codec."""
        if self.codec.is_json:
            return framed
        frame, prefix = self.codec.frame, self.prefix
        return [(one, frame(push_document(prefix, one))) for one, _ in framed]

    def join_all_ahead(self) -> None:
        """Let those that skip publications get all of them from now on."""
        for subscriber, (write, _) in self.ahead.items():
            self.add(subscriber, write)
        self.ahead.clear()

    def remove(self, subscriber: object) -> bool:
        """Remove a subscriber; returns whether the group is empty now."""
        self.writes.pop(subscriber, None)
        self.ahead.pop(subscriber, None)
        return not (self.writes or self.ahead)


class EncodedGroup(SubscriberGroup):
    """Subscribers that get every publication, in their codec."""

    __slots__ = ()

    reads_tags = False

    def missed(self, framed: Sequence[Framed]) -> list[bytes]:
        return [frame for _, frame in self.framed(framed)]

    def fan_out(
        self, framed: Sequence[Framed], tags: Sequence[Tags], offset: int, write_all: WriteAll
    ) -> None:
        self._write(framed, offset, write_all)

    def _write(self, own: Sequence[Framed], offset: int, write_all: WriteAll) -> None:
        if own and self.writes:
            write_all(self.writes.values(), b"".join([frame for _, frame in own]), len(own))
        for subscriber, (write, skip_until) in list(self.ahead.items()):
            new = [frame for publication, frame in own if publication.offset > skip_until]
            if new:
                write_all((write,), b"".join(new), len(new))
            if offset >= skip_until:
                del self.ahead[subscriber]
                self.add(subscriber, write)


class FilteredGroup(EncodedGroup):
    """Subscribers with the same filter."""

    __slots__ = ("_passes",)

    reads_tags = True

    def __init__(self, key: bytes, prefix: bytes, codec: Codec, tags_filter: TagsFilter) -> None:
        super().__init__(key, prefix, codec)
        self._passes = tags_filter.passes

    def missed(self, framed: Sequence[Framed]) -> list[bytes]:
        passes = self._passes
        return super().missed([one for one in framed if passes(tags_of(one[0].body))])

    def fan_out(
        self, framed: Sequence[Framed], tags: Sequence[Tags], offset: int, write_all: WriteAll
    ) -> None:
        passes = self._passes
        own = [one for one, its_tags in zip(framed, tags, strict=True) if passes(its_tags)]
        self._write(own, offset, write_all)


class SubscriberGroups:
    """The groups of one channel."""

    __slots__ = ("_groups", "_of")

    def __init__(self) -> None:
        self._of: dict[object, SubscriberGroup] = {}
        self._groups: dict[bytes, SubscriberGroup] = {}

    def enter(self, subscriber: object, delivery: Delivery, prefix: bytes) -> SubscriberGroup:
        """The group for a subscriber, which the caller adds to it."""
        group = self._groups.get(delivery.key)
        if group is None:
            group = self._groups[delivery.key] = delivery.group(prefix)
        self._of[subscriber] = group
        return group

    def remove(self, subscriber: object) -> bool:
        """Remove a subscriber; returns whether it was here."""
        group = self._of.pop(subscriber, None)
        if group is None:
            return False
        if group.remove(subscriber):
            del self._groups[group.key]
        return True

    @property
    def subscribers(self) -> list[object]:
        return list(self._of)

    @property
    def count(self) -> int:
        return len(self._of)

    @property
    def is_empty(self) -> bool:
        return not self._of

    def fan_out(self, framed: Sequence[Framed], offset: int, write_all: WriteAll) -> None:
        """Write a channel's publications to the subscribers of all groups; see `SubscriberGroup`."""
        tags: list[Tags] = []
        in_codec = {JSON.name: framed}
        for group in list(self._groups.values()):
            if group.reads_tags and not tags:
                tags = [tags_of(publication.body) for publication, _ in framed]
            name = group.codec.name
            if group.reads_frames and name not in in_codec:
                in_codec[name] = group.framed(framed)
            group.fan_out(in_codec.get(name, framed), tags, offset, write_all)

    def join_all_ahead(self) -> None:
        for group in self._groups.values():
            group.join_all_ahead()
