"""What the handlers of an application get and return, and the errors that they raise.

Data of clients is JSON. A handler gets it as Python values; `raw`, and what begins with `raw_`, is its
text, byte for byte, b"" for nothing. A value is made of the text each time that it is asked for: text that
has none raises `ClientError` 107 then, and no sooner. Where a handler gives data, `bytes` are JSON text that
clients get as it is, and another value is encoded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict

import msgspec
import orjson

from cluster import json_text
from cluster.auth import ChannelOverride, ServerSubscription
from cluster.errors import BAD_REQUEST, ClientError, Disconnect
from cluster.protocol import Publication

#: RFC 6455 §5.5: a control frame has at most 125 bytes, of which the code takes two.
_LONGEST_REASON_BYTES: Final = 123


class ApplicationError(ClientError):
    """Raise it in a handler: the command is answered with this error, the connection stays open.

    Args:
        code: 400 to 1999.
        message: for the client, not empty.
        temporary: whether the SDK may try again by itself.

    Raises:
        ValueError: for another code, or a message that is empty or cannot be sent (a lone surrogate).
    """

    def __init__(self, code: int, message: str, *, temporary: bool = False) -> None:
        if not 400 <= code <= 1999:
            raise ValueError(f"an application's errors have codes from 400 to 1999, not {code!r}")
        if not message:
            raise ValueError(f"the message of error {code} must be text that is not empty")
        message.encode()
        super().__init__(code, message, temporary=temporary)


class ApplicationDisconnect(Disconnect):
    """Raise it in a handler: the connection is closed with this code.

    Args:
        code: 4000 to 4499, after which the SDKs connect again, or 4500 to 4999, after which they do not.
        reason: for the client, at most 123 bytes. It is no JSON: SDKs would read it as something else.

    Raises:
        ValueError: for another code or reason.
    """

    def __init__(self, code: int, reason: str) -> None:
        if not 4000 <= code <= 4999:
            raise ValueError(
                f"an application closes connections with codes from 4000 to 4999, not {code!r}"
            )
        if not reason or _is_json(reason):
            raise ValueError(f"the reason of close code {code} must be text, not empty and no JSON")
        if len(reason.encode()) > _LONGEST_REASON_BYTES:
            raise ValueError(
                f"the reason of close code {code} has {len(reason.encode())} bytes;"
                f" {_LONGEST_REASON_BYTES} are allowed"
            )
        super().__init__(code, reason)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class HandlerRefusal(ClientError):
    """An error of the protocol that passes to the client: 103 for False, 107 for data that is no JSON."""

    def __init__(self, error: ClientError) -> None:
        super().__init__(error.code, error.message)


def decoded(text: bytes) -> Any:
    """Return JSON text as a Python value; b"" is None.

    Raises:
        HandlerRefusal: 107, it is no JSON that orjson can read: a lone surrogate, 1e999.
    """
    if not text:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise HandlerRefusal(BAD_REQUEST) from None


# --- what handlers get ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connecting:
    """A client that connects.

    Attributes:
        client: the id of the connection.
        user: as the token says, "" for an anonymous one; None without a token that was verified.
        raw_info: of the token, as JSON text.
        name: the kind of client that the SDK reports, such as `js`.
        raw: the data that the client sent, as JSON text.
        has_token: whether it has sent a token.
        headers: of the handshake, in lower case: those that `Application(headers=…)` names.
        codec: "json" or "protobuf".
        version: the version of the application that the SDK reports.
        channels: server-side subscriptions that the client had, and asks for again.
        emulated_headers: of the connect command, in lower case: those that
            `Application(emulated_headers=…)` names. The client writes there what it likes.
    """

    client: str
    user: str | None
    raw_info: bytes
    name: str
    raw: bytes
    has_token: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    codec: str = "json"
    version: str = ""
    channels: tuple[str, ...] = ()
    emulated_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Any:
        """The data that the client sent."""
        return decoded(self.raw)

    @property
    def info(self) -> Any:
        """The info of the token; None if it has none."""
        return decoded(self.raw_info)


@dataclass(frozen=True, slots=True)
class Refreshing:
    """A client that extends its connection.

    Attributes:
        token: what the client sent; "" if the server asks (`ConnectAnswer.refreshed_by_server`).
        expires_at: of the token, in Unix seconds, 0 for never; None if the token is not one of ours.
    """

    token: str
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Subscribing:
    """A client that subscribes; `raw` is what it sent with it, as JSON text, b"" for nothing."""

    channel: str
    raw: bytes = b""

    @property
    def data(self) -> Any:
        """What the client sent with the subscribe; None for nothing."""
        return decoded(self.raw)


@dataclass(frozen=True, slots=True)
class SubRefreshing:
    """A subscription that has expired (`SubscribeAnswer.refreshed_by_server`)."""

    channel: str


@dataclass(frozen=True, slots=True)
class Publishing:
    """A client that publishes; `raw` is its data as JSON text."""

    channel: str
    raw: bytes

    @property
    def data(self) -> Any:
        """What the client publishes."""
        return decoded(self.raw)


@dataclass(frozen=True, slots=True)
class Disconnecting:
    """A connection that has ended; `code` and `reason` are those of its close."""

    code: int
    reason: str


# --- what handlers return ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectAnswer:
    """Accepts a connection.

    Attributes:
        user: the user's id, "" for an anonymous one; None keeps the token's.
        info: JSON that others see as `conn_info`; None keeps the token's.
        data: members of the reply's data, beside `session`.
        expires_at: when the connection must be refreshed, in Unix seconds; None keeps the token's, 0 is never.
        refreshed_by_server: the client need not refresh it: at `expires_at` the handler `refreshing` is
            called with an empty token.
        channels: what the server subscribes the connection to; None keeps the token's.
        subs: the same with options, data and infos, by channel; then `channels` counts for nothing.
        meta: an object that no client sees; None keeps the token's.
    """

    user: str | None = None
    info: Any = None
    data: Mapping[str, Any] | None = None
    expires_at: int | None = None
    refreshed_by_server: bool = False
    channels: Sequence[str] | None = None
    subs: Mapping[str, ServerSubscription] | None = None
    meta: Mapping[str, Any] | bytes | None = None


@dataclass(frozen=True, slots=True)
class RefreshAnswer:
    """Extends a connection, or a subscription, until `expires_at`, in Unix seconds; 0 is for ever.

    `info` None keeps what others see as `conn_info`, or as `chan_info`.
    """

    expires_at: int
    info: Any = None


@dataclass(frozen=True, slots=True)
class SubscribeAnswer:
    """Allows a subscription.

    Attributes:
        data: for the subscriber; None is no data.
        info: JSON that others see as `chan_info`; None is none.
        expires_at: when it ends, in Unix seconds, 0 for never; then the SDK subscribes again.
        override: options of the channel that are different for it.
        refreshed_by_server: at `expires_at` the handler `sub_refreshing` is called; it may go on with it.
    """

    data: Any = None
    info: Any = None
    expires_at: int = 0
    override: ChannelOverride | None = None
    refreshed_by_server: bool = False


@dataclass(frozen=True, slots=True)
class PublishAnswer:
    """Allows a publication.

    Attributes:
        data: takes the place of the client's; None keeps it.
        skip_history: it is sent to the subscribers and not kept.
    """

    data: Any = None
    skip_history: bool = False


# --- what the stream of a channel has -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChannelMember:
    """One connection that is subscribed to a channel.

    Attributes:
        client: its id.
        raw_info: of the connection, `conn_info`, as JSON text.
        raw_channel_info: of the subscription, `chan_info`, as JSON text.
    """

    user: str
    client: str
    raw_info: bytes
    raw_channel_info: bytes

    @property
    def info(self) -> Any:
        """What others see of the connection, `conn_info`; None without it."""
        return decoded(self.raw_info)

    @property
    def channel_info(self) -> Any:
        """What others see of the subscription, `chan_info`; None without it."""
        return decoded(self.raw_channel_info)


class _ClientInfo(TypedDict, total=False):
    user: str
    client: str
    conn_info: msgspec.Raw
    chan_info: msgspec.Raw


_CLIENT_INFO: Final[json_text.JsonDecoder[dict[str, Any]]] = json_text.JsonDecoder(
    _ClientInfo, replaces_surrogates=True
)


def channel_member(text: bytes) -> ChannelMember:
    """Read a ClientInfo, as presence keeps it."""
    found = _CLIENT_INFO.decode(text)
    info, channel_info = (bytes(found.get(name, b"")) for name in ("conn_info", "chan_info"))
    return ChannelMember(found["user"], found["client"], info, channel_info)


@dataclass(frozen=True, slots=True)
class StreamPublication:
    """One publication of a channel's history.

    Attributes:
        raw: its data as JSON text.
        raw_info: of its publisher, as JSON text: an object with `user`, `client`, `conn_info`, `chan_info`.
    """

    offset: int
    raw: bytes
    raw_info: bytes
    tags: dict[str, str]

    @property
    def data(self) -> Any:
        """What was published."""
        return decoded(self.raw)

    @property
    def info(self) -> Any:
        """Its publisher, as an object; None if the server has published it."""
        return decoded(self.raw_info)

    @property
    def publisher(self) -> ChannelMember | None:
        """Its publisher, also if there is no value for what others see of it; None if it is the server."""
        return channel_member(self.raw_info) if self.raw_info else None


class _Body(TypedDict, total=False):
    data: msgspec.Raw
    info: msgspec.Raw
    tags: dict[str, str]


_BODY: Final[json_text.JsonDecoder[dict[str, Any]]] = json_text.JsonDecoder(
    _Body, replaces_surrogates=True
)


def stream_publication(publication: Publication) -> StreamPublication:
    """Read a publication, as the store keeps it."""
    body = _BODY.decode(publication.body)
    raw, info = bytes(body.get("data", b"null")), bytes(body.get("info", b""))
    return StreamPublication(publication.offset, raw, info, body.get("tags", {}))


@dataclass(frozen=True, slots=True)
class StreamHistory:
    """Publications of a channel, and the position of its newest one."""

    publications: list[StreamPublication]
    offset: int
    epoch: str
