"""The options of `publish` and `broadcast`, as the server API of Centrifugo has them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from cluster.broker import PublishCondition
from cluster.errors import BAD_REQUEST

#: Lua's numbers are exact below this.
_VERSION_LIMIT: Final = 2**53

_OPTIONS: Final = frozenset({"idempotency_key", "skip_history", "version", "version_epoch"})


class PublishOptions(NamedTuple):
    """How a backend wants a publication to be published; see `Commands.publish_from_server`."""

    condition: PublishCondition | None
    skips_history: bool


_NONE: Final = PublishOptions(None, False)


def publish_options(params: dict[str, Any]) -> PublishOptions:
    """Read the options of a request.

    Raises:
        ClientError: 107 for an option of a wrong type, or a version that is negative or not below 2^53.
    """
    if not params.keys() & _OPTIONS:
        return _NONE
    given = {name: value for name, value in params.items() if value is not None}
    skips_history = given.get("skip_history", False)
    key, epoch = given.get("idempotency_key", ""), given.get("version_epoch", "")
    version = given.get("version", 0)
    types = (type(skips_history), type(key), type(version), type(epoch))
    if types != (bool, str, int, str) or not 0 <= version < _VERSION_LIMIT:
        raise BAD_REQUEST.fresh()
    has_condition = bool(key or version)
    return PublishOptions(
        PublishCondition(key, version, epoch) if has_condition else None, skips_history
    )
