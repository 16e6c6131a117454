"""The states of a connection, and the actions that it returns to its owner, to be done in order.

`Connect`, `Refresh`, `Subscribe`, `Publish`, `History` and `Rpc` are requests: the owner answers
each of them once, by calling the connection's method in the past tense.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from cluster.errors import Disconnect
from cluster.protocol import ConnectRequest, HistoryRequest, SubscribeRequest


class State(Enum):
    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    CLOSED = "closed"


class Send(NamedTuple):
    """Send one JSON document to the client."""

    payload: bytes


class Close(NamedTuple):
    """Close the connection; always the last action."""

    why: Disconnect


class Connect(NamedTuple):
    id: int
    request: ConnectRequest


class Refresh(NamedTuple):
    id: int
    token: str


class Subscribe(NamedTuple):
    id: int
    request: SubscribeRequest


class Leave(NamedTuple):
    """Remove the connection from a channel."""

    channel: str


class Publish(NamedTuple):
    id: int
    channel: str
    data: bytes


class History(NamedTuple):
    id: int
    request: HistoryRequest


class Rpc(NamedTuple):
    id: int
    method: str
    data: bytes


class Message(NamedTuple):
    """Take a message of the client; nothing answers it."""

    data: bytes


Action = Send | Close | Connect | Refresh | Subscribe | Leave | Publish | History | Rpc | Message


class Subscription(NamedTuple):
    """The state of one subscription."""

    is_positioned: bool
    is_server_side: bool
