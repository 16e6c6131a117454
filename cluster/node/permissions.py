"""What a client may do in a channel: the decision order of the protocol's section 9.3, as a table.

`ORDER` has the rules of each operation. The first one that returns a verdict decides; if none does, the
answer is 103. The options of a namespace allow nothing by default; with `client.insecure` everything is
allowed but a private channel without a token.

The verdicts of all callers are computed from the table once per namespace, so that a command costs two
look-ups. Names are parsed once, and the last `MOST_CHANNELS` of them are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from enum import Enum, IntEnum, StrEnum
from itertools import product
from typing import Final, NamedTuple, Protocol

from cluster import data_url, json_text
from cluster.broker import HistoryPolicy
from cluster.config import ChannelOptions, ChannelRegex, Config
from cluster.errors import (
    BAD_REQUEST,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    UNKNOWN_CHANNEL,
    ClientError,
)
from cluster.metrics.counters import Counters
from cluster.presence import PresenceMode

#: Parsed names that are kept: about 400 bytes each, 1.6 MiB together.
MOST_CHANNELS: Final = 4096
#: Longer names are parsed each time, so that what is kept is bounded.
MOST_KEPT_LENGTH: Final = 255


class Operation(StrEnum):
    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    HISTORY = "history"
    PRESENCE = "presence"


class Verdict(Enum):
    """BY_TOKEN: the subscription token decides, and nothing else."""

    ALLOWED = 0
    BY_TOKEN = 1
    NOT_AVAILABLE = 108
    DENIED = 103


# Looked up once: see `connection.actions`.
_ALLOWED: Final = Verdict.ALLOWED


class Listed(IntEnum):
    """Whether a user-limited channel, such as `dialog#42,43`, names the user."""

    NOT_LIMITED = 0
    YES = 1
    NO = 2


_LISTED: Final = len(Listed)


class Facts(NamedTuple):
    """What a decision depends on.

    Attributes:
        is_subscribed: whether the connection is subscribed to the channel.
        is_private: whether the channel's name begins with `channel.private_prefix`.
        has_token: whether a subscription token was presented.
        listed: for a channel of users, if the namespace has `allow_user_limited_channels`.
    """

    options: ChannelOptions
    is_insecure: bool
    is_anonymous: bool
    is_subscribed: bool = False
    is_private: bool = False
    has_token: bool = False
    listed: Listed = Listed.NOT_LIMITED


Rule = Callable[[Operation, Facts], Verdict | None]


class Grants(NamedTuple):
    """The options that allow an operation."""

    for_client: bool
    for_subscriber: bool
    for_anonymous: bool


def grants(operation: Operation, options: ChannelOptions) -> Grants:
    """The options of a namespace that allow an operation."""
    match operation:
        case Operation.SUBSCRIBE:
            return Grants(
                options.allow_subscribe_for_client, False, options.allow_subscribe_for_anonymous
            )
        case Operation.PUBLISH:
            return Grants(
                options.allow_publish_for_client,
                options.allow_publish_for_subscriber,
                options.allow_publish_for_anonymous,
            )
        case Operation.HISTORY:
            return Grants(
                options.allow_history_for_client,
                options.allow_history_for_subscriber,
                options.allow_history_for_anonymous,
            )
        case Operation.PRESENCE:
            return Grants(
                options.allow_presence_for_client,
                options.allow_presence_for_subscriber,
                options.allow_presence_for_anonymous,
            )


# --- the rules -------------------------------------------------------------------------------


def private_needs_token(_: Operation, facts: Facts) -> Verdict | None:
    return Verdict.DENIED if facts.is_private and not facts.has_token else None


def token(_: Operation, facts: Facts) -> Verdict | None:
    return Verdict.BY_TOKEN if facts.has_token else None


def user_limited(_: Operation, facts: Facts) -> Verdict | None:
    return Verdict.ALLOWED if facts.listed is Listed.YES else None


def feature_enabled(operation: Operation, facts: Facts) -> Verdict | None:
    options = facts.options
    if operation is Operation.HISTORY:
        is_enabled = options.history_size > 0 and options.history_ttl > 0
    else:
        is_enabled = options.presence
    return None if is_enabled else Verdict.NOT_AVAILABLE


def for_client(operation: Operation, facts: Facts) -> Verdict | None:
    allows = grants(operation, facts.options)
    if facts.listed is Listed.NO or (facts.is_anonymous and not allows.for_anonymous):
        return None
    return Verdict.ALLOWED if allows.for_client else None


def for_subscriber(operation: Operation, facts: Facts) -> Verdict | None:
    allows = grants(operation, facts.options)
    if not facts.is_subscribed or (facts.is_anonymous and not allows.for_anonymous):
        return None
    return Verdict.ALLOWED if allows.for_subscriber else None


def insecure(_: Operation, facts: Facts) -> Verdict | None:
    return Verdict.ALLOWED if facts.is_insecure else None


#: Section 9.3 of the protocol, operation by operation. A proxy's rule belongs before `for_client`.
ORDER: Final[Mapping[Operation, tuple[Rule, ...]]] = {
    Operation.SUBSCRIBE: (private_needs_token, token, user_limited, for_client, insecure),
    Operation.PUBLISH: (for_client, for_subscriber, insecure),
    Operation.HISTORY: (feature_enabled, for_client, for_subscriber, insecure),
    Operation.PRESENCE: (feature_enabled, for_client, for_subscriber, insecure),
}
#: Section 9.4: what a subscriber may ask for depends on what it may read, whether or not it is kept.
_MAY_READ: Final = (for_client, for_subscriber, insecure)


def decide(operation: Operation, facts: Facts, order: tuple[Rule, ...] | None = None) -> Verdict:
    """The verdict of the first rule that has one."""
    for rule in ORDER[operation] if order is None else order:
        verdict = rule(operation, facts)
        if verdict is not None:
            return verdict
    return Verdict.DENIED


# --- the verdicts of one namespace -----------------------------------------------------------


class _Verdicts:
    """What the table says for each kind of caller, and how the namespace keeps publications."""

    __slots__ = (
        "asks_history",
        "asks_presence",
        "history",
        "options",
        "others",
        "regex",
        "subscribe",
    )

    def __init__(self, options: ChannelOptions, *, is_insecure: bool) -> None:
        self.options = options
        has_history = options.history_size > 0 and options.history_ttl > 0
        self.history = HistoryPolicy(
            options.history_size if has_history else 0,
            int(options.history_ttl * 1000),
            int(options.history_meta_ttl * 1000),
        )
        self.regex = ChannelRegex(options.channel_regex) if options.channel_regex else None
        # In the order of the index in `ChannelAccess.subscribe`.
        self.subscribe = tuple(
            decide(
                Operation.SUBSCRIBE,
                Facts(options, is_insecure, is_anonymous, False, is_private, has_token, listed),
            )
            for is_anonymous, is_private, has_token, listed in product(
                (False, True), (False, True), (False, True), Listed
            )
        )
        self.others: dict[Operation, tuple[Verdict, ...]] = {
            operation: tuple(
                decide(operation, Facts(options, is_insecure, is_anonymous, is_subscribed))
                for is_anonymous, is_subscribed in product((False, True), (False, True))
            )
            for operation in ORDER
            if operation is not Operation.SUBSCRIBE
        }
        self.asks_history, self.asks_presence = (
            tuple(
                decide(operation, Facts(options, is_insecure, is_anonymous, True), _MAY_READ)
                is Verdict.ALLOWED
                for is_anonymous in (False, True)
            )
            for operation in (Operation.HISTORY, Operation.PRESENCE)
        )


class PermissionCaller(Protocol):
    """What is asked of the connection that wants to do something."""

    @property
    def user(self) -> str: ...

    @property
    def channels(self) -> Container[str]: ...


class ChannelAccess:
    """One channel: its options, and what a client may do there.

    Attributes:
        checks_data: whether the data of publications must be passed to `accepts`.
        verdicts: by operation, for a user, a subscriber, an anonymous user, an anonymous subscriber.
        users: the list of users at the end of the name of a user-limited channel; None in others.
    """

    __slots__ = (
        "_verdicts", "checks_data", "history", "is_private", "options", "users", "verdicts",
    )  # fmt: skip

    def __init__(
        self, verdicts: _Verdicts, *, is_private: bool, users: tuple[str, str] | None
    ) -> None:
        self._verdicts = verdicts
        self.options = verdicts.options
        self.history = verdicts.history
        self.verdicts = verdicts.others
        self.checks_data = verdicts.options.publication_data_format in ("json", "json_object")
        self.is_private = is_private
        self.users = users

    def subscribe(self, user: str, *, has_token: bool) -> Verdict:
        """Whether a user may subscribe."""
        listed = Listed.NOT_LIMITED
        if self.users is not None:
            listed = Listed.YES if self._lists(user) else Listed.NO
        index = (((not user) * 2 + self.is_private) * 2 + has_token) * _LISTED + listed
        return self._verdicts.subscribe[index]

    def _lists(self, user: str) -> bool:
        assert self.users is not None
        names, separator = self.users
        # An anonymous user has no id that a list could have.
        return bool(user) and (user in names.split(separator) if separator else user == names)

    def may_ask_history(self, user: str) -> bool:
        """Whether a subscriber may read the history, and so ask for a position and for recovery."""
        return self._verdicts.asks_history[not user]

    def may_ask_join_leave(self, user: str) -> bool:
        """Whether a subscriber may read the presence, and so ask for joins and leaves."""
        return self.options.join_leave and self._verdicts.asks_presence[not user]

    def accepts(self, data: bytes) -> bool:
        """Whether the data of a publication has the format that `publication_data_format` demands."""
        wanted = self._verdicts.options.publication_data_format
        if data.startswith(data_url.PREFIX):
            return False
        try:
            text = json_text.checked(data)
        except json_text.JsonTextInvalid:
            return False
        return wanted != "json_object" or text.lstrip().startswith(b"{")

    def accepts_body(self, body: bytes) -> bool:
        """The same for the body of a publication from the server: its data comes first, and is JSON."""
        data = body[body.index(b":") + 1 :]
        if data.startswith(data_url.PREFIX):
            return False
        is_object = data.lstrip().startswith(b"{")
        return is_object or self._verdicts.options.publication_data_format != "json_object"


class ChannelPermissions:
    """The options and permissions of every channel.

    Args:
        counters: counts what is refused.
    """

    def __init__(self, config: Config, counters: Counters) -> None:
        channel, is_insecure = config.channel, config.client.insecure
        self._counters = counters
        self._max_length = channel.max_length
        self._private_prefix = channel.private_prefix
        self._namespace_boundary = channel.namespace_boundary
        self._user_boundary = channel.user_boundary
        self._user_separator = channel.user_separator
        self._without_namespace = _Verdicts(channel.without_namespace, is_insecure=is_insecure)
        self._namespaces = {
            one.name: _Verdicts(one.options, is_insecure=is_insecure) for one in channel.namespaces
        }
        self._known: dict[str, ChannelAccess] = {}
        self._before: dict[str, ChannelAccess] = {}

    def access(self, channel: str) -> ChannelAccess:
        """What a channel's name and its namespace say.

        Raises:
            ClientError: 107 for a name too long, not ASCII, or against the `channel_regex`; 102 for an
                unknown namespace.
        """
        access = self._known.get(channel)
        if access is None:
            access = self._before.get(channel) or self._parsed(channel)
            if len(channel) <= MOST_KEPT_LENGTH:
                if len(self._known) >= MOST_CHANNELS // 2:
                    # Names that are in use come back from there; the others go with the next turn.
                    self._before, self._known = self._known, {}
                self._known[channel] = access
        return access

    def _parsed(self, channel: str) -> ChannelAccess:
        if not 0 < len(channel) <= self._max_length or not channel.isascii():
            raise BAD_REQUEST.fresh()
        prefix, boundary = self._private_prefix, self._namespace_boundary
        is_private = bool(prefix) and channel.startswith(prefix)
        verdicts, rest = self._without_namespace, channel
        if boundary and boundary in channel:
            public = channel.removeprefix(prefix) if prefix else channel
            namespace, is_found, rest = public.partition(boundary)
            if not is_found:
                rest = channel
            elif (found := self._namespaces.get(namespace)) is not None:
                verdicts = found
            else:
                raise UNKNOWN_CHANNEL.fresh()
        if verdicts.regex is not None and not verdicts.regex.search(rest):
            raise BAD_REQUEST.fresh()
        users = None
        limits_users = verdicts.options.allow_user_limited_channels and self._user_boundary
        if limits_users and self._user_boundary in channel:
            users = (channel.rpartition(self._user_boundary)[2], self._user_separator)
        return ChannelAccess(verdicts, is_private=is_private, users=users)

    def options(self, channel: str) -> ChannelOptions:
        """The options of a channel's namespace; raises as `access` does."""
        return self.access(channel).options

    def history(self, channel: str) -> HistoryPolicy:
        """How long the channel's stream keeps publications; raises as `access` does."""
        return self.access(channel).history

    def presence_mode(self, channel: str) -> PresenceMode:
        """What the channel does with its members; raises as `access` does."""
        options = self.options(channel)
        return PresenceMode(options.presence, options.join_leave)

    def allow(self, operation: Operation, channel: str, caller: PermissionCaller) -> ChannelAccess:
        """Allow a client to publish in a channel, or to read its history or presence.

        Raises:
            ClientError: 103 if nothing allows it, 108 if the namespace does not have it, or as `access` does.
        """
        access = self._known.get(channel) or self.access(channel)
        verdict = access.verdicts[operation][(not caller.user) * 2 + (channel in caller.channels)]
        if verdict is not _ALLOWED:
            raise self.refused(operation, verdict)
        return access

    def refused(self, operation: Operation, verdict: Verdict = Verdict.DENIED) -> ClientError:
        """Count a refusal; returns the error to raise."""
        if verdict is Verdict.NOT_AVAILABLE:
            return NOT_AVAILABLE.fresh()
        self._counters.permission_refusals[operation] += 1
        return PERMISSION_DENIED.fresh()

    def namespace(self, channel: str) -> str:
        """The namespace that a channel's name has, whether or not there is one; "" for none."""
        public = channel.removeprefix(self._private_prefix)
        if not self._namespace_boundary:
            return ""
        namespace, is_found, _ = public.partition(self._namespace_boundary)
        return namespace if is_found else ""

    def personal_channel(self, namespace: str, user: str) -> str:
        """The name of a user's personal channel."""
        prefix = f"{namespace}{self._namespace_boundary}" if namespace else ""
        return f"{prefix}{self._user_boundary}{user}"
