"""The states of a connection, and the actions that it returns to its owner, to be done in order.

`Connect`, `Refresh`, `SubRefresh`, `Subscribe`, `Publish`, `History`, `PresenceRead` and `Rpc` are requests: the owner answers
each of them once, by calling the connection's method in the past tense.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

import msgspec

from cluster.errors import Disconnect
from cluster.protocol import ConnectRequest, HistoryRequest, SubscribeRequest


class State(Enum):
    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    CLOSED = "closed"


# For the path of every command: until Python 3.12 a member of an Enum is found through a descriptor,
# which takes as long as three calls.
NEW: Final = State.NEW
CONNECTING: Final = State.CONNECTING
CONNECTED: Final = State.CONNECTED
REFUSED: Final = State.REFUSED
CLOSED: Final = State.CLOSED


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send one JSON document to the client."""

    payload: bytes


class Close(msgspec.Struct, frozen=True):
    """Close the connection; always the last action."""

    why: Disconnect


class Connect(msgspec.Struct, frozen=True, gc=False):
    id: int
    request: ConnectRequest


class Refresh(msgspec.Struct, frozen=True, gc=False):
    id: int
    token: str


class SubRefresh(msgspec.Struct, frozen=True, gc=False):
    id: int
    channel: str
    token: str


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    id: int
    request: SubscribeRequest


class Leave(msgspec.Struct, frozen=True, gc=False):
    """Remove the connection from a channel."""

    channel: str


class Publish(msgspec.Struct, frozen=True, gc=False):
    id: int
    channel: str
    data: bytes


class History(msgspec.Struct, frozen=True, gc=False):
    id: int
    request: HistoryRequest


class PresenceRead(msgspec.Struct, frozen=True, gc=False):
    """`presence`, or `presence_stats`."""

    id: int
    method: str
    channel: str


class Rpc(msgspec.Struct, frozen=True, gc=False):
    id: int
    method: str
    data: bytes


class Message(msgspec.Struct, frozen=True, gc=False):
    """Take a message of the client; nothing answers it."""

    data: bytes


Action = (
    Send
    | Close
    | Connect
    | Refresh
    | SubRefresh
    | Subscribe
    | Leave
    | Publish
    | History
    | PresenceRead
    | Rpc
    | Message
)


class SubscriptionDetails(NamedTuple):
    """What most subscriptions do not have.

    Attributes:
        info: JSON text that others see as `chan_info`, b"" if there is none.
        expires_at: by cluster.expiry_clock, 0 for never.
        is_refreshed_by_server: whether the application is asked then if it may go on.
    """

    info: bytes
    expires_at: int
    is_refreshed_by_server: bool = False


class SubscriptionSource(Enum):
    """On whose behalf there is a subscription: a subscribe command, the connection's token, the user's
    personal channel, the session's channels, the `subs` of the connect command, or the server API.
    """

    CLIENT = 1
    TOKEN = 2
    PERSONAL = 3
    SESSION = 4
    REQUEST = 5
    API = 6


class Subscription(NamedTuple):
    """The state of one subscription."""

    is_positioned: bool
    is_server_side: bool
    details: SubscriptionDetails | None = None
    source: SubscriptionSource = SubscriptionSource.CLIENT

    @property
    def info(self) -> bytes:
        """JSON text that others see as `chan_info`, b"" if there is none."""
        return self.details.info if self.details is not None else b""

    @property
    def expires_at(self) -> int:
        """By cluster.expiry_clock, 0 for never."""
        return self.details.expires_at if self.details is not None else 0


class ExpiryDelays(NamedTuple):
    """For how many seconds after its expiry a connection, or a subscription, may still be refreshed."""

    connection: float
    subscription: float
