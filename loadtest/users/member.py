"""The base of every user: one client, its subscriptions in the ledger, and its end."""

from __future__ import annotations

import time
from typing import Any, Final

import gevent
from locust import User
from locust.env import Environment
from locust.exception import StopUser
from websocket import WebSocketException

from loadtest.centrifuge_client import (
    CentrifugeClient,
    ClientSubscription,
    CommandRefused,
    CommandUnanswered,
    ConnectionClosed,
    Json,
    NotSent,
)
from loadtest.ledger import SubscriberAccount
from loadtest.load_context import LoadContext

_RETRY_SECONDS: Final = 0.5
_TRIES: Final = 60


class Member(User):
    """A user with one client.

    Attributes:
        default_rate: actions per second of all users of its class, unless `--rate` says otherwise.
        reads: whether it reads from its connection.
        receive_buffer_bytes: of its socket; 0 for the system's default.
    """

    abstract = True
    default_rate = 1.0
    reads = True
    receive_buffer_bytes = 0

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.load_context = LoadContext.of(environment)
        self.number = self.load_context.next_number(type(self))
        self.id = f"{self.load_context.name}-{type(self).__name__}-{self.number}"
        self.host_number, self.url = self.load_context.host_of(self.number)
        self.client = self.new_client()
        self.sent: dict[str, int] = {}
        self._counted: list[tuple[str, SubscriberAccount]] = []
        self._is_present = False

    def new_client(self) -> CentrifugeClient:
        """A client that is not connected yet."""
        return CentrifugeClient(
            self.url,
            measured=self.load_context.measured,
            token=self.load_context.token,
            data=self.connect_data(),
            reads=self.reads,
            receive_buffer_bytes=self.receive_buffer_bytes,
        )

    def connect_data(self) -> Json | None:
        """The data of the connect command."""
        return None

    # --- life ------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect and subscribe; a temporary refusal is retried."""
        self.connect()
        self.enter()
        self.arrive()

    def arrive(self) -> None:
        """Count this user as connected."""
        self._is_present = True
        self.load_context.connected += 1
        self.load_context.present[type(self)] += 1

    def connect(self) -> None:
        """Connect, with retries.

        Raises:
            StopUser: if the server refuses for good, or for too long.
        """
        for _ in range(_TRIES):
            try:
                self.client.connect()
                return
            except ConnectionClosed as error:
                self.load_context.closes[str(error.code)] += 1
                raise StopUser from None
            except (OSError, WebSocketException, CommandRefused, CommandUnanswered):
                gevent.sleep(_RETRY_SECONDS)
        raise StopUser

    def enter(self) -> None:
        """Subscribe, or what else a user does after connecting."""

    def on_stop(self) -> None:
        """Disconnect."""
        if self.client.closed_with is not None:
            self.load_context.closes[str(self.client.closed_with.code)] += 1
        if self._is_present:
            self._is_present = False
            self.load_context.connected -= 1
            self.load_context.present[type(self)] -= 1
        if not self.load_context.is_ending:
            # Later publications do not count for this user.
            for channel, counted in self._counted:
                self.load_context.ledger.left(channel, counted)
        self.client.close()

    def rest(self, seconds: float) -> None:
        """Wait; when the run is ending, until it has ended."""
        gevent.sleep(seconds)
        while self.load_context.is_ending:
            gevent.sleep(1.0)

    def pace_seconds(self) -> float:
        """Time between two actions of this user, so that its whole class keeps the rate."""
        return self.load_context.pace_seconds(type(self), self.default_rate)

    # --- channels --------------------------------------------------------------------------

    def subscribe(self, channel: str, *, is_recoverable: bool = True) -> None:
        """Subscribe, and count deliveries in the ledger; retried until it works."""
        counted = self.load_context.ledger.subscriber(channel)
        self._counted.append((channel, counted))

        def subscribed(offset: int | None, recovered: bool, was_recovering: bool) -> None:
            if not was_recovering and offset is not None:
                self.load_context.ledger.began(channel, offset)
            counted.subscribed(offset, is_recovered=recovered, was_recovering=was_recovering)

        def delivered(_: str, data: Any, offset: int) -> None:
            if isinstance(data, dict) and "p" in data:
                counted.take(offset, data["p"], data["n"])
                self.load_context.delivery(data["t"], is_other_host=data["d"] != self.host_number)

        one = ClientSubscription(channel, delivered, subscribed, is_recoverable)
        while True:
            try:
                self.client.subscribe(one)
                return
            except CommandUnanswered:
                # The client subscribes when it is connected again.
                return
            except CommandRefused:
                gevent.sleep(_RETRY_SECONDS)

    def publish(self, channel: str) -> None:
        """Publish the next number of this user, and count it in the ledger."""
        number = self.sent.get(channel, 0) + 1
        data = {"p": self.id, "n": number, "t": time.time(), "d": self.host_number}
        if (padding := self.load_context.options.payload - 60) > 0:
            data["x"] = "x" * padding
        ledger = self.load_context.ledger
        result = "acknowledged"
        try:
            self.client.publish(channel, data)
        except NotSent:
            # It was not sent: the next publication has its number.
            return
        except CommandRefused:
            result = "refused"
        except CommandUnanswered:
            result = "unknown"
        self.sent[channel] = number
        self.load_context.published_bytes += self.load_context.options.payload
        ledger.published(channel, result, self.id, number)
