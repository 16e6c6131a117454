"""Reads the body of a request: members that the table of methods knows, of the types that it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple, TypedDict

import msgspec

from cluster import data_url, json_text
from cluster.api.method_table import API_TABLE, LARGEST_INTEGER, Kind, Param
from cluster.errors import BAD_REQUEST
from cluster.protocol import Position

Params = dict[str, Any]

_KINDS: Final[dict[str, set[Kind]]] = {}
for _method in API_TABLE.values():
    for _param in _method.params:
        _KINDS.setdefault(_param.name, set()).add(_param.kind)

#: Every member that a request of any method may have; others are ignored.
_Params: Any = TypedDict(  # type: ignore[misc]
    "_Params",
    {name: msgspec.Raw if kinds == {"json"} else Any for name, kinds in _KINDS.items()},
    total=False,
)

#: Reads the body of a request. What is any JSON stays the text that was sent.
PARAMS: Final[json_text.JsonDecoder[Params]] = json_text.JsonDecoder(
    _Params, replaces_surrogates=True
)
#: Reads the commands of a batch.
COMMANDS: Final[json_text.JsonDecoder[list[dict[str, Params]]]] = json_text.JsonDecoder(
    list[dict[str, _Params]],
    replaces_surrogates=True,
)


class ApiCommand(NamedTuple):
    """A method and its parameters in one object: the older format, of `POST /api`."""

    id: int
    method: str
    params: Params


class _Command(msgspec.Struct):
    method: str
    params: _Params | None = None
    id: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0


_COMMAND: Final[json_text.JsonDecoder[Any]] = json_text.JsonDecoder(
    _Command, replaces_surrogates=True
)


def commands(body: bytes) -> list[ApiCommand]:
    """Read the commands of a body: one, or one on each line. A method is named in any case.

    Raises:
        JsonTextInvalid: there is none, or something that is not a command.
    """
    try:
        return [_command(body)]
    except json_text.JsonTextInvalid:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) < 2:
            raise
        return [_command(line) for line in lines]


def _command(text: bytes) -> ApiCommand:
    one = _COMMAND.decode(text)
    return ApiCommand(one.id, one.method.lower(), one.params or {})


def _is_integer(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value <= LARGEST_INTEGER


def _is_position(value: Any) -> bool:
    return (
        type(value) is dict
        and _is_integer(value.get("offset", 0))
        and type(value.get("epoch", "")) is str
    )


_CHECKS: Final[Mapping[Kind, Callable[[Any], bool]]] = {
    "string": lambda value: type(value) is str,
    "boolean": lambda value: type(value) is bool,
    "integer": _is_integer,
    "strings": lambda value: type(value) is list and all(type(one) is str and one for one in value),
    "tags": lambda value: type(value) is dict and all(type(one) is str for one in value.values()),
    "position": _is_position,
    "object": lambda value: type(value) is dict,
    "json": lambda value: True,
}


def checked_params(method: str, params: Params) -> Params:
    """The members of a method that are given, with their types checked.

    Raises:
        ClientError: 107 for a member that is missing or of a wrong type.
    """
    checked = {}
    for param in API_TABLE[method].params:
        value = params.get(param.name)
        if value is None:
            if param.is_required:
                raise BAD_REQUEST.fresh()
        elif _is_right(param, value):
            checked[param.name] = value
        else:
            raise BAD_REQUEST.fresh()
    return checked


def _is_right(param: Param, value: Any) -> bool:
    if param.kind == "integer":
        return _is_integer(value, param.least)
    return _CHECKS[param.kind](value) and (value != "" or param.may_be_empty)


def json_member(params: Params, name: str, b64_name: str = "") -> bytes:
    """The JSON text of a member, or of its base64 form, which has precedence; b"" if neither is given.

    Raises:
        ClientError: 107 if it is not JSON, not base64, or nested too deeply; base64 of other bytes is a data URL.
    """
    try:
        encoded = params.get(b64_name)
        if encoded:
            if type(encoded) is not str:
                raise BAD_REQUEST.fresh()
            return data_url.of_base64(encoded)
        text = bytes(params.get(name, b""))
        return json_text.checked(text) if text not in {b"", b"null"} else b""
    except ValueError:
        raise BAD_REQUEST.fresh() from None


def position_member(params: Params, name: str) -> Position | None:
    """A member with `offset` and `epoch`, whose types are checked."""
    given = params.get(name)
    if given is None:
        return None
    return Position(given.get("offset", 0), given.get("epoch", ""))
