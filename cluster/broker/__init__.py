"""Publications between workers: what every broker guarantees.

`redis_broker` is the broker in use; `canary` finds out whether its subscriptions still deliver. An
in-memory twin in tests/ passes the same contract tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from cluster.errors import StoreError
from cluster.protocol import Position, Publication

#: Bytes of publications that one read returns at most, unless it asks for fewer or one is larger.
READ_MAX_BYTES: Final = 512 * 1024

#: How long the result of a publication with an idempotency key is kept; Centrifugo's API promises 5 minutes.
IDEMPOTENCY_MS: Final = 300_000


class HistoryPolicy(NamedTuple):
    """How long a channel's stream keeps publications. Size 0 means that the channel has no stream.

    Attributes:
        size: exact number of publications kept.
        ttl_ms: how long they are kept after the last one.
        meta_ttl_ms: how long epoch and top offset are kept; 0 for ever.
    """

    size: int
    ttl_ms: int
    meta_ttl_ms: int


class PublishCondition(NamedTuple):
    """When a publication is a repetition, which is not published again.

    Attributes:
        idempotency_key: "" for none; one channel's publications with the same key are one publication.
        version: 0 for none; in a channel with history, a publication whose version is not above that of
            the last one is suppressed.
        version_epoch: if not "", versions of another epoch are not compared.
    """

    idempotency_key: str = ""
    version: int = 0
    version_epoch: str = ""


class ConditionalResult(NamedTuple):
    """What became of a publication with a condition.

    Attributes:
        position: its own, that of the first publication with its idempotency key, or that of the stream
            if its version suppressed it; (0, "") without history.
        suppressed_by: the field of the condition because of which it was not published, "" if it was.
    """

    position: Position
    suppressed_by: str


class StreamRead(NamedTuple):
    """A stream at one moment: its top, and the publications asked for.

    Attributes:
        top: epoch "" if the stream was never used, or no longer is.
        is_cut: whether the limit of bytes has ended the read before its other limits.
    """

    top: Position
    publications: list[Publication]
    is_cut: bool = False


class Acknowledged(NamedTuple):
    """A publication that the store has acknowledged or delivered.

    Attributes:
        body_hash: `hash` of its body.
        at: when, as the loop's time.
    """

    position: Position
    body_hash: int
    at: float


class BrokerListener(Protocol):
    """Receives what the broker delivers; called from the event loop, never concurrently."""

    def publications(self, channel: str, publications: list[Publication]) -> None:
        """All publications that one read returned for a subscribed channel, in order."""

    def joins_and_leaves(self, channel: str, events: list[bytes]) -> None:
        """Joins and leaves of a subscribed channel, in order: `j` or `l`, and the ClientInfo as JSON."""

    def resumed(self, channel: str) -> None:
        """Publications may be missing: the subscription was lost and works again, or an epoch was ended."""


class Broker(Protocol):
    """Publications between workers.

    Guarantees:
        * A publication in a channel with history gets the next offset of its stream, is kept and
          is sent to the subscribers as one step; stream and subscription agree on the order.
        * Delivery to subscribers is at most once. What is missing shows as a gap in the offsets,
          or, for the last ones, when the stream's top is compared (`read`).
        * `publish` is never repeated: after `StoreUnavailable` it may or may not have happened.
        * A caller's publishes to one channel keep their order.
    """

    def publish(
        self,
        channel: str,
        body: bytes,
        history: HistoryPolicy,
        accepted_ms: int,
        done: Callable[[Position | StoreError], None],
    ) -> None:
        """Publish; `done` is called with the position ((0, "") without history) or the error."""

    def publish_conditional(
        self,
        channel: str,
        body: bytes,
        history: HistoryPolicy,
        accepted_ms: int,
        condition: PublishCondition,
        done: Callable[[ConditionalResult | StoreError], None],
    ) -> None:
        """Publish unless it was published before: the check and the publish are one step.

        The key is kept for `IDEMPOTENCY_MS`, the version as long as the stream's position.
        """

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        """Subscribe; done when confirmed: what is published from then on is delivered."""

    def is_subscribed(self, channel: str) -> bool:
        """Whether a subscription is confirmed now."""

    def unsubscribe(self, channel: str, delivered: Acknowledged | None = None) -> None:
        """End the subscription.

        Args:
            delivered: what the channel's subscribers got last. If a failover loses it, the channel gets a
                new epoch: they may come back with its offset.
        """

    def acknowledged(self, channel: str) -> Acknowledged | None:
        """The last publication that this broker has sent to the stream of a subscribed channel.

        It may not have been delivered yet: a master that dies between the answer to the publisher and the
        message to the subscribers has told nobody else, and its replica may not have it.
        """

    async def read(
        self,
        channel: str,
        history: HistoryPolicy,
        *,
        since: int | None = None,
        limit: int = 0,
        reverse: bool = False,
        max_bytes: int = READ_MAX_BYTES,
        is_whole: bool = False,
        leaves_epoch: bool = True,
    ) -> StreamRead:
        """Read a stream's top and, if `limit` is not 0, publications.

        The limits hold for what the store reads and sends, too.

        Args:
            since: an offset: forward, publications after it; backward, those before it.
            limit: how many at most; -1 for all, 0 for the top only.
            reverse: newest first.
            max_bytes: of their bodies together; the first one is returned whatever its size.
            is_whole: return all publications after `since`, or none if the limits do not allow all.
            leaves_epoch: give a stream that was never used its epoch, and keep it for a while; without
                it a read writes nothing.

        Raises:
            StoreUnavailable: when the store is unavailable.
            StoreRefused: when it answered with an error.
        """

    async def remove_history(self, channel: str) -> None:
        """Remove a stream's publications; its position and epoch stay. Raises `StoreError`."""

    async def renew_epoch(self, channel: str, epoch: str) -> Position:
        """End an epoch whose publications the store has lost; returns the stream's position then.

        Every subscriber of the channel is called with `resumed`. If the stream has another epoch by now,
        it stays as it is. Raises as `read` does.
        """
