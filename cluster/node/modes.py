"""How one subscription works: what its namespace forces, its client asks for, and a token overrides.

Section 9.4 of the protocol: a client may ask for a position or for recovery if the namespace allows it or
the client may read the history; and for joins and leaves if the namespace emits them and the client may
read the presence. What is not granted is off, without an error.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.auth import ChannelOverride
from cluster.node.permissions import ChannelAccess
from cluster.protocol import SubscribeRequest

_NO_OVERRIDE = ChannelOverride()


class SubscriptionModes(NamedTuple):
    """The modes of one subscription.

    Attributes:
        has_presence: whether the subscriber is in the channel's presence.
        emits_join_leave: whether others are told of its join and leave.
        gets_join_leave: whether it is told of others'.
    """

    is_positioned: bool
    is_recoverable: bool
    has_presence: bool
    emits_join_leave: bool
    gets_join_leave: bool


def modes(
    request: SubscribeRequest, access: ChannelAccess, user: str, override: ChannelOverride | None
) -> SubscriptionModes:
    """The modes of a user's subscription.

    Args:
        override: what a token says instead of the namespace's options; None for nothing.
    """
    options, over = access.options, override or _NO_OVERRIDE
    keeps_history = access.history.size > 0
    is_recoverable = keeps_history and (
        _either(over.force_recovery, options.force_recovery)
        or (request.recoverable and (options.allow_recovery or access.may_ask_history(user)))
    )
    is_positioned = keeps_history and (
        is_recoverable
        or _either(over.force_positioning, options.force_positioning)
        or (request.positioned and (options.allow_positioning or access.may_ask_history(user)))
    )
    return SubscriptionModes(
        is_positioned,
        is_recoverable,
        has_presence=_either(over.presence, options.presence),
        emits_join_leave=_either(over.join_leave, options.join_leave),
        gets_join_leave=_either(over.force_push_join_leave, options.force_push_join_leave)
        or (request.join_leave and access.may_ask_join_leave(user)),
    )


def _either(override: bool | None, option: bool) -> bool:
    return option if override is None else override
