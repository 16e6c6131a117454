"""Prepares subscriptions: what a subscribe asks for, as far as its channel allows, and what was missed.

A prepared subscription ends in `Channels.join` or `Channels.abort`, with nothing awaited between.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from cluster.application import ApplicationCallbacks
from cluster.application.client_handles import HandledClient
from cluster.broker import HistoryPolicy
from cluster.config import ChannelOptions, Config
from cluster.errors import UNRECOVERABLE_POSITION
from cluster.metrics.counters import Counters
from cluster.node.channels import Channels, Joining, RecoveryLimits
from cluster.node.permissions import ChannelPermissions
from cluster.protocol import Position, SubscribeRequest, publications_json


class Subscribed(NamedTuple):
    """A subscribe that has worked: its reply, and the joiner to be joined after it."""

    channel: str
    result: dict[str, Any]
    joining: Joining
    is_positioned: bool


class SubscribePlan(NamedTuple):
    """What a subscribe asks for, as far as its channel allows it."""

    policy: HistoryPolicy
    is_positioned: bool
    is_recoverable: bool
    recover_from: Position | None


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
        #: Set by the node if the worker runs an application.
        self.application: ApplicationCallbacks | None = None
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
        if self.application is not None and self.application.decides_subscribe(request):
            return None
        self._permissions.allow(request.channel)
        plan = self._plan(request, options)
        joining = self._channels.begin_now(request.channel, plan.policy, plan.recover_from)
        return self._prepared(request, plan, joining) if joining is not None else None

    async def prepare(self, request: SubscribeRequest, reader: HandledClient) -> Subscribed:
        """Prepare a subscription: `join` or `abort` follows, with nothing awaited between.

        Args:
            reader: the client that subscribes; what it recovers waits for its turn (`StreamReads`).

        Raises:
            ClientError: 102, 103, 107 as the channel's namespace says; 112 when recovery is impossible and
                the client wants to know; 100 when the store is away; what the application's handler raises.
            Disconnect: what that handler raises.
        """
        options = self._permissions.options(request.channel)
        data: bytes | None = None
        if self.application is not None and self.application.decides_subscribe(request):
            data = await self.application.subscribing(reader, request.channel)
        if data is None:
            self._permissions.allow(request.channel)
        subscribed = await self._prepare(request, options, reader)
        if data:
            subscribed.result["data"] = orjson.Fragment(data)
        return subscribed

    async def _prepare(
        self, request: SubscribeRequest, options: ChannelOptions, reader: object
    ) -> Subscribed:
        plan = self._plan(request, options)
        joining = await self._channels.begin(
            request.channel, plan.policy, plan.recover_from, self._limits, reader
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
        recovers = request.recover and is_recoverable
        return SubscribePlan(
            policy, is_positioned, is_recoverable, request.position if recovers else None
        )

    def _prepared(
        self, request: SubscribeRequest, plan: SubscribePlan, joining: Joining
    ) -> Subscribed:
        result: dict[str, Any] = {}
        if plan.is_positioned and joining.read is not None:
            result = {"positioned": True, "epoch": joining.read.top.epoch}
            if plan.is_recoverable:
                result["recoverable"] = True
            offset = joining.read.top.offset
            if plan.recover_from is not None:
                result["was_recovering"] = True
                if self._recover(request, joining, result):
                    offset = request.position.offset
                elif request.rejects_unrecovered:
                    self._channels.abort(joining.channel)
                    raise UNRECOVERABLE_POSITION.fresh()
            if offset:
                result["offset"] = offset
        elif request.recover:
            result = {"was_recovering": True}
        return Subscribed(request.channel, result, joining, plan.is_positioned)

    def _recover(self, request: SubscribeRequest, joining: Joining, result: dict[str, Any]) -> bool:
        assert joining.read is not None
        top, publications, is_cut = joining.read
        position = request.position
        is_same_epoch = not position.epoch or position.epoch == top.epoch
        if publications:
            is_whole = (
                publications[0].offset == position.offset + 1
                and publications[-1].offset == top.offset
            )
        else:
            is_whole = top.offset == position.offset
        recovered = is_same_epoch and is_whole
        self._counters.stream_reads["cut"] += is_cut
        self._counters.recoveries["recovered" if recovered else "unrecovered"] += 1
        if recovered:
            result["recovered"] = True
            if publications:
                result["publications"] = publications_json(publications)
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
