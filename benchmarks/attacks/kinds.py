"""The attacks: what an attacker sends first, and what it repeats as fast as it can.

Each is bytes only, made once, so that an attacker costs as little as possible. Frames carry the
masking key 0 (see `benchmarks.load.wire`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.load.wire import FIN_BINARY, client_frame, text_frame, upgrade_request
from cluster.protobuf.decoding import MOST_COMMANDS
from cluster.protobuf.schema import CLASSES

PATH = "/connection/websocket"
HANDSHAKE = upgrade_request("localhost", PATH)
CONNECT = text_frame(b'{"id":1,"connect":{}}')

#: A channel with a full history, for the attack that reads it.
KEPT_CHANNEL = "kept:attacked"

_LARGE_FRAME = 60_000


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of attack.

    Attributes:
        opening: sent once per connection.
        flood: sent again and again after it.
        piece: bytes per system call; 0 sends as much as the socket takes.
    """

    opening: bytes
    flood: bytes
    piece: int = 0


def _commands(command: bytes) -> bytes:
    """A frame full of one command; ids repeat, which no rule forbids."""
    return text_frame(b"\n".join([command] * (_LARGE_FRAME // (len(command) + 1))))


def _frame(opcode: int, payload: bytes = b"", *, is_final: bool = True) -> bytes:
    return bytes([is_final << 7 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def _fragments() -> bytes:
    """One message of an rpc command in frames of one byte each."""
    message = b'{"id":2,"rpc":{"method":"nothing","data":"%b"}}' % (b"x" * 200)
    first, *middle = (message[at : at + 1] for at in range(len(message)))
    frames = [_frame(1, first, is_final=False)]
    frames += [_frame(0, byte, is_final=False) for byte in middle[:-1]]
    return b"".join([*frames, _frame(0, middle[-1])])


def _protobuf(*commands: Any) -> bytes:
    """A frame of commands, each behind its length, of less than 128 bytes."""
    texts = [one.SerializeToString() for one in commands]
    return client_frame(FIN_BINARY, b"".join(bytes([len(text)]) + text for text in texts))


_COMMAND: Any = CLASSES["Command"]

_CONNECTED = HANDSHAKE + CONNECT
_CONNECTED_PROTOBUF = upgrade_request("localhost", f"{PATH}?format=protobuf") + _protobuf(
    _COMMAND(id=1, connect={})
)
_RPC = _COMMAND(id=2, rpc={})
_PUBLISH = b'{"id":2,"publish":{"channel":"attacked","data":1}}'
_TURNS = (
    b'{"id":2,"subscribe":{"channel":"attacked"}}\n{"id":3,"unsubscribe":{"channel":"attacked"}}'
)
_HISTORY = b'{"id":2,"history":{"channel":"%b","limit":300}}' % KEPT_CHANNEL.encode()

_REQUEST = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
_ENDLESS_BODY = (
    b"POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n"
)
_CHUNKED_BODY = (
    b"POST /api/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
)
#: Of a head with more fields than aiohttp takes the number is what is refused.
_LONG_FIELD = b"X-Filler: " + b"x" * 1_000 + b"\r\n"

ATTACKS: Mapping[str, Attack] = {
    "rpc": Attack(_CONNECTED, _commands(b'{"id":2,"rpc":{}}')),
    # Alone it closes the connection; with another command it is answered with an error.
    "ping": Attack(_CONNECTED, _commands(b'{"id":2,"ping":{},"rpc":{}}')),
    "publish": Attack(_CONNECTED, _commands(_PUBLISH)),
    "subscribe and unsubscribe": Attack(_CONNECTED, _commands(_TURNS)),
    "history": Attack(_CONNECTED, _commands(_HISTORY)),
    "Protobuf, frames of 4,096 empty commands": Attack(
        _CONNECTED_PROTOBUF, client_frame(FIN_BINARY, b"\0" * MOST_COMMANDS)
    ),
    "Protobuf, frames of 4,096 rpcs": Attack(
        _CONNECTED_PROTOBUF, _protobuf(*[_RPC] * MOST_COMMANDS)
    ),
    "Protobuf, frames of one rpc": Attack(_CONNECTED_PROTOBUF, _protobuf(_RPC) * 4_000),
    "ping frames": Attack(_CONNECTED, _frame(9) * 10_000),
    "pong frames, not connected": Attack(HANDSHAKE, _frame(10) * 10_000),
    "empty continuations, not connected": Attack(
        HANDSHAKE + _frame(1, is_final=False), _frame(0, is_final=False) * 10_000
    ),
    "fragments of one byte": Attack(_CONNECTED, _fragments() * 40),
    "half a handshake": Attack(HANDSHAKE[:-2], b"X-Filler: " + b"x" * 100 + b"\r\n"),
    "handshake after handshake": Attack(HANDSHAKE, b"\x88\x80\0\0\0\0"),
    "no HTTP": Attack(b"GARBAGE\r\n\r\n", b"x" * _LARGE_FRAME),
    "requests without waiting for answers": Attack(b"", _REQUEST * 1_000),
    "a body without end": Attack(_ENDLESS_BODY, b"x" * _LARGE_FRAME),
    "a body of chunks of one byte": Attack(_CHUNKED_BODY, b"1\r\nx\r\n" * 10_000),
    "the head of a second request without end": Attack(_REQUEST + _REQUEST[:-2], _LONG_FIELD),
    "one byte at a time": Attack(_CONNECTED, text_frame(b'{"id":2,"rpc":{}}'), piece=1),
}
