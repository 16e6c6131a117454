"""What the server tells one client about its subscriptions and its connection, as JSON documents."""

from __future__ import annotations

from typing import Any

import orjson

from cluster.errors import Unsubscribe


def unsubscribe_push(channel: str, why: Unsubscribe) -> bytes:
    """Encode the push for a subscription that the server ended."""
    body = {"code": why.code, "reason": why.reason}
    return orjson.dumps({"push": {"channel": channel, "unsubscribe": body}})


def subscribe_push(channel: str, result: dict[str, Any]) -> bytes:
    """Encode the push for a subscription that the server made."""
    return orjson.dumps({"push": {"channel": channel, "subscribe": result}})


def refresh_push(ttl: int) -> bytes:
    """Encode the push for an expiry that the server has set: in so many seconds, 0 for never."""
    return (
        b'{"push":{"refresh":{"expires":true,"ttl":%d}}}' % ttl
        if ttl
        else b'{"push":{"refresh":{}}}'
    )


def message_push(data: Any) -> bytes:
    """Encode a message of the server to one connection."""
    return orjson.dumps({"push": {"message": {"data": data}}})
