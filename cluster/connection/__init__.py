"""The protocol state machine of one connection (`state_machine`), its `intake` and its `actions`.

No socket, no clock, no Redis; see `state_machine` for its use and the order of commands.
"""

from __future__ import annotations

from cluster.connection.actions import (
    Action,
    Close,
    Connect,
    ExpiryDelays,
    History,
    Leave,
    Message,
    PresenceRead,
    Publish,
    Refresh,
    Rpc,
    Send,
    State,
    SubRefresh,
    Subscribe,
    Subscription,
    SubscriptionDetails,
    SubscriptionSource,
)
from cluster.connection.intake import COMMANDS_PER_TURN, CONGESTED_BYTES, CONGESTED_COMMANDS
from cluster.connection.state_machine import Connection, MessagingConnection

__all__ = [
    "COMMANDS_PER_TURN",
    "CONGESTED_BYTES",
    "CONGESTED_COMMANDS",
    "Action",
    "Close",
    "Connect",
    "Connection",
    "ExpiryDelays",
    "History",
    "Leave",
    "Message",
    "MessagingConnection",
    "PresenceRead",
    "Publish",
    "Refresh",
    "Rpc",
    "Send",
    "State",
    "SubRefresh",
    "Subscribe",
    "Subscription",
    "SubscriptionDetails",
    "SubscriptionSource",
]
