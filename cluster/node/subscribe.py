"""Prepares subscriptions: what a subscribe asks for, as far as its channel allows, and what was missed.

A prepared subscription ends in `Channels.join` or `Channels.abort`, with nothing awaited between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from cluster import tags_filter
from cluster.application import ApplicationCallbacks
from cluster.application.client_handles import HandledClient
from cluster.auth import ChannelOverride, SubscriptionClaims
from cluster.broker import HistoryPolicy
from cluster.codec import Codec
from cluster.config import ChannelOptions, Config
from cluster.connection import Connection, SubscriptionDetails, SubscriptionSource
from cluster.delta_groups import DeltaDelivery
from cluster.errors import (
    BAD_REQUEST,
    CONNECTION_CLOSED,
    TOO_MANY_REQUESTS,
    UNRECOVERABLE_POSITION,
)
from cluster.metrics.counters import Counters
from cluster.node import recovery
from cluster.node.channels import JOIN_SECONDS, Channels, Joining, RecoveryLimits
from cluster.node.members import Membership, membership_of
from cluster.node.modes import SubscriptionModes, modes
from cluster.node.permissions import ChannelAccess, ChannelPermissions, Operation, Verdict
from cluster.node.server_side import ServerSide
from cluster.node.subscription_tokens import SubscriptionTokens, add_token
from cluster.presence import PresenceMode
from cluster.protocol import Position, SubscribeRequest, publications_json
from cluster.subscriber_groups import Delivery, EncodedDelivery, FilteredDelivery

#: Server-side subscriptions of one connect that are prepared at a time.
_AT_A_TIME: Final = 16


class Subscribed(NamedTuple):
    """A subscribe that has worked: its reply, and the joiner to be joined after it."""

    channel: str
    result: dict[str, Any]
    joining: Joining
    modes: SubscriptionModes
    source: SubscriptionSource = SubscriptionSource.CLIENT
    details: SubscriptionDetails | None = None

    @property
    def is_positioned(self) -> bool:
        return self.modes.is_positioned


class SubscribePlan(NamedTuple):
    """What a subscribe asks for, as far as its channel allows it.

    Attributes:
        newest: how many of the newest publications are read to recover the last one, instead of those
            after `recover_from`; 0 if it recovers from the stream.
        delivery: how its publications are prepared, None if it gets them as they are.
    """

    policy: HistoryPolicy
    modes: SubscriptionModes
    recover_from: Position | None
    newest: int = 0
    delivery: Delivery | None = None
    membership: Membership | None = None

    @property
    def is_positioned(self) -> bool:
        return self.modes.is_positioned

    @property
    def is_recoverable(self) -> bool:
        return self.modes.is_recoverable


class SubscriptionBuilder:
    """Prepares the subscriptions of one worker's clients."""

    def __init__(
        self,
        config: Config,
        permissions: ChannelPermissions,
        channels: Channels,
        counters: Counters,
        tokens: SubscriptionTokens,
    ) -> None:
        self._tokens = tokens
        self._permissions = permissions
        self._channels = channels
        self._counters = counters
        #: Set by the node if the worker runs an application.
        self.application: ApplicationCallbacks | None = None
        # A reply that fills the client's queue would have it closed as slow, again and again.
        self._limits = RecoveryLimits(
            config.client.recovery_max_publication_limit, config.client.queue_max_size // 2
        )

    def prepare(
        self, request: SubscribeRequest, reader: HandledClient, connection: Connection
    ) -> Subscribed | Coroutine[Any, Any, Subscribed]:
        """Prepare a subscription: `join` or `abort` follows, with nothing awaited between.

        Args:
            reader: the client that subscribes; what it recovers waits for its turn (`StreamReads`).

        Returns:
            The subscription if nothing of the store is needed, or else the rest of the work.

        Raises:
            ClientError: 102, 103, 107 as the channel's namespace says; 112 when recovery is impossible and
                the client wants to know; 100 when the store is away; 111 when its turn to recover does not
                come; 103, 109, 110 for its token; what the application's handler raises.
            Disconnect: 3500 for a token for another channel, user or client; what that handler raises; 3000
                when the client has gone meanwhile.
        """
        access = self._permissions.access(request.channel)
        claims: SubscriptionClaims | None = None
        if request.token:
            claims = self._tokens.granted_now(request, connection)
            if claims is None:
                return self._prepared_later(request, access, reader, connection)
        elif self._asks_application(request, access):
            return self._prepared_later(request, access, reader, connection)
        else:
            self._check(access, connection)
        plan = self._token_plan(request, access, connection, claims)
        subscribed = self._begun_now(request, plan, claims)
        return subscribed or self._begun(request, plan, reader, claims)

    async def _prepared_later(
        self,
        request: SubscribeRequest,
        access: ChannelAccess,
        reader: HandledClient,
        connection: Connection,
    ) -> Subscribed:
        """Prepare what the application decides, or a token whose key must be read first."""
        claims: SubscriptionClaims | None
        if request.token:
            claims = await self._tokens.granted(request, connection)
        else:
            assert self.application is not None
            claims = await self.application.subscribing(reader, request)
            if claims is None:
                self._check(access, connection)
        plan = self._token_plan(request, access, connection, claims)
        return await self._begun(request, plan, reader, claims)

    def _token_plan(
        self,
        request: SubscribeRequest,
        access: ChannelAccess,
        connection: Connection,
        claims: SubscriptionClaims | None,
    ) -> SubscribePlan:
        user, codec = connection.user, connection.codec
        if claims is None:
            return self._plan(request, access, user, codec)
        return self._plan(request, access, user, codec, claims.override, claims.info)

    def _asks_application(self, request: SubscribeRequest, access: ChannelAccess) -> bool:
        application = self.application
        return application is not None and application.decides_subscribe(
            request, is_private=access.is_private
        )

    def _check(self, access: ChannelAccess, connection: Connection) -> None:
        if access.subscribe(connection.user, has_token=False) is not Verdict.ALLOWED:
            raise self._permissions.refused(Operation.SUBSCRIBE)

    def _begun_now(
        self,
        request: SubscribeRequest,
        plan: SubscribePlan,
        claims: SubscriptionClaims | None = None,
    ) -> Subscribed | None:
        if plan.newest:
            return None
        joining = self._channels.begin_now(request.channel, plan.policy, plan.recover_from)
        return self._prepared(request, plan, joining, claims) if joining is not None else None

    async def _begun(
        self,
        request: SubscribeRequest,
        plan: SubscribePlan,
        reader: object,
        claims: SubscriptionClaims | None = None,
    ) -> Subscribed:
        joining = await self._channels.begin(
            request.channel, plan.policy, plan.recover_from, self._limits, reader, plan.newest
        )
        return self._prepared(request, plan, joining, claims)

    def _plan(
        self,
        request: SubscribeRequest,
        access: ChannelAccess,
        user: str,
        codec: Codec,
        override: ChannelOverride | None = None,
        chan_info: bytes = b"",
    ) -> SubscribePlan:
        its_modes, options = modes(request, access, user, override), access.options
        is_cache = options.force_recovery_mode == "cache"
        recovers = its_modes.is_recoverable and (
            request.recover or (is_cache and options.auto_cache_recover)
        )
        delivery = _delivery(request, options, codec, is_positioned=its_modes.is_positioned)
        newest = self._limits.publications if delivery is not None and delivery.selects else 1
        return SubscribePlan(
            access.history,
            its_modes,
            request.position if recovers else None,
            newest if recovers and is_cache else 0,
            delivery,
            _membership(its_modes, chan_info),
        )

    def _prepared(
        self,
        request: SubscribeRequest,
        plan: SubscribePlan,
        joining: Joining,
        claims: SubscriptionClaims | None,
    ) -> Subscribed:
        try:
            return self._described(request, plan, joining, claims)
        except BaseException:
            self._channels.abort(joining.channel, joining.start)
            raise

    def _described(
        self,
        request: SubscribeRequest,
        plan: SubscribePlan,
        joining: Joining,
        claims: SubscriptionClaims | None,
    ) -> Subscribed:
        result: dict[str, Any] = {}
        if plan.is_positioned and joining.read is not None:
            result = {"positioned": True, "epoch": joining.read.top.epoch}
            if plan.is_recoverable:
                result["recoverable"] = True
            if isinstance(plan.delivery, DeltaDelivery):
                result["delta"] = True
            offset = joining.read.top.offset
            if request.recover or plan.recover_from is not None:
                result["was_recovering"] = True
            if plan.recover_from is not None:
                if self._recover(request, plan, joining, result):
                    offset = request.position.offset
                elif request.recover and request.rejects_unrecovered:
                    raise UNRECOVERABLE_POSITION.fresh()
            if offset:
                result["offset"] = offset
        elif request.recover:
            result = {"was_recovering": True}
        if plan.delivery is not None or plan.membership is not None:
            joining = joining._replace(membership=plan.membership, delivery=plan.delivery)
        details = None
        if claims is not None:
            asks_proxy = self._permissions.options(request.channel).sub_refresh_proxy_enabled
            details = add_token(
                result, claims, has_token=bool(request.token), asks_proxy=asks_proxy
            )
        return Subscribed(request.channel, result, joining, plan.modes, details=details)

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
        self,
        wanted: Sequence[ServerSide],
        recover_from: Mapping[str, Position | None],
        user: str,
        reader: object,
        codec: Codec,
    ) -> list[Subscribed]:
        """Prepare the subscriptions that the server has chosen: all of them, or none.

        Args:
            recover_from: the positions from which the client recovers, by channel.
            user: of the client.
            reader: the client, as in `prepare`.
            codec: what it speaks.

        Raises:
            ClientError: as `prepare` does; 111 when it takes longer than `JOIN_SECONDS`.
            Disconnect: 3000 when the client has gone meanwhile.
        """
        done: dict[str, Subscribed] = {}

        async def prepare(one: ServerSide) -> None:
            request = _server_side_request(one, recover_from.get(one.channel))
            access = self._permissions.access(one.channel)
            plan = self._plan(request, access, user, codec, one.grant.override, one.grant.info)
            subscribed = self._begun_now(request, plan) or await self._begun(request, plan, reader)
            if one.grant.data:
                subscribed.result["data"] = orjson.Fragment(one.grant.data)
            details = SubscriptionDetails(one.grant.info, 0) if one.grant.info else None
            done[one.channel] = subscribed._replace(source=one.source, details=details)

        try:
            async with asyncio.timeout(JOIN_SECONDS):
                await _some_at_a_time(wanted, prepare)
            return _all_of(wanted, done)
        except BaseException as error:
            for subscribed in done.values():
                self._channels.abort(subscribed.joining.channel, subscribed.joining.start)
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            if isinstance(error, TimeoutError):
                raise TOO_MANY_REQUESTS.fresh() from None
            raise


async def _some_at_a_time(
    wanted: Sequence[ServerSide], prepare: Callable[[ServerSide], Coroutine[Any, Any, None]]
) -> None:
    for first in range(0, len(wanted), _AT_A_TIME):
        async with asyncio.TaskGroup() as group:
            for one in wanted[first : first + _AT_A_TIME]:
                group.create_task(prepare(one))


def _all_of(wanted: Sequence[ServerSide], done: Mapping[str, Subscribed]) -> list[Subscribed]:
    if len(done) < len(wanted):
        # A group of tasks takes no notice of one that was cancelled alone.
        raise CONNECTION_CLOSED.fresh()
    return [done[one.channel] for one in wanted]


def _membership(its_modes: SubscriptionModes, chan_info: bytes) -> Membership | None:
    """What the subscription is in its channel; None where nobody is told of members."""
    if not (its_modes.has_presence or its_modes.emits_join_leave):
        return None
    mode = PresenceMode(its_modes.has_presence, its_modes.emits_join_leave)
    return membership_of(mode, gets_pushes=its_modes.gets_join_leave, chan_info=chan_info)


def _server_side_request(one: ServerSide, position: Position | None) -> SubscribeRequest:
    # A session's channels are recovered where the client could ask for it; others where it is forced.
    asks = one.source is SubscriptionSource.SESSION
    return SubscribeRequest(
        one.channel, "", position is not None, position or Position(0, ""), asks, asks, False
    )


def _delivery(
    request: SubscribeRequest, options: ChannelOptions, codec: Codec, *, is_positioned: bool
) -> Delivery | None:
    """How the publications of a subscription are prepared.

    Deltas are not given together with a filter: what a subscriber got before would be its own.

    Raises:
        ClientError: 107 for a filter that is not allowed or wrong.
    """
    if request.tags_filter:
        if not options.allow_tags_filter:
            raise BAD_REQUEST.fresh()
        return FilteredDelivery(tags_filter.compiled(request.tags_filter), codec)
    if request.delta and is_positioned and "fossil" in options.allowed_delta_types:
        return DeltaDelivery(options.delta_publish, codec)
    return None if codec.is_json else EncodedDelivery(codec)
