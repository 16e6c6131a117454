"""Applications in Python: handlers for what clients do, run in every worker.

- `declaration`: `Application`, which a program declares its handlers with.
- `handler_values`: what handlers get and return, and the errors that they raise.
- `client_handles`: the client and the session as handlers see them.
- `session_changes`: changes their sessions in the store.
- `handler_answers`: checks what they have returned.
- `handler_calls`: calls handlers, within their limits.
- `callbacks`: what the node calls when a client does something.
- `app_loading`: finds the application that `app.target` names.
- `http_errors`: the failures of its HTTP routes.
"""

from __future__ import annotations

from cluster.application.callbacks import ApplicationCallbacks
from cluster.application.client_handles import ApplicationClient, ApplicationSession
from cluster.application.declaration import Application
from cluster.application.handler_values import (
    ApplicationDisconnect,
    ApplicationError,
    ChannelMember,
    ConnectAnswer,
    Connecting,
    Disconnecting,
    PublishAnswer,
    Publishing,
    RefreshAnswer,
    Refreshing,
    StreamHistory,
    StreamPublication,
    SubRefreshing,
    SubscribeAnswer,
    Subscribing,
)

__all__ = [
    "Application",
    "ApplicationCallbacks",
    "ApplicationClient",
    "ApplicationDisconnect",
    "ApplicationError",
    "ApplicationSession",
    "ChannelMember",
    "ConnectAnswer",
    "Connecting",
    "Disconnecting",
    "PublishAnswer",
    "Publishing",
    "RefreshAnswer",
    "Refreshing",
    "StreamHistory",
    "StreamPublication",
    "SubRefreshing",
    "SubscribeAnswer",
    "Subscribing",
]
