"""Which channels the server subscribes a connection to when it connects, and on whose behalf.

A channel comes from the connection's token, is the user's personal one, is a channel of its session, or
was asked for in the `subs` of the connect command: an SDK lists there what it had before. The first of
these that names a channel is its source, and a session's changes end only what came from the session.

A session may outlive the namespace of a channel that it has: such a channel is left out, and stays in the
session, because the next configuration may have it again.

Source: sections 2.1, 7 and 9.1 of the protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from cluster.auth import Claims, ServerSubscription
from cluster.config import Config
from cluster.connection import Subscription, SubscriptionSource
from cluster.errors import BAD_REQUEST_CLOSE, CHANNEL_LIMIT, UNKNOWN_CHANNEL, ClientError
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.permissions import ChannelPermissions, Verdict

log = get_logger()

_PLAIN = ServerSubscription()
_NAMESPACES_LOGGED: Final = 100


class ServerSide(NamedTuple):
    """One subscription that the server makes."""

    channel: str
    source: SubscriptionSource
    grant: ServerSubscription = _PLAIN


class ServerSideChannels:
    """Finds the server-side channels of connections.

    Attributes:
        has_personal: whether every user has a personal channel.
        closes_others: whether a connect closes the user's other connections.
    """

    def __init__(self, config: Config, permissions: ChannelPermissions, counters: Counters) -> None:
        personal = config.client.subscribe_to_user_personal_channel
        self.has_personal = personal.enabled
        self.closes_others = personal.enabled and personal.single_connection
        self._personal_namespace = personal.personal_channel_namespace
        self._limit = config.client.channel_limit
        self._permissions = permissions
        self._counters = counters
        self._namespace_boundary = config.channel.namespace_boundary
        self._logged: set[str] = set()

    def personal(self, user: str) -> str:
        """The personal channel of a user."""
        return self._permissions.personal_channel(self._personal_namespace, user)

    def of_claims(self, claims: Claims) -> dict[str, ServerSide]:
        """The channels of the token, and the user's personal one.

        Raises:
            ClientError: 102, 107 as the channel's name and namespace say.
            Disconnect: 3505 for more than `client.channel_limit`.
        """
        token = SubscriptionSource.TOKEN
        subs: Mapping[str, ServerSubscription] = claims.subs or dict.fromkeys(
            claims.channels, _PLAIN
        )
        wanted = {channel: ServerSide(channel, token, grant) for channel, grant in subs.items()}
        if self.has_personal and claims.user:
            channel = self.personal(claims.user)
            wanted.setdefault(channel, ServerSide(channel, SubscriptionSource.PERSONAL))
        if len(wanted) > self._limit:
            raise CHANNEL_LIMIT.fresh()
        for channel in wanted:
            self._permissions.access(channel)
        return wanted

    def all(
        self,
        granted: Mapping[str, ServerSide],
        session: Iterable[str],
        asked: Iterable[str],
        user: str,
    ) -> list[ServerSide]:
        """All server-side channels of a connection.

        Args:
            granted: what `of_claims` returned.
            session: the channels of the session; they do not count for `client.channel_limit`, and those
                that the configuration has no more are left out.
            asked: the channels in the `subs` of the connect command; those that the user may not
                subscribe to without a token are left out.

        Raises:
            Disconnect: 3501 for an unknown namespace among `asked`, 3505 for too many channels.
        """
        wanted = dict(granted)
        left_out: set[str] = set()
        for channel in session:
            if channel in wanted:
                continue
            if self.is_possible(channel):
                wanted[channel] = ServerSide(channel, SubscriptionSource.SESSION)
            else:
                left_out.add(channel)
        self._counters.session_channels_left_out += len(left_out)
        of_session = len(wanted) - len(granted)
        for channel in asked:
            if channel in wanted or channel in left_out:
                continue
            if self._may_have(channel, user):
                wanted[channel] = ServerSide(channel, SubscriptionSource.REQUEST)
        if len(wanted) - of_session > self._limit:
            raise CHANNEL_LIMIT.fresh()
        return list(wanted.values())

    def is_possible(self, channel: str) -> bool:
        """Whether the configuration has a channel of a session; its namespace is logged once if not."""
        try:
            self._permissions.access(channel)
        except ClientError as error:
            boundary = self._namespace_boundary
            namespace = channel.partition(boundary)[0] if boundary and boundary in channel else ""
            if namespace not in self._logged and len(self._logged) < _NAMESPACES_LOGGED:
                self._logged.add(namespace)
                log.warning("session_channel_left_out", namespace=namespace, reason=error.message)
            return False
        return True

    def _may_have(self, channel: str, user: str) -> bool:
        try:
            access = self._permissions.access(channel)
        except ClientError as error:
            if error == UNKNOWN_CHANNEL:
                raise BAD_REQUEST_CLOSE.fresh() from None
            return False
        return access.subscribe(user, has_token=False) is Verdict.ALLOWED


def has_changed(claims: Claims, subscriptions: Mapping[str, Subscription]) -> bool:
    """Whether a new token names other channels than those that the connection has of its token."""
    has = {
        channel for channel, one in subscriptions.items() if one.source is SubscriptionSource.TOKEN
    }
    return has != set(claims.subs or claims.channels)
