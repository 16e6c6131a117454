"""What handlers have returned: checked, with data as JSON text, and times in whole seconds.

What passes here is used when a session, a place of the user and subscriptions are taken already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from cluster import json_text
from cluster.application.handler_values import (
    ConnectAnswer,
    HandlerRefusal,
    PublishAnswer,
    RefreshAnswer,
    SubscribeAnswer,
)
from cluster.auth import ChannelOverride, ServerSubscription, SubscriptionClaims
from cluster.errors import PERMISSION_DENIED


def _wrong(answer: Any, allowed: str) -> TypeError:
    return TypeError(f"the handler has returned {answer!r:.80}; it may return {allowed}")


def connect_answer(answer: Any) -> tuple[ConnectAnswer, bytes | None, dict[str, Any]] | None:
    if answer is None:
        return None
    if not isinstance(answer, ConnectAnswer):
        raise _wrong(answer, "a ConnectAnswer or None")
    if answer.user is not None:
        _demand_text("ConnectAnswer.user", answer.user)
    info = None if answer.info is None else json_text.of(answer.info)
    data: dict[str, Any] = {}
    for name, value in (answer.data or {}).items():
        _demand_text("a member's name in ConnectAnswer.data", name)
        if name == "session":
            raise ValueError('ConnectAnswer.data has a member "session", which is the server\'s')
        data[name] = orjson.Fragment(json_text.of(value))
    if answer.expires_at is not None:
        expires_at = _seconds("ConnectAnswer.expires_at", answer.expires_at)
        answer = replace(answer, expires_at=expires_at)
    if answer.channels is not None:
        answer = replace(answer, channels=_channels(answer.channels))
    if answer.subs:
        answer = replace(answer, subs=_subscriptions(answer.subs))
    if answer.meta is not None:
        answer = replace(answer, meta=_object(answer.meta))
    return answer, info, data


def _seconds(what: str, given: object) -> int:
    """A Unix time in whole seconds; only 0 itself is 0, which is never."""
    if type(given) is int or (isinstance(given, float) and math.isfinite(given)):
        return int(given) or int(given != 0)
    raise TypeError(f"{what} must be a finite number of Unix seconds, not {given!r:.80}")


def _demand_text(what: str, given: object) -> None:
    if not isinstance(given, str):
        raise TypeError(f"{what} must be text, not {given!r:.80}")
    given.encode()  # A lone surrogate cannot be sent.


def _channels(given: object) -> tuple[str, ...]:
    # The letters of a text would be channels, too.
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"ConnectAnswer.channels must be a list of names, not {given!r:.80}")
    channels = tuple(given)
    for channel in channels:
        _demand_text("each name in ConnectAnswer.channels", channel)
    return channels


def _subscriptions(given: object) -> dict[str, ServerSubscription]:
    if not isinstance(given, Mapping):
        raise TypeError(f"ConnectAnswer.subs must be subscriptions by name, not {given!r:.80}")
    for channel, one in given.items():
        _demand_text("each name in ConnectAnswer.subs", channel)
        if not isinstance(one, ServerSubscription):
            raise TypeError(f"ConnectAnswer.subs must be ServerSubscriptions, not {one!r:.80}")
        _demand_override("ServerSubscription.override", one.override)
    return {channel: _subscription(one) for channel, one in given.items()}


def _demand_override(what: str, given: object) -> None:
    if given is not None and not isinstance(given, ChannelOverride):
        raise TypeError(f"{what} must be a ChannelOverride or None, not {given!r:.80}")


def _subscription(given: ServerSubscription) -> ServerSubscription:
    info, data = (one if one == b"" else json_text.of(one) for one in (given.info, given.data))
    return given._replace(info=info, data=data)


def _object(meta: Any) -> bytes:
    text = meta if meta == b"" else json_text.of(meta)
    if text and not text.startswith(b"{"):
        raise TypeError(f"ConnectAnswer.meta must be an object, not {meta!r:.80}")
    return text


def refresh_answer(answer: Any) -> RefreshAnswer | None:
    if answer is None:
        return None
    if not isinstance(answer, RefreshAnswer):
        raise _wrong(answer, "a RefreshAnswer or None")
    info = None if answer.info is None else json_text.of(answer.info)
    return RefreshAnswer(_seconds("RefreshAnswer.expires_at", answer.expires_at), info)


def subscribe_answer(answer: Any, channel: str, user: str) -> SubscriptionClaims | None:
    if isinstance(answer, SubscribeAnswer):
        info, data = (
            b"" if one is None else json_text.of(one) for one in (answer.info, answer.data)
        )
        expires_at = _seconds("SubscribeAnswer.expires_at", answer.expires_at)
        _demand_override("SubscribeAnswer.override", answer.override)
        return SubscriptionClaims(
            channel, user, "", info, data, answer.override, expires_at,
            is_refreshed_by_server=answer.refreshed_by_server,
        )  # fmt: skip
    if answer is False:
        raise HandlerRefusal(PERMISSION_DENIED)
    if answer is not None and answer is not True:
        raise _wrong(answer, "a SubscribeAnswer, True, False or None")
    return SubscriptionClaims(channel, user, "", b"", b"", None, 0) if answer else None


def publish_answer(answer: Any, data: bytes) -> tuple[bytes, bool] | None:
    if isinstance(answer, PublishAnswer):
        text = data if answer.data is None else json_text.of(answer.data)
        return text, answer.skip_history
    if answer is False:
        raise HandlerRefusal(PERMISSION_DENIED)
    if answer is not None and answer is not True:
        raise _wrong(answer, "a PublishAnswer, True, False or None")
    return (data, False) if answer else None


def rpc_result(answer: Any) -> dict[str, Any]:
    return {"data": orjson.Fragment(json_text.of(answer))}
