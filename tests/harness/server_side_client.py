"""Clients whose channels are in their token: the server subscribes them, and they recover as the SDKs do.

A server-side subscription comes with the connect reply, under `subs`; a client that comes back sends the
positions that it has, in the same place (protocol page 6).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
from centrifuge.protocol import client_pb2

from tests.harness.client import Client, Json, Subscription
from tests.harness.protobuf_client import ProtobufClient

_VALID_SECONDS = 3600


def token_of(user: str, channel: str, key: str) -> str:
    """A token that subscribes its user to a channel; with "" to none."""
    claims = {"sub": user, "exp": int(time.time()) + _VALID_SECONDS, "channels": [channel]}
    if not channel:
        del claims["channels"]
    return jwt.encode(claims, key, "HS256")


class ServerSideClient(Client):
    """One client; `expect` the channel of its token before `start`."""

    def __init__(self, port: int, **options: Any) -> None:
        super().__init__(port, **options)
        self.server_side: dict[str, Subscription] = {}

    def expect(
        self,
        channel: str,
        on_publication: Callable[[Subscription, Json], None],
        on_subscribed: Callable[[Subscription, Json], None] | None = None,
    ) -> Subscription:
        """Deliver what comes from a channel to which the server subscribes the client."""
        subscription = Subscription(channel, on_publication, on_subscribed)
        self.server_side[channel] = subscription
        return subscription

    @property
    def is_whole(self) -> bool:
        states = [subscription.state for subscription in self.server_side.values()]
        return super().is_whole and set(states) == {"subscribed"}

    def position(self, subscription: Subscription) -> Any:
        """Where a subscription is, as the codec has it in a connect request."""
        return {"recover": True, "offset": subscription.offset, "epoch": subscription.epoch}

    def _send_connect(self) -> None:
        known = [one for one in self.server_side.values() if one.is_recoverable]
        subs = {one.channel: self.position(one) for one in known}
        self.connect_request = {**self.connect_request, "subs": subs}
        super()._send_connect()

    def _connect_answered(self, reply: Json | None) -> None:
        super()._connect_answered(reply)
        if reply is None or "connect" not in reply:
            return
        for channel, result in reply["connect"].get("subs", {}).items():
            self.server_side[channel].take_result(result)

    def _pushed(self, push: Json) -> None:
        subscription = self.server_side.get(push.get("channel", ""))
        if subscription is None:
            super()._pushed(push)
        elif "pub" in push:
            subscription.take(push["pub"])
        elif "unsubscribe" in push:
            subscription.codes.append(push["unsubscribe"]["code"])
            subscription.state = "unsubscribed"
            # The SDKs forget the channel: they do not ask for it when they come back.
            subscription.is_recoverable = False

    def _forget(self) -> None:
        super()._forget()
        for subscription in self.server_side.values():
            subscription.state = "subscribing"


class SessionClient(ServerSideClient):
    """A client whose channels belong to its session: it is given them once, and comes back with them.

    Attributes:
        given: called when it has connected for the first time; it has no channel then.
        resumed: how often it has come back to its session.
    """

    def __init__(
        self, port: int, *, given: Callable[[SessionClient], None], **options: Any
    ) -> None:
        super().__init__(port, **options)
        self.given = given
        self.resumed = 0

    def _connect_answered(self, reply: Json | None) -> None:
        super()._connect_answered(reply)
        if reply is None or "connect" not in reply:
            return
        session = self.result["data"]["session"]
        known = self.connect_request.get("data", {}).get("session")
        self.connect_request = {**self.connect_request, "data": {"session": session["id"]}}
        if known is None:
            self.given(self)
        else:
            assert (session["id"], session.get("resumed")) == (known, True), "another session"
            self.resumed += 1

    def _pushed(self, push: Json) -> None:
        if "subscribe" in push:
            self.server_side[push["channel"]].take_result(push["subscribe"])
        else:
            super()._pushed(push)


class SessionProtobufClient(SessionClient, ProtobufClient):
    """The same in Protobuf."""

    def position(self, subscription: Subscription) -> Any:
        return client_pb2.SubscribeRequest(**super().position(subscription))


class ServerSideProtobufClient(ServerSideClient, ProtobufClient):
    """The same in Protobuf."""

    def position(self, subscription: Subscription) -> Any:
        return client_pb2.SubscribeRequest(**super().position(subscription))
