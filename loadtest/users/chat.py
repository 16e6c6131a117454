"""Users that publish and subscribe: members of a channel, broadcasters, subscribers, reconnecting users."""

from __future__ import annotations

import random
import time
from typing import Final

import gevent
from locust import task

from loadtest.centrifuge_client import CommandRefused, CommandUnanswered
from loadtest.users.member import Member

_SMALLEST: Final = 0.0005


class ChatMember(Member):
    """Subscribes to one channel and publishes now and then; all users together publish at `--rate`."""

    default_rate = 4.0
    _due = 0.0

    def enter(self) -> None:
        self.subscribe(self.load_context.channel(self.number))

    @task
    def talk(self) -> None:
        pace = self.pace_seconds()
        now = time.monotonic()
        # The first publication is at a random moment of the interval, so that users do not publish in step.
        self._due = self._due + pace if self._due else now + pace * random.random()
        self._due = max(self._due, now - pace)
        self.rest(max(_SMALLEST, self._due - now))
        if not self.load_context.is_ending:
            self.publish(self.load_context.channel(self.number))


class Broadcaster(ChatMember):
    """Publishes to the first channel."""

    default_rate = 20.0

    def enter(self) -> None:
        """Read the position of the channel before the first publication."""
        channel = self.load_context.channel(0)
        while True:
            try:
                self.load_context.ledger.began(
                    channel, self.client.history(channel, 0).get("offset", 0)
                )
                return
            except (CommandRefused, CommandUnanswered):
                gevent.sleep(0.5)

    @task
    def talk(self) -> None:
        pace = self.pace_seconds()
        self.rest(pace)
        if not self.load_context.is_ending:
            self.publish(self.load_context.channel(0))


class Subscriber(Member):
    """Subscribes and publishes nothing."""

    def enter(self) -> None:
        self.subscribe(self.load_context.channel(self.number))

    @task
    def listen(self) -> None:
        self.rest(1.0)


class Reconnector(ChatMember):
    """A member whose connection breaks now and then, and which recovers what it missed."""

    @task
    def talk(self) -> None:
        ChatMember.talk(self)

    @task
    def lose_connection(self) -> None:
        self.client.drop()
        self.rest(random.uniform(2.0, 4.0))
