"""What differs between the codecs of the client protocol, and the JSON codec.

Messages are made as JSON documents (`cluster.protocol`); a codec writes them in the form that its clients
read. So there is one place that knows what a message has, and a publication is encoded once per codec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from cluster.protocol import PING_FRAME, Command, decode, text_frame


class Codec(NamedTuple):
    """One codec.

    Attributes:
        name: "json" or "protobuf".
        decode: decodes one WebSocket message of a client, a long one part by part; see
            `cluster.protocol.decode`.
        frame: encodes one document, a reply or a push, as a WebSocket frame.
        frames: encodes several documents.
        ping_frame: the frame of a ping.
        is_json: whether its clients get documents as they are.
    """

    name: str
    decode: Callable[[bytes], Iterable[Command]]
    frame: Callable[[bytes], bytes]
    frames: Callable[[Sequence[bytes]], bytes]
    ping_frame: bytes

    @property
    def is_json(self) -> bool:
        return self is JSON


def _lines(documents: Sequence[bytes]) -> bytes:
    return text_frame(b"\n".join(documents))


JSON: Final = Codec("json", decode, text_frame, _lines, PING_FRAME)
