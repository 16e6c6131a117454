"""A self-hosted WebSocket cluster: several workers behind one public port.

An application in Python imports what it needs from here: `Application` and the names beside it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cluster.application import Application as Application
    from cluster.application import ApplicationClient as ApplicationClient
    from cluster.application import ApplicationDisconnect as ApplicationDisconnect
    from cluster.application import ApplicationError as ApplicationError
    from cluster.application import ApplicationSession as ApplicationSession
    from cluster.application import ChannelMember as ChannelMember
    from cluster.application import ConnectAnswer as ConnectAnswer
    from cluster.application import Connecting as Connecting
    from cluster.application import Disconnecting as Disconnecting
    from cluster.application import PublishAnswer as PublishAnswer
    from cluster.application import Publishing as Publishing
    from cluster.application import RefreshAnswer as RefreshAnswer
    from cluster.application import Refreshing as Refreshing
    from cluster.application import StreamHistory as StreamHistory
    from cluster.application import StreamPublication as StreamPublication
    from cluster.application import SubRefreshing as SubRefreshing
    from cluster.application import SubscribeAnswer as SubscribeAnswer
    from cluster.application import Subscribing as Subscribing
    from cluster.errors import ClientError as ClientError
    from cluster.presence import PresenceStats as PresenceStats
    from cluster.protocol import Position as Position
    from cluster.sessions import SessionConflict as SessionConflict
    from cluster.sessions import SessionGone as SessionGone

__version__: Final = "0.1.0"

#: The names for applications, each with its module.
_EXPORTED: Final = {
    **dict.fromkeys(
        (
            "Application", "ApplicationClient", "ApplicationDisconnect", "ApplicationError",
            "ApplicationSession", "ChannelMember", "ConnectAnswer", "Connecting", "Disconnecting",
            "PublishAnswer", "Publishing", "RefreshAnswer", "Refreshing", "StreamHistory", "StreamPublication",
            "SubRefreshing", "SubscribeAnswer", "Subscribing",
        ),
        "cluster.application",
    ),
    "ClientError": "cluster.errors",
    "Position": "cluster.protocol",
    "PresenceStats": "cluster.presence",
    "SessionConflict": "cluster.sessions",
    "SessionGone": "cluster.sessions",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # Not at the top: the supervisor and the commands import this package too, and need no aiohttp.
    if name in _EXPORTED:
        return getattr(import_module(_EXPORTED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
