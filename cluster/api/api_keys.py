"""The keys of the server API, and what each of them may do.

- A given key is compared with all keys, each in constant time, so an answer does not tell how near it was.
- A key that is limited to namespaces may use the methods that name a channel, in these namespaces, and
  others only if its list of methods names them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Final

from cluster.api.method_table import API_TABLE
from cluster.config import HttpApiConfig
from cluster.config.checks import WITHOUT_NAMESPACE
from cluster.errors import ClusterError

_NAMES_CHANNEL: Final = frozenset(
    name
    for name, method in API_TABLE.items()
    if any(param.name in {"channel", "channels"} for param in method.params)
)


class KeyForbids(ClusterError):
    """The key may not do what is asked for."""


class ApiKey:
    """One key.

    Args:
        namespace_of: a channel, "" for none.

    Attributes:
        namespaces: of the channels that it may use, "" for those without one; None for all.
    """

    def __init__(
        self,
        name: str,
        secret: str,
        methods: tuple[str, ...],
        namespaces: tuple[str, ...],
        namespace_of: Callable[[str], str],
    ) -> None:
        self.name = name
        self.digest = _digest(secret)
        self._methods = frozenset(methods)
        self._namespace_of = namespace_of
        self.namespaces: frozenset[str] | None = None
        if namespaces:
            self.namespaces = frozenset(
                "" if one == WITHOUT_NAMESPACE else one for one in namespaces
            )

    @property
    def is_limited(self) -> bool:
        return bool(self._methods) or self.namespaces is not None

    def check(self, method: str, params: dict[str, Any]) -> None:
        """Allow a request; the commands of a batch are checked one by one.

        Raises:
            KeyForbids: if the key is limited to other methods or namespaces.
        """
        if not self.is_limited or method not in API_TABLE:
            return
        if self._methods and method not in self._methods:
            # What a batch holds is checked for itself.
            if method != "batch":
                raise KeyForbids(f"the key {self.name} may not call {method}")
            return
        if self.namespaces is None or method == "batch":
            return
        if method not in _NAMES_CHANNEL:
            if method not in self._methods:
                raise KeyForbids(f"the key {self.name} may not call {method}")
            return
        channels = params.get("channels") if method == "broadcast" else [params.get("channel")]
        for channel in channels if isinstance(channels, list) else ():
            if type(channel) is str and self._namespace_of(channel) not in self.namespaces:
                raise KeyForbids(f"the key {self.name} may not use channels of this namespace")


class ApiKeys:
    """All keys of the configuration."""

    def __init__(self, config: HttpApiConfig, namespace_of: Callable[[str], str]) -> None:
        self._keys: list[ApiKey] = []
        if config.key:
            self._keys.append(ApiKey("http_api.key", config.key, (), (), namespace_of))
        self._keys += [
            ApiKey(one.name, one.key, one.methods, one.namespaces, namespace_of)
            for one in config.keys
        ]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, given: bytes) -> ApiKey | None:
        """The key that a request has given, None if it is no key."""
        digest = hashlib.sha256(given).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
