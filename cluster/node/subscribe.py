"""Prepares subscriptions: what a subscribe asks for, as far as its channel allows, and what was missed.

A prepared subscription ends in `Channels.join` or `Channels.abort`, with nothing awaited between.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cluster import tags_filter
from cluster.broker import HistoryPolicy
from cluster.config import ChannelOptions, Config
from cluster.delta_groups import DeltaDelivery
from cluster.errors import BAD_REQUEST, UNRECOVERABLE_POSITION
from cluster.metrics.counters import Counters
from cluster.node import recovery
from cluster.node.channels import Channels, Joining, RecoveryLimits
from cluster.node.permissions import ChannelPermissions
from cluster.protocol import Position, SubscribeRequest, publications_json
from cluster.subscriber_groups import Delivery, FilteredDelivery


class Subscribed(NamedTuple):
    """A subscribe that has worked: its reply, and the joiner to be joined after it."""

    channel: str
    result: dict[str, Any]
    joining: Joining
    is_positioned: bool


class SubscribePlan(NamedTuple):
    """What a subscribe asks for, as far as its channel allows it.

    Attributes:
        newest: how many of the newest publications are read to recover the last one, instead of those
            after `recover_from`; 0 if it recovers from the stream.
        delivery: how its publications are prepared, None if it gets them as they are.
    """

    policy: HistoryPolicy
    is_positioned: bool
    is_recoverable: bool
    recover_from: Position | None
    newest: int
    delivery: Delivery | None


class SubscriptionBuilder:
    """Prepares the subscriptions of one worker's clients."""

    def __init__(
        self,
        config: Config,
        permissions: ChannelPermissions,
        channels: Channels,
        counters: Counters,
    ) -> None:
        self._config = config
        self._permissions = permissions
        self._channels = channels
        self._counters = counters
        # A reply that fills the client's queue would have it closed as slow, again and again.
        self._limits = RecoveryLimits(
            config.client.recovery_max_publication_limit, config.client.queue_max_size // 2
        )

    def prepare_now(self, request: SubscribeRequest) -> Subscribed | None:
        """Prepare a subscription that needs nothing of the store: no task, no wait.

        Returns:
            What `prepare` returns, or None: then `prepare` is needed.

        Raises:
            ClientError: as `prepare` does.
        """
        options = self._permissions.options(request.channel)
        self._permissions.allow(request.channel)
        plan = self._plan(request, options)
        if plan.newest:
            return None
        joining = self._channels.begin_now(request.channel, plan.policy, plan.recover_from)
        return self._prepared(request, plan, joining) if joining is not None else None

    async def prepare(self, request: SubscribeRequest, reader: object) -> Subscribed:
        """Prepare a subscription: `join` or `abort` follows, with nothing awaited between.

        Args:
            reader: the client that subscribes; what it recovers waits for its turn (`StreamReads`).

        Raises:
            ClientError: 102, 103, 107 as the channel's namespace says; 112 when recovery is impossible and
                the client wants to know; 100 when the store is away.
        """
        options = self._permissions.options(request.channel)
        self._permissions.allow(request.channel)
        return await self._prepare(request, options, reader)

    async def _prepare(
        self, request: SubscribeRequest, options: ChannelOptions, reader: object
    ) -> Subscribed:
        plan = self._plan(request, options)
        joining = await self._channels.begin(
            request.channel, plan.policy, plan.recover_from, self._limits, reader, plan.newest
        )
        return self._prepared(request, plan, joining)

    def _plan(self, request: SubscribeRequest, options: ChannelOptions) -> SubscribePlan:
        policy = self._permissions.history(request.channel)
        may_ask = self._config.client.insecure
        is_recoverable = bool(policy.size) and (
            options.force_recovery or (request.recoverable and (options.allow_recovery or may_ask))
        )
        is_positioned = bool(policy.size) and (
            is_recoverable
            or options.force_positioning
            or (request.positioned and (options.allow_positioning or may_ask))
        )
        is_cache = options.force_recovery_mode == "cache"
        recovers = is_recoverable and (request.recover or (is_cache and options.auto_cache_recover))
        delivery = _delivery(request, options, is_positioned=is_positioned)
        newest = self._limits.publications if delivery is not None else 1
        return SubscribePlan(
            policy,
            is_positioned,
            is_recoverable,
            request.position if recovers else None,
            newest if recovers and is_cache else 0,
            delivery,
        )

    def _prepared(
        self, request: SubscribeRequest, plan: SubscribePlan, joining: Joining
    ) -> Subscribed:
        result: dict[str, Any] = {}
        if plan.is_positioned and joining.read is not None:
            result = {"positioned": True, "epoch": joining.read.top.epoch}
            if plan.is_recoverable:
                result["recoverable"] = True
            if isinstance(plan.delivery, DeltaDelivery):
                result["delta"] = True
            offset = joining.read.top.offset
            if plan.recover_from is not None:
                result["was_recovering"] = True
                if self._recover(request, plan, joining, result):
                    offset = request.position.offset
                elif request.recover and request.rejects_unrecovered:
                    self._channels.abort(joining.channel)
                    raise UNRECOVERABLE_POSITION.fresh()
            if offset:
                result["offset"] = offset
        elif request.recover:
            result = {"was_recovering": True}
        joining = joining._replace(delivery=plan.delivery)
        return Subscribed(request.channel, result, joining, plan.is_positioned)

    def _recover(
        self,
        request: SubscribeRequest,
        plan: SubscribePlan,
        joining: Joining,
        result: dict[str, Any],
    ) -> bool:
        assert joining.read is not None
        recover = recovery.from_cache if plan.newest else recovery.from_stream
        publications = recover(joining.read, request.position, plan.delivery)
        recovered = publications is not None
        self._counters.stream_reads["cut"] += joining.read.is_cut
        self._counters.recoveries["recovered" if recovered else "unrecovered"] += 1
        if recovered:
            result["recovered"] = True
            if publications:
                encode = publications_json if plan.delivery is None else plan.delivery.encoded
                result["publications"] = encode(publications)
                self._counters.messages_out += len(publications)
        return recovered

    async def prepare_server_side(
        self, channels: tuple[str, ...], recover_from: dict[str, Position], reader: object
    ) -> list[Subscribed]:
        """Prepare the subscriptions that the server has chosen: all of them, or none.

        Args:
            recover_from: the positions from which the client recovers, by channel.
            reader: the client, as in `prepare`.

        Raises:
            ClientError: as `prepare` does.
        """
        done: list[Subscribed] = []
        try:
            for channel in channels:
                position = recover_from.get(channel)
                done.append(
                    await self._prepare(
                        SubscribeRequest(
                            channel, "", position is not None, position or Position(0, ""),
                            True, True, False,
                        ),
                        self._permissions.options(channel),
                        reader,
                    )
                )  # fmt: skip
        except BaseException:
            for one in done:
                self._channels.abort(one.joining.channel)
            raise
        return done


def _delivery(
    request: SubscribeRequest, options: ChannelOptions, *, is_positioned: bool
) -> Delivery | None:
    """How the publications of a subscription are prepared.

    Deltas are not given together with a filter: what a subscriber got before would be its own.

    Raises:
        ClientError: 107 for a filter that is not allowed or wrong.
    """
    if request.tags_filter:
        if not options.allow_tags_filter:
            raise BAD_REQUEST.fresh()
        return FilteredDelivery(tags_filter.compiled(request.tags_filter))
    if request.delta and is_positioned and "fossil" in options.allowed_delta_types:
        return DeltaDelivery(options.delta_publish)
    return None
