"""The client and the session as the handlers of an application see them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

import orjson

from cluster import json_text
from cluster.application.handler_values import ApplicationDisconnect, decoded
from cluster.auth import Claims
from cluster.errors import SERVER_UNSUBSCRIBE, Disconnect, Unsubscribe
from cluster.sessions import Session, SessionConflict

#: So often a change of `ApplicationSession` is tried again when others change it at the same time.
_ATTEMPTS: Final = 20
_ALWAYS_CHANGED: Final = f"the session was changed by others {_ATTEMPTS} times in a row"


class HandledConnection(Protocol):
    """What a handle needs of the state machine of a connection; its methods return actions."""

    client: str
    user: str
    info: bytes
    claims: Claims

    @property
    def channels(self) -> Collection[str]: ...

    def message(self, data: Any) -> list[Any]: ...

    def disconnect(self, why: Disconnect) -> list[Any]: ...

    def unsubscribe(self, channel: str, why: Unsubscribe) -> list[Any]: ...


class HandledClient(Protocol):
    """What a handle needs of a client of the worker."""

    @property
    def connection(self) -> Any: ...

    session: Session | None

    headers: Mapping[str, str]

    emulated_headers: Mapping[str, str]

    def perform(self, actions: list[Any]) -> None: ...


class SessionUpdates(Protocol):
    """Changes sessions in the store, and waits until this worker has seen a change."""

    async def update(self, session: Session, state: Any, expected_version: int | None) -> int: ...

    async def set_channels(self, session: Session, channels: tuple[str, ...]) -> int:
        """Set the channels of a session that has not changed meanwhile.

        Raises:
            ClientError: 102, 107 for one that cannot be, 106 for too many.
        """

    async def seen(self, session: Session, version: int) -> None: ...


class ApplicationSession:
    """A session: it outlives the connection, and all tabs of its client on all workers share it."""

    __slots__ = ("_session", "_updates")

    def __init__(self, session: Session, updates: SessionUpdates) -> None:
        self._session = session
        self._updates = updates

    @property
    def id(self) -> str:
        """Its id, which is a secret."""
        return self._session.id

    @property
    def user(self) -> str:
        """Its user; "" for an anonymous one."""
        return self._session.user

    @property
    def state(self) -> Any:
        """A copy of its state, as this worker has seen it last; None if it was never set."""
        return decoded(self._session.state)

    @property
    def raw_state(self) -> bytes:
        """Its state as JSON text."""
        return self._session.state

    @property
    def version(self) -> int:
        """The version of its state, which every change makes greater."""
        return self._session.version

    async def update(self, state: Any, *, expected_version: int | None = None) -> int:
        """Set its state; every tab is sent it. Returns the new version.

        Args:
            state: `bytes` are JSON text that clients get as it is, another value is encoded.
            expected_version: change nothing if the session has another version; None overwrites.

        Raises:
            SessionConflict: it has another version; nothing has changed.
            SessionGone: it has ended.
            StateInvalid, StateTooLarge: nothing has changed.
            StoreError: it is unknown whether it has changed.
        """
        version = await self._updates.update(self._session, state, expected_version)
        await self._updates.seen(self._session, version)
        return version

    @property
    def channels(self) -> frozenset[str]:
        """The channels that belong to the session: the server subscribes all its connections to them."""
        return frozenset(self._session.channels)

    async def subscribe(self, channel: str) -> None:
        """Subscribe all its connections to a channel, now and whenever they come back.

        Raises:
            ClientError: 102 or 107 for the channel's name, 106 for more than `client.channel_limit`.
            SessionConflict, SessionGone, StoreError: as `change` does.
        """
        await self._change_channels(channel, has_it=True)

    async def unsubscribe(self, channel: str) -> None:
        """End what `subscribe`, or the server API, began; raises as `change` does."""
        await self._change_channels(channel, has_it=False)

    async def _change_channels(self, channel: str, *, has_it: bool) -> None:
        for _ in range(_ATTEMPTS):
            version, channels = self._session.version, self._session.channels
            if (channel in channels) is has_it:
                return
            others = tuple(one for one in channels if one != channel)
            try:
                version = await self._updates.set_channels(
                    self._session, (*others, channel) if has_it else others
                )
            except SessionConflict:
                await self._updates.seen(self._session, version + 1)
            else:
                await self._updates.seen(self._session, version)
                return
        raise SessionConflict(_ALWAYS_CHANGED)

    async def change(self, function: Callable[[Any], Any], *, raw: bool = False) -> Any:
        """Set the state to what `function` makes of it; returns the new state.

        If another handler changes the state at the same time, on any worker, the function is called again
        with the newer state. So it must do nothing but make a value of its argument.

        Args:
            raw: the function gets the state as JSON text.

        Raises:
            SessionConflict: others have changed the session again and again.
            SessionGone, StateInvalid, StateTooLarge, StoreError: as `update` does.
        """
        for _ in range(_ATTEMPTS):
            version = self._session.version
            state = function(self.raw_state if raw else self.state)
            try:
                await self.update(state, expected_version=version)
            except SessionConflict:
                await self._updates.seen(self._session, version + 1)
            else:
                return state
        raise SessionConflict(_ALWAYS_CHANGED)


class ApplicationClient:
    """A client that is connected to this worker.

    Attributes:
        session: its session; usable also after the connection has ended.
    """

    __slots__ = ("_client", "session")

    def __init__(self, client: HandledClient, session: Session, updates: SessionUpdates) -> None:
        self._client = client
        self.session = ApplicationSession(session, updates)

    @property
    def _connection(self) -> HandledConnection:
        connection: HandledConnection = self._client.connection
        return connection

    @property
    def id(self) -> str:
        """The id of the connection."""
        return self._connection.client

    @property
    def user(self) -> str:
        """The user's id; "" for an anonymous one."""
        return self._connection.user

    @property
    def info(self) -> Any:
        """What others see as `conn_info`; None if there is nothing."""
        return decoded(self._connection.info)

    @property
    def raw_info(self) -> bytes:
        """The same as JSON text; b"" without it."""
        return self._connection.info

    @property
    def meta(self) -> Any:
        """What its token, or a `ConnectAnswer`, has as `meta`, which no client sees; None without it."""
        return decoded(self.raw_meta)

    @property
    def raw_meta(self) -> bytes:
        """The same as JSON text; b"" without it."""
        return self._connection.claims.meta

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of its handshake, in lower case: those that `Application(headers=…)` names."""
        return self._client.headers

    @property
    def emulated_headers(self) -> Mapping[str, str]:
        """Headers of its connect command, as `Connecting.emulated_headers`."""
        return self._client.emulated_headers

    @property
    def codec(self) -> str:
        """What it speaks: "json" or "protobuf"."""
        name: str = self._client.connection.codec.name
        return name

    @property
    def channels(self) -> frozenset[str]:
        """The channels that it is subscribed to."""
        return frozenset(self._connection.channels)

    @property
    def is_connected(self) -> bool:
        """Whether the connection is still open."""
        return self._client.session is not None

    def send(self, data: Any) -> None:
        """Send a `message` to this connection; one that has ended gets nothing.

        Args:
            data: `bytes` are JSON text that the client gets as it is, another value is encoded.

        Raises:
            JsonTextInvalid, JSONEncodeError: there is no JSON of it.
        """
        if type(data) is bytes:
            data = orjson.Fragment(json_text.checked(data))
        self._client.perform(self._connection.message(data))

    def unsubscribe(self, channel: str) -> None:
        """End its subscription of a channel, if it has one (2000)."""
        self._client.perform(self._connection.unsubscribe(channel, SERVER_UNSUBSCRIBE))

    def disconnect(self, code: int = 4500, reason: str = "disconnected") -> None:
        """Close the connection.

        Raises:
            ValueError: as `ApplicationDisconnect` does.
        """
        self._client.perform(self._connection.disconnect(ApplicationDisconnect(code, reason)))
