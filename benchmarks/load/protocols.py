"""The application protocol of each server: the steps that open a connection, a publish, a call.

A `WireProtocol` is data and three short functions, without I/O. `ping` is what the server may send in
between, and `pong` what the client answers.
"""

import base64
import hmac
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.load.wire import FIN_BINARY, FIN_TEXT, client_frame
from cluster.protobuf.schema import CLASSES


@dataclass(frozen=True, slots=True)
class Step:
    """Send `send` (nothing if it is empty), then wait for a message that contains `until`."""

    send: bytes
    until: bytes


@dataclass(frozen=True, slots=True)
class WireProtocol:
    path: str
    ping: bytes
    pong: bytes
    opening: Callable[[str], tuple[Step, ...]]
    """Steps to a connection that listens to the given channel; bare when the name is empty."""
    publish: Callable[[int, str, bytes], bytes]
    """A publish command from its number (>= 3), channel and JSON data."""
    call: Callable[[int, bytes], bytes]
    """An echo call from its number (>= 3) and JSON data."""
    opcode: int = FIN_TEXT

    def frame(self, payload: bytes) -> bytes:
        """What is sent, as a client's frame."""
        return client_frame(self.opcode, payload)


_Command: Any = CLASSES["Command"]

#: What signs tokens; `users.toml` has it too.
USERS_KEY = b"benchmarks-on-loopback-have-no-secret"


def _centrifuge_opening(channel: str) -> tuple[Step, ...]:
    connect = b'{"id":1,"connect":{"name":"load"}}'
    if not channel:
        return (Step(connect, b'"connect"'),)
    # One frame for both commands, as the SDK for JavaScript does it.
    subscribe = b'{"id":2,"subscribe":{"channel":"%b"}}' % channel.encode()
    return (Step(connect + b"\n" + subscribe, b'"subscribe"'),)


_HEAD = b'{"alg":"HS256","typ":"JWT"}'
_user_numbers = itertools.count()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _token(user: str) -> bytes:
    """A connection token (RFC 7519) for a server that was started with `users.toml`."""
    claims = json.dumps({"sub": user, "exp": int(time.time()) + 3600, "info": {"name": user}})
    signed = _base64(_HEAD) + b"." + _base64(claims.encode())
    return signed + b"." + _base64(hmac.digest(USERS_KEY, signed, "sha256"))


def _user_opening(channel: str) -> tuple[Step, ...]:
    """Each connection is of another user, in a room with presence and in a channel without."""
    token = _token(f"user-{next(_user_numbers)}")
    commands = (
        b'{"id":1,"connect":{"token":"%b"}}' % token,
        b'{"id":2,"subscribe":{"channel":"room:%b"}}' % channel.encode(),
        b'{"id":3,"subscribe":{"channel":"%b"}}' % channel.encode(),
    )
    return (Step(b"\n".join(commands), b'"id":3,"subscribe"'),)


def _centrifuge_publish(number: int, channel: str, data: bytes) -> bytes:
    return b'{"id":%d,"publish":{"channel":"%b","data":%b}}' % (number, channel.encode(), data)


def _centrifuge_call(number: int, data: bytes) -> bytes:
    return b'{"id":%d,"rpc":{"method":"echo","data":%b}}' % (number, data)


def _sized(command: Any) -> bytes:
    encoded: bytes = command.SerializeToString()
    size = len(encoded)
    head = b"%c" % size if size < 128 else b"%c%c" % (size & 0x7F | 0x80, size >> 7)
    return head + encoded


def _protobuf_opening(channel: str) -> tuple[Step, ...]:
    connect = _sized(_Command(id=1, connect={"name": "load"}))
    if not channel:
        return (Step(connect, b"\x08\x01\x2a"),)
    subscribe = _sized(_Command(id=2, subscribe={"channel": channel}))
    return (Step(connect + subscribe, b"\x08\x02\x32"),)


def _id(number: int) -> int:
    """An id of one byte that is not the mark (`^`, 94), which is counted in what arrives."""
    return 3 + number % 64


def _protobuf_publish(number: int, channel: str, data: bytes) -> bytes:
    return _sized(_Command(id=_id(number), publish={"channel": channel, "data": data}))


def _protobuf_call(number: int, data: bytes) -> bytes:
    return _sized(_Command(id=_id(number), rpc={"method": "echo", "data": data}))


def _socketio_opening(channel: str) -> tuple[Step, ...]:
    connect = (Step(b"", b'0{"sid"'), Step(b"40", b'40{"sid"'))
    if not channel:
        return connect
    return (*connect, Step(b'420["sub","%b"]' % channel.encode(), b"430["))


def _socketio_publish(_number: int, channel: str, data: bytes) -> bytes:
    return b'42["pub","%b",%b]' % (channel.encode(), data)


def _socketio_call(number: int, data: bytes) -> bytes:
    return b'42%d["echo",%b]' % (number, data)


def _channels_opening(channel: str) -> tuple[Step, ...]:
    connect = Step(b"", b'"connected"')
    if not channel:
        return (connect,)
    subscribe = b'{"type":"subscribe","channel":"%b"}' % channel.encode()
    return (connect, Step(subscribe, b'"subscribed"'))


def _channels_publish(_number: int, channel: str, data: bytes) -> bytes:
    return b'{"type":"publish","channel":"%b","data":%b}' % (channel.encode(), data)


def _channels_call(number: int, data: bytes) -> bytes:
    return b'{"type":"echo","id":%d,"data":%b}' % (number, data)


PROTOCOLS = {
    "centrifuge": WireProtocol(
        "/connection/websocket", b"{}", b"{}",
        _centrifuge_opening, _centrifuge_publish, _centrifuge_call,
    ),
    "centrifuge-users": WireProtocol(
        "/connection/websocket", b"{}", b"{}",
        _user_opening, _centrifuge_publish, _centrifuge_call,
    ),
    "centrifuge-protobuf": WireProtocol(
        "/connection/websocket?format=protobuf", b"\0", b"\0",
        _protobuf_opening, _protobuf_publish, _protobuf_call, FIN_BINARY,
    ),
    "socketio": WireProtocol(
        "/socket.io/?EIO=4&transport=websocket", b"2", b"3",
        _socketio_opening, _socketio_publish, _socketio_call,
    ),
    "channels": WireProtocol("/ws", b"", b"", _channels_opening, _channels_publish, _channels_call),
    # The floor has no protocol: it accepts connections and sends the same bytes to all of them.
    "floor": WireProtocol("", b"", b"", lambda _: (), lambda *_: b"", lambda *_: b""),
}  # fmt: skip
