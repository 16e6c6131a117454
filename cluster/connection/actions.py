"""What a connection asks its owner to do, in order; its states, and what it knows of a subscription.

`Connect`, `Refresh`, `Subscribe`, `Publish`, `History` and `Rpc` ask for something: they are
answered once, by the connection's method of the past tense.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from cluster.errors import Disconnect
from cluster.protocol import ConnectRequest, HistoryRequest, SubscribeRequest


class State(Enum):
    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    CLOSED = "closed"


class Send(NamedTuple):
    """Write one JSON document to the client."""

    payload: bytes


class Close(NamedTuple):
    """Close the connection; nothing follows."""

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
    """Take the connection out of a channel."""

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
    data: Any


Action = Send | Close | Connect | Refresh | Subscribe | Leave | Publish | History | Rpc


class Subscription(NamedTuple):
    """What a connection knows of one of its subscriptions."""

    is_positioned: bool
    is_server_side: bool
