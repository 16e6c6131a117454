"""What every user is made of: one client, its subscriptions in the ledger, and its end."""

from __future__ import annotations

import time
from typing import Any, Final

import gevent
from locust import User
from locust.env import Environment
from locust.exception import StopUser
from websocket import WebSocketException

from loadtest.client import Client, Closed, Json, NotSent, Refused, Subscription, Unanswered
from loadtest.ledger import Subscriber
from loadtest.world import World

_RETRY_SECONDS: Final = 0.5
_TRIES: Final = 60


class Member(User):
    """A user with one client.

    Attributes:
        default_rate: acts per second of all users of its class, unless `--rate` says otherwise.
        reads: whether it reads what it is sent.
        receive_buffer_bytes: of its socket; 0 leaves it to the system.
    """

    abstract = True
    default_rate = 1.0
    reads = True
    receive_buffer_bytes = 0

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.world = World.of(environment)
        self.number = self.world.next_number(type(self))
        self.id = f"{self.world.name}-{type(self).__name__}-{self.number}"
        self.door, self.url = self.world.door(self.number)
        self.client = self.new_client()
        self.sent: dict[str, int] = {}
        self._counted: list[tuple[str, Subscriber]] = []
        self._is_present = False

    def new_client(self) -> Client:
        """A client that is not connected yet."""
        return Client(
            self.url,
            measured=self.world.measured,
            token=self.world.token,
            data=self.connect_data(),
            reads=self.reads,
            receive_buffer_bytes=self.receive_buffer_bytes,
        )

    def connect_data(self) -> Json | None:
        """What goes with the connect command."""
        return None

    # --- life ------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect and take part; a cluster that refuses for now is asked again."""
        self.connect()
        self.enter()
        self.arrive()

    def arrive(self) -> None:
        """Be counted."""
        self._is_present = True
        self.world.connected += 1
        self.world.present[type(self)] += 1

    def connect(self) -> None:
        """Connect, with patience.

        Raises:
            StopUser: the server refuses for good, or for too long.
        """
        for _ in range(_TRIES):
            try:
                self.client.connect()
                return
            except Closed as error:
                self.world.closes[str(error.code)] += 1
                raise StopUser from None
            except (OSError, WebSocketException, Refused, Unanswered):
                gevent.sleep(_RETRY_SECONDS)
        raise StopUser

    def enter(self) -> None:
        """Subscribe, or whatever belongs to being there."""

    def on_stop(self) -> None:
        """Leave."""
        if self.client.closed_with is not None:
            self.world.closes[str(self.client.closed_with.code)] += 1
        if self._is_present:
            self._is_present = False
            self.world.connected -= 1
            self.world.present[type(self)] -= 1
        if not self.world.is_ending:
            # What comes from now on is not for us.
            for channel, counted in self._counted:
                self.world.ledger.left(channel, counted)
        self.client.close()

    def rest(self, seconds: float) -> None:
        """Wait; at the end of the run, for its end."""
        gevent.sleep(seconds)
        while self.world.is_ending:
            gevent.sleep(1.0)

    def pace_seconds(self) -> float:
        """Time between two of our acts, so that all of our class together keep the rate."""
        return self.world.pace_seconds(type(self), self.default_rate)

    # --- channels --------------------------------------------------------------------------

    def subscribe(self, channel: str, *, is_recoverable: bool = True) -> None:
        """Subscribe, and account for what arrives; tried until it works."""
        counted = self.world.ledger.subscriber(channel)
        self._counted.append((channel, counted))

        def subscribed(offset: int | None, recovered: bool, was_recovering: bool) -> None:
            if not was_recovering and offset is not None:
                self.world.ledger.began(channel, offset)
            counted.subscribed(offset, is_recovered=recovered, was_recovering=was_recovering)

        def delivered(_: str, data: Any, offset: int) -> None:
            if isinstance(data, dict) and "p" in data:
                counted.take(offset, data["p"], data["n"])
                self.world.delivery(data["t"], is_other_door=data["d"] != self.door)

        one = Subscription(channel, delivered, subscribed, is_recoverable)
        while True:
            try:
                self.client.subscribe(one)
                return
            except Unanswered:
                # It subscribes by itself when it is connected again.
                return
            except Refused:
                gevent.sleep(_RETRY_SECONDS)

    def publish(self, channel: str) -> None:
        """Publish the next of ours, and account for it."""
        number = self.sent.get(channel, 0) + 1
        data = {"p": self.id, "n": number, "t": time.time(), "d": self.door}
        if (padding := self.world.options.payload - 60) > 0:
            data["x"] = "x" * padding
        ledger = self.world.ledger
        result = "acknowledged"
        try:
            self.client.publish(channel, data)
        except NotSent:
            # Nobody heard it: the next one has its number.
            return
        except Refused:
            result = "refused"
        except Unanswered:
            result = "unknown"
        self.sent[channel] = number
        self.world.published_bytes += self.world.options.payload
        ledger.published(channel, result, self.id, number)
