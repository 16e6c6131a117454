"""The methods of the client protocol and of the server HTTP API: the one table of their names.

The protocol's codec, the connection's handlers and the metrics' labels use this table; a test keeps
them equal. Source: the request fields of `Command` in centrifugal/protocol `client.proto`.
"""

from __future__ import annotations

from typing import Final

#: In the order in which a command with several request keys is read.
METHODS: Final = (
    "connect",
    "ping",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "rpc",
    "send",
    "refresh",
    "sub_refresh",
)

#: Of the server HTTP API; `cluster.api.method_table` says what each of them takes.
API_METHODS: Final = (
    "publish",
    "broadcast",
    "subscribe",
    "unsubscribe",
    "disconnect",
    "refresh",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "connections",
    "info",
    "rpc",
    "batch",
    "revoke_token",
    "invalidate_user_tokens",
    "block_user",
    "unblock_user",
)
