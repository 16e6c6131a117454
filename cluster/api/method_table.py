"""What each method of the server API takes and returns: the one table.

The reader of requests (`request_params`), the OpenAPI document (`openapi`) and the permissions of keys
(`api_keys`) are made of it; a test keeps the methods and this table equal.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

Kind = Literal["string", "boolean", "integer", "strings", "tags", "position", "object", "json"]
Schema = dict[str, Any]

#: JSON's numbers are exact up to here (RFC 8259 §6), and Lua's.
LARGEST_INTEGER: Final = 2**53 - 1


class Param(NamedTuple):
    """One member of a request; null counts as absent.

    Attributes:
        kind: `json` is any JSON, which stays text; `position` has `offset` and `epoch`.
        least: of an integer.
        may_be_empty: whether a string may be "".
    """

    name: str
    kind: Kind
    text: str
    is_required: bool = False
    least: int = 0
    may_be_empty: bool = True


class ApiMethod(NamedTuple):
    """One method.

    Attributes:
        result: the schema of its result.
        is_readable: whether GET answers it too.
    """

    text: str
    params: tuple[Param, ...]
    result: Schema
    is_readable: bool = False


def _object(*required: str, **members: Schema) -> Schema:
    schema: Schema = {"type": "object", "properties": members}
    return {**schema, "required": list(required)} if required else schema


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _map(of: Schema) -> Schema:
    return {"type": "object", "additionalProperties": of}


_STRING: Final = {"type": "string"}
_INTEGER: Final = {"type": "integer"}
_BOOLEAN: Final = {"type": "boolean"}
_NUMBER: Final = {"type": "number"}
_ANY: Final[Schema] = {}
_EMPTY: Final = _object()
ERROR: Final = _object("code", "message", code=_INTEGER, message=_STRING)
_PUBLISHED: Final = _object(offset=_INTEGER, epoch=_STRING)
_CLIENT_INFO: Final = _object(
    "user", "client", user=_STRING, client=_STRING, conn_info=_ANY, chan_info=_ANY
)
_PUBLICATION: Final = _object(
    "data", data=_ANY, info=_CLIENT_INFO, offset=_INTEGER, tags=_map(_STRING), epoch=_STRING
)
_MISSING: Final = _INTEGER
_METRICS: Final = _object(interval=_NUMBER, items=_map(_NUMBER))
_PROCESS: Final = _object(cpu=_NUMBER, rss=_INTEGER)
_NODE: Final = _object(
    "uid", "name",
    uid=_STRING, name=_STRING, version=_STRING, num_clients=_INTEGER, num_users=_INTEGER,
    num_channels=_INTEGER, num_subs=_INTEGER, uptime=_INTEGER, metrics=_METRICS,
    process=_PROCESS,
)  # fmt: skip
_CONNECTION: Final = _object(
    "user", "node",
    user=_STRING, node=_STRING, app_name=_STRING, app_version=_STRING, transport=_STRING,
    protocol=_STRING, session=_STRING, num_channels=_INTEGER, expire_at=_INTEGER,
    state=_object(channels=_map(_object())),
)  # fmt: skip


def _name(name: str, text: str) -> Param:
    """A member that is needed, and names something."""
    return Param(name, "string", text, is_required=True, may_be_empty=False)


_CHANNEL: Final = _name("channel", "the channel")
#: The anonymous ones have no tokens and no user that could be looked up.
_KNOWN_USER: Final = _name("user", "the user")
_USER: Final = Param("user", "string", "the user; empty is the anonymous ones", is_required=True)
_CLIENT: Final = Param("client", "string", "only the connection with this id")
_SESSION: Final = Param("session", "string", "only the connections of this session")
_UNTIL: Final = Param("expire_at", "integer", "Unix time until which this holds; 0 is for ever")
_DATA: Final = (
    Param("data", "json", "the data, as any JSON"),
    Param("b64data", "string", "the data, as base64 of JSON text or of bytes; instead of `data`"),
)
_OPTIONS: Final = (
    Param("tags", "tags", "strings by name, which go with the publication"),
    Param("skip_history", "boolean", "send it to the subscribers only"),
    Param("idempotency_key", "string", "publish only once with this key"),
    Param("delta", "boolean", "send it as a delta where that was negotiated"),
    Param("version", "integer", "publish only if the last version is lower"),
    Param("version_epoch", "string", "a version of another epoch is a new one"),
)

API_TABLE: Final[dict[str, ApiMethod]] = {
    "publish": ApiMethod("Publish in a channel.", (_CHANNEL, *_DATA, *_OPTIONS), _PUBLISHED),
    "broadcast": ApiMethod(
        "Publish the same in many channels.",
        (Param("channels", "strings", "the channels", is_required=True), *_DATA, *_OPTIONS),
        _object("responses", responses=_list(_object(result=_PUBLISHED, error=ERROR))),
    ),
    "subscribe": ApiMethod(
        "Subscribe a user's connections and sessions to a channel.",
        (
            _USER,
            _CHANNEL,
            _CLIENT,
            _SESSION,
            Param("info", "json", "what others see as `chan_info`"),
            Param("b64info", "string", "the same, as base64 of its JSON text"),
            *_DATA,
            Param("recover_since", "position", "send what was published since"),
            Param("expire_at", "integer", "Unix time at which the subscription ends"),
            Param("override", "object", "options of the channel for this subscription"),
        ),
        _EMPTY,
    ),
    "unsubscribe": ApiMethod(
        "End a user's subscriptions to a channel.", (_USER, _CHANNEL, _CLIENT, _SESSION), _EMPTY
    ),
    "disconnect": ApiMethod(
        "Close a user's connections.",
        (
            _USER,
            _CLIENT,
            _SESSION,
            Param("whitelist", "strings", "ids of connections that stay"),
            Param("disconnect", "object", "`code` from 3000 to 4999 and `reason` of the close"),
        ),
        _EMPTY,
    ),
    "refresh": ApiMethod(
        "Give a user's connections a new expiry.",
        (
            _USER,
            _CLIENT,
            _SESSION,
            Param("expired", "boolean", "they have expired: close them with 3005"),
            Param("expire_at", "integer", "Unix time of their expiry; 0 is never"),
            Param("info", "json", "what others see as `conn_info`"),
        ),
        _EMPTY,
    ),
    "presence": ApiMethod(
        "Who is in a channel.",
        (_CHANNEL,),
        _object("presence", presence=_map(_CLIENT_INFO)),
    ),
    "presence_stats": ApiMethod(
        "How many are in a channel.",
        (_CHANNEL,),
        _object("num_clients", "num_users", num_clients=_INTEGER, num_users=_INTEGER),
    ),
    "history": ApiMethod(
        "Read a channel's publications.",
        (
            _CHANNEL,
            Param("limit", "integer", "at most so many; -1 is all, 0 is none", least=-1),
            Param("since", "position", "those after this position; backward, those before it"),
            Param("reverse", "boolean", "the newest first"),
        ),
        _object(
            "publications",
            "offset",
            "epoch",
            publications=_list(_PUBLICATION),
            offset=_INTEGER,
            epoch=_STRING,
        ),
    ),
    "history_remove": ApiMethod(
        "Remove a channel's publications; its position stays.", (_CHANNEL,), _EMPTY
    ),
    "channels": ApiMethod(
        "The channels that have subscribers.",
        (Param("pattern", "string", "names that match it, with `*`, `?` and `[…]`"),),
        _object(
            "channels",
            channels=_map(_object("num_clients", num_clients=_INTEGER)),
            missing_workers=_MISSING,
            is_cut=_BOOLEAN,
        ),
        is_readable=True,
    ),
    "connections": ApiMethod(
        "A user's connections, in the order of their ids.",
        (
            _USER,
            Param("limit", "integer", "at most so many; 100 if absent, 1,000 at most", least=1),
            Param("cursor", "string", "those after the page whose result had this cursor"),
            Param("expression", "string", "not available here; only an empty one is accepted"),
        ),
        _object(
            "connections",
            connections=_map(_CONNECTION),
            cursor=_STRING,
            missing_workers=_MISSING,
        ),
        is_readable=True,
    ),
    "info": ApiMethod(
        "All workers.",
        (),
        _object("nodes", nodes=_list(_NODE), missing_workers=_MISSING),
        is_readable=True,
    ),
    "rpc": ApiMethod(
        "Call a handler of the application.",
        (
            _name("method", "the handler's name"),
            Param("params", "json", "its data"),
        ),
        _object(data=_ANY),
    ),
    "batch": ApiMethod(
        "Call several methods; the answer has `replies`, in order, and no `result`.",
        (
            Param("commands", "json", "a list of objects with one method each", is_required=True),
            Param("parallel", "boolean", "they do not wait for each other"),
        ),
        _object("replies", replies=_list(_object(error=ERROR))),
    ),
    "revoke_token": ApiMethod(
        "Refuse a token from now on.",
        (_name("uid", "the token's claim `jti`"), _UNTIL),
        _EMPTY,
    ),
    "invalidate_user_tokens": ApiMethod(
        "Refuse the tokens of a user that were issued before a time.",
        (
            _KNOWN_USER,
            Param("issued_before", "integer", "Unix time; now if absent"),
            _UNTIL,
        ),
        _EMPTY,
    ),
    "block_user": ApiMethod(
        "Refuse a user, and close the user's connections.",
        (_KNOWN_USER, _UNTIL),
        _EMPTY,
    ),
    "unblock_user": ApiMethod("Accept a user again.", (_KNOWN_USER,), _EMPTY),
}
