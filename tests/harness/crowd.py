"""Many clients at once with one ledger: subscribers that check, publishers that keep a pace."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.harness.client import Client, NoReply, ReplyError, Subscription
from tests.harness.ledger import Ledger, Report
from tests.harness.protobuf_client import ProtobufClient
from tests.harness.server_side_client import (
    ServerSideClient,
    ServerSideProtobufClient,
    token_of,
)
from tests.harness.waiting import until

_AT_ONCE = 100
SETTLE_WITHIN = 30.0
QUIET_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Size:
    """How large a test is."""

    subscribers: int
    channels: int
    workers: int
    publishes_per_second: int

    def __str__(self) -> str:
        return (
            f"{self.subscribers}-subscribers-{self.channels}-channels-"
            f"{self.workers}-workers-{self.publishes_per_second}-per-second"
        )


def codec_of(client: Client) -> str:
    """What a client speaks."""
    return "protobuf" if isinstance(client, ProtobufClient) else "json"


class Crowd:
    """Subscribers spread evenly over channels, and one publisher task per channel.

    Every fourth subscriber speaks Protobuf, and half of the publishers. With a key for tokens, every fifth
    subscriber has a token with its channel, to which the server subscribes it; some do both. A channel has one
    publisher, which awaits every answer before it sends the next; after a failure it goes on with the next
    number, so nothing is ever sent twice by the client.
    """

    def __init__(
        self, port: int, size: Size, *, reconnect_min: float = 0.5, token_key: str = ""
    ) -> None:
        self.port = port
        self.token_key = token_key
        self.size = size
        self.ledger = Ledger()
        self.channels = [f"channel-{number}" for number in range(size.channels)]
        self.subscribers: list[Client] = []
        self.publishers: list[Client] = []
        self.latencies: list[tuple[float, float]] = []
        self.errors: Counter[str] = Counter()
        self._reconnect_min = reconnect_min
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    # -- connecting ------------------------------------------------------------------------------

    async def gather(self, within: float = 60.0) -> None:
        """Connect every subscriber and publisher, and wait until all are subscribed."""
        gate = asyncio.Semaphore(_AT_ONCE)
        for number in range(self.size.subscribers):
            channel = self.channels[number % len(self.channels)]
            client = self._subscriber(number, channel)
            self.watch(client, channel)
            self.subscribers.append(client)
        self.publishers = [
            # Not by turns: every second channel has all the subscribers that speak Protobuf.
            self._client(f"publisher-{channel}", ProtobufClient if place % 4 > 1 else Client)
            for place, channel in enumerate(self.channels)
        ]

        async def enter(client: Client) -> None:
            async with gate:
                await client.start(within)

        await asyncio.gather(*(enter(client) for client in self.clients))
        await until(lambda: self.outside() == [], within, "every subscriber is in its channel")

    def _subscriber(self, number: int, channel: str) -> Client:
        name, speaks_protobuf = f"subscriber-{number}", number % 4 == 3
        if not self.token_key or number % 5 != 2:
            return self._client(name, ProtobufClient if speaks_protobuf else Client)
        kind = ServerSideProtobufClient if speaks_protobuf else ServerSideClient
        token = token_of(name, channel, self.token_key)
        return self._client(name, kind, connect_request={"token": token})

    def _client(self, name: str, kind: type[Client] = Client, **options: Any) -> Client:
        return kind(self.port, name=name, reconnect_min=self._reconnect_min, **options)

    def watch(self, client: Client, channel: str) -> Subscription:
        """Subscribe a client and record what it receives."""
        ledger, name, latencies = self.ledger, client.name, self.latencies
        is_first = True

        def publication(subscription: Subscription, pub: dict[str, Any]) -> None:
            data = pub["data"]
            ledger.got(name, channel, data["n"], pub.get("offset", 0))
            now = time.monotonic()
            latencies.append((now, now - data["t"]))

        def subscribed(subscription: Subscription, result: dict[str, Any]) -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                ledger.joined(name, channel, result.get("offset", 0))
            elif not result.get("recovered"):
                ledger.unrecovered(name, channel)

        enter = client.expect if isinstance(client, ServerSideClient) else client.subscribe
        return enter(channel, publication, subscribed)

    @property
    def clients(self) -> list[Client]:
        """Subscribers and publishers."""
        return [*self.subscribers, *self.publishers]

    def exchanged(self) -> dict[str, int]:
        """How many deliveries went from publishers of one codec to subscribers of another, as `json-protobuf`."""
        total: Counter[str] = Counter()
        for place, subscriber in enumerate(self.subscribers):
            number = place % len(self.channels)
            codecs = f"{codec_of(self.publishers[number])}-{codec_of(subscriber)}"
            total[codecs] += self.ledger.delivered(subscriber.name, self.channels[number])
        return dict(total)

    # -- publishing ------------------------------------------------------------------------------

    def begin_publishing(self) -> None:
        """Publish to every channel in turn, at the size's pace, until `end_publishing`."""
        self._stop.clear()
        gap = len(self.channels) / self.size.publishes_per_second
        for place, (channel, client) in enumerate(zip(self.channels, self.publishers, strict=True)):
            first = gap * place / len(self.channels)
            self._tasks.append(asyncio.create_task(self._publish(client, channel, first, gap)))

    async def _publish(self, client: Client, channel: str, first: float, gap: float) -> None:
        due = time.monotonic() + first
        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + gap, time.monotonic())
            if client.is_connected:
                await self.publish_once(client, channel)

    async def publish_once(self, client: Client, channel: str, filler: str = "") -> bool:
        """Publish the channel's next number; returns whether it was acknowledged."""
        number = self.ledger.next_number(channel)
        data = {"n": number, "t": time.monotonic(), "f": filler}
        try:
            await client.publish(channel, data)
        except NoReply:
            self.errors["no reply"] += 1
            self.ledger.unknown(channel, number)
        except ReplyError as error:
            self.errors[f"error {error.code}"] += 1
            # A temporary error may hide a publication that was stored (design 6: never retried).
            book = self.ledger.unknown if error.is_temporary else self.ledger.refused
            book(channel, number)
        else:
            self.ledger.acknowledged(channel, number)
            return True
        return False

    async def end_publishing(self) -> None:
        """Stop publishing once every outstanding answer is there."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        self._tasks.clear()

    async def traffic(self, within: float = 30.0) -> None:
        """Wait until all are subscribed and have received two new publications each, on average."""
        await until(lambda: self.outside() == [], within, "every client is back in its channel")
        wanted = len(self.latencies) + 2 * self.size.subscribers
        await until(lambda: len(self.latencies) >= wanted, within, "publications arrive")

    async def settle(self, within: float = SETTLE_WITHIN) -> Report:
        """Stop publishing and wait until all are back and have what they are owed; returns the balance."""
        await self.end_publishing()
        deadline = time.monotonic() + within
        while time.monotonic() < deadline and (self.outside() or self.ledger.missing()):
            await asyncio.sleep(0.1)
        # A duplicate may be the last to arrive.
        await asyncio.sleep(QUIET_SECONDS)
        return self.ledger.report()

    async def close(self) -> None:
        """Close every client."""
        self._stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self.clients))

    async def is_present(self) -> bool:
        """Whether the members of every channel are its subscribers, as they are connected now."""
        wanted: dict[str, set[str]] = {channel: set() for channel in self.channels}
        for client in self.subscribers:
            server_side = client.server_side if isinstance(client, ServerSideClient) else {}
            for channel in (*client.subscriptions, *server_side):
                wanted[channel].add(client.result["client"])
        for channel, publisher in zip(self.channels, self.publishers, strict=True):
            answer = await publisher.call("presence", {"channel": channel})
            stats = await publisher.call("presence_stats", {"channel": channel})
            if set(answer.get("presence", {})) != wanted[channel]:
                return False
            if stats.get("num_clients", 0) != len(wanted[channel]):
                return False
        return True

    # -- results ---------------------------------------------------------------------------------

    def outside(self) -> list[str]:
        """The clients that are not connected or not in their channel."""
        return [client.name for client in self.clients if not client.is_whole]

    def moves(self, since: float) -> Counter[int]:
        """How many clients were moved how many times since a moment."""
        return Counter(
            sum(when >= since for when, _ in client.history.ends) for client in self.clients
        )

    def codes(self, since: float = 0.0) -> Counter[int | None]:
        """The close codes of all clients since a moment."""
        total: Counter[int | None] = Counter()
        for client in self.clients:
            total += client.history.codes(since)
        return total

    def refusals(self) -> Counter[int]:
        """The HTTP statuses of refused upgrades; 0 is no answer at all."""
        total: Counter[int] = Counter()
        for client in self.clients:
            total += client.history.refusals
        return total

    def busiest_second(self, since: float) -> int:
        """The most connects in any one second since a moment."""
        times = sorted(
            when for client in self.clients for when in client.history.connects if when >= since
        )
        first = most = 0
        for last, when in enumerate(times):
            while when - times[first] > 1.0:
                first += 1
            most = max(most, last - first + 1)
        return most

    def latency(self, share: float, since: float = 0.0) -> float:
        """A quantile of publish-to-delivery in seconds, on this process's clock."""
        values = sorted(took for when, took in self.latencies if when >= since)
        return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0

    def summary(self, since: float = 0.0) -> str:
        """One line for a failure message or a log."""
        return (
            f"codes {dict(self.codes(since))}, refusals {dict(self.refusals())}, "
            f"errors {dict(self.errors)}, moves {dict(self.moves(since))}, "
            f"busiest second {self.busiest_second(since)}, "
            f"p50 {self.latency(0.5, since):.4f} s, p99 {self.latency(0.99, since):.4f} s"
        )
