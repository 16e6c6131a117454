"""The Protobuf codec of the client protocol (docs/adr/0012)."""

from __future__ import annotations

from typing import Final

from cluster.codec import Codec
from cluster.protobuf.decoding import decode
from cluster.protobuf.encoding import PING_FRAME, frame, frames

PROTOBUF: Final = Codec("protobuf", decode, frame, frames, PING_FRAME)
