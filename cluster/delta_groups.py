"""Subscribers that get deltas: each publication is compared with the one before, once for all of them.

Protocol: centrifuge-protocol §10.4. Every `data` of such a subscription is the data, or a Fossil delta if
`delta` is true; in JSON it is a string with the text of the data. The base is the publication that the subscriber got before;
one that has got none yet gets the whole text.

Rules of this file: those of the hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import orjson

from cluster import data_url, fossil_delta, json_text
from cluster.codec import JSON, Codec
from cluster.protocol import Publication, is_delta_wanted, publications_json, push_document
from cluster.subscriber_groups import Framed, SubscriberGroup, Write, WriteAll
from cluster.tags_filter import Tags

#: Bytes that are compared for one batch or one recovery; what follows is sent as it is. It bounds the
#: time for which the event loop is held.
COMPARED_BYTES: Final = 262_144


class DeltaDelivery(NamedTuple):
    """The delivery of a subscription with `delta: "fossil"`.

    Attributes:
        is_always: deltas of all publications, not only of those whose publisher asked for it.
    """

    is_always: bool
    codec: Codec = JSON

    @property
    def key(self) -> bytes:
        return b"%b fossil" % self.codec.name.encode()

    @property
    def selects(self) -> bool:
        return False

    def group(self, prefix: bytes) -> SubscriberGroup:
        return DeltaGroup(self.key, prefix, self.codec, is_always=self.is_always)

    def selected(self, publications: list[Publication]) -> list[Publication]:
        return publications

    def encoded(self, publications: list[Publication]) -> list[orjson.Fragment]:
        """Publications for a reply: the first one whole, the others as deltas of the ones before."""
        pairs = _encoded(b"", publications, self.codec, is_always=True)
        return publications_json(changed for _, changed, _ in pairs)


class DeltaGroup(SubscriberGroup):
    """The subscribers of one channel that get deltas.

    `writes` are those that have got the publication before; `_new` have got none yet.
    """

    __slots__ = ("_base", "_is_always", "_new")

    reads_tags = False
    reads_frames = False

    def __init__(self, key: bytes, prefix: bytes, codec: Codec, *, is_always: bool) -> None:
        super().__init__(key, prefix, codec)
        self._is_always = is_always
        self._base = b""
        self._new: dict[object, Write] = {}

    def add(self, subscriber: object, write: Write) -> None:
        self._new[subscriber] = write

    def missed(self, framed: Sequence[Framed]) -> list[bytes]:
        publications = [publication for publication, _ in framed]
        whole = _encoded(b"", publications, self.codec, is_always=False)
        return [self._frame(one) for one, _, _ in whole]

    def _frame(self, publication: Publication) -> bytes:
        return self.codec.frame(push_document(self.prefix, publication))

    def fan_out(
        self, framed: Sequence[Framed], tags: Sequence[Tags], offset: int, write_all: WriteAll
    ) -> None:
        publications = [publication for publication, _ in framed]
        whole, changed = [], []
        encoded = _encoded(self._base, publications, self.codec, is_always=self._is_always)
        for one, other, data in encoded:
            whole.append(self._frame(one))
            changed.append(whole[-1] if other is one else self._frame(other))
            self._base = data
        if self.writes:
            write_all(self.writes.values(), b"".join(changed), len(changed))
        if self._new:
            write_all(self._new.values(), b"".join([whole[0], *changed[1:]]), len(changed))
            self.writes.update(self._new)
            self._new.clear()
        for subscriber, (write, skip_until) in list(self.ahead.items()):
            first = next((i for i, p in enumerate(publications) if p.offset > skip_until), None)
            if first is not None:
                new = [whole[first], *changed[first + 1 :]]
                write_all((write,), b"".join(new), len(new))
            if offset >= skip_until:
                del self.ahead[subscriber]
                (self._new if first is None else self.writes)[subscriber] = write

    def remove(self, subscriber: object) -> bool:
        self._new.pop(subscriber, None)
        return super().remove(subscriber) and not self._new


class _Parts(msgspec.Struct, gc=False):
    data: msgspec.Raw
    info: msgspec.Raw = msgspec.Raw()
    tags: msgspec.Raw = msgspec.Raw()


_PARTS: Final[json_text.JsonDecoder[_Parts]] = json_text.JsonDecoder(_Parts)


def _encoded(
    base: bytes, publications: Sequence[Publication], codec: Codec, *, is_always: bool
) -> Iterator[tuple[Publication, Publication, bytes]]:
    """Each publication with its whole text; as a delta, if that is smaller; and its data."""
    left = COMPARED_BYTES
    for publication in publications:
        parts = _PARTS.decode(publication.body)
        data = bytes(parts.data)
        if not codec.is_json:
            data = data_url.bytes_of(data)
        whole = changed = publication._replace(body=_body(parts, data, codec, is_delta=False))
        if base and left > 0 and (is_always or is_delta_wanted(publication.body)):
            left -= len(base) + len(data)
            made = fossil_delta.delta(base, data)
            if made is not None:
                changed = publication._replace(body=_body(parts, made, codec, is_delta=True))
        yield whole, changed, data
        base = data


def _body(parts: _Parts, data: bytes, codec: Codec, *, is_delta: bool) -> bytes:
    text = orjson.dumps(data.decode()) if codec.is_json else data_url.text_of(data)
    members = [b'"data":' + text]
    members += [b'"%b":%b' % (name, bytes(raw)) for name, raw in _others(parts) if bytes(raw)]
    if is_delta:
        members.append(b'"delta":true')
    return b"{%b}" % b",".join(members)


def _others(parts: _Parts) -> tuple[tuple[bytes, msgspec.Raw], ...]:
    return (b"info", parts.info), (b"tags", parts.tags)
