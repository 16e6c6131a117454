"""The protocol state machine of one connection (`state_machine`), its `intake` and its `actions`.

No socket, no clock, no Redis; see `state_machine` for its use and the order of commands.
"""

from __future__ import annotations

from cluster.connection.actions import (
    Action,
    Close,
    Connect,
    History,
    Leave,
    Message,
    Publish,
    Refresh,
    Rpc,
    Send,
    State,
    Subscribe,
    Subscription,
)
from cluster.connection.intake import COMMANDS_PER_TURN, CONGESTED_COMMANDS
from cluster.connection.state_machine import (
    EXPIRED_CLOSE_DELAY_SECONDS,
    Connection,
    MessagingConnection,
)

__all__ = [
    "COMMANDS_PER_TURN",
    "CONGESTED_COMMANDS",
    "EXPIRED_CLOSE_DELAY_SECONDS",
    "Action",
    "Close",
    "Connect",
    "Connection",
    "History",
    "Leave",
    "Message",
    "MessagingConnection",
    "Publish",
    "Refresh",
    "Rpc",
    "Send",
    "State",
    "Subscribe",
    "Subscription",
]
