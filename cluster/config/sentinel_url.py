"""The URL of a master that Sentinel watches: `redis+sentinel://host:26379,host2/name/0`.

Rules
- Its hosts are sentinels, their port is 26379 if none is given. The path is the name of the master, and
  the number of the database. User and password before the hosts, and options, are the master's, as in the
  URL of a single server; `sentinel_username` and `sentinel_password` are the sentinels'.
- With `rediss+sentinel://` the sentinels and the master are reached by TLS, with the same options.
- What is refused is refused with one sentence that repeats nothing which might be a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import (
    SplitResult,
    parse_qsl,
    quote,
    unquote_plus,
    urlencode,
    urlunsplit,
)

from cluster.config.redis_url import REDIS_SCHEMES, Address, check_host, split_url

SENTINEL_SCHEMES: Final = tuple(f"{one}+sentinel" for one in REDIS_SCHEMES if one != "unix")

_FORM: Final = "give a URL such as redis+sentinel://host:26379,host2:26379/name-of-the-master/0"
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@\[\]/?#]+)(?::([0-9]{1,5}))?")
_NAME: Final = re.compile(r"[-\w.]+")
_CREDENTIALS: Final = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Sentinels, and the master they watch.

    Attributes:
        sentinels: host and port of each.
        name: what Sentinel calls the master.
        master: credentials and options of the master; its host and port are not used.
        username: of the sentinels.
        password: of the sentinels.
    """

    sentinels: tuple[tuple[str, int], ...]
    name: str
    master: Address = field(default_factory=Address)
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def from_url(cls, url: str) -> SentinelAddress:
        """Read a URL.

        Raises:
            ValueError: with one sentence that says what to change.
        """
        scheme, _, rest = url.partition("+sentinel://")
        parts = split_url(f"{scheme}://{rest}")
        user, at, hosts = parts.netloc.rpartition("@")
        sentinels = tuple(_host(one) for one in hosts.split(","))
        path = parts.path.strip("/").split("/")
        if not _NAME.fullmatch(path[0]) or len(path) > 2:
            raise ValueError(f"{_FORM}: the path is the master's name, and the database's number")
        own = dict(parse_qsl(parts.query))
        host, port = sentinels[0]
        plain = parts._replace(
            netloc=f"{user}{at}{f'[{host}]' if ':' in host else host}:{port}",
            path="".join(f"/{number}" for number in path[1:]),
            query=_query(parts),
        )
        return cls(
            sentinels=sentinels,
            name=path[0],
            # Where it is, the sentinels say.
            master=Address.from_url(urlunsplit(plain)).at(Address().host, Address().port),
            username=own.get(_CREDENTIALS[0], ""),
            password=own.get(_CREDENTIALS[1], ""),
        )


def is_sentinel_url(url: str) -> bool:
    """Whether the scheme of a URL is one of Sentinel's."""
    return url.partition("://")[0] in SENTINEL_SCHEMES


def with_sentinel_password(url: str, password: str) -> str:
    """The URL with this password for its sentinels, or as it is if it names one or has no sentinels."""
    parts = split_url(url)
    if not is_sentinel_url(url) or _CREDENTIALS[1] in dict(parse_qsl(parts.query)):
        return url
    added = f"{_CREDENTIALS[1]}={quote(password, safe='')}"
    return urlunsplit(parts._replace(query=f"{parts.query}&{added}" if parts.query else added))


def without_passwords(query: str, stars: str) -> str:
    """The options of a URL with stars in place of every password, however its name is encoded."""
    pairs = (pair.partition("=") for pair in query.split("&"))
    return "&".join(
        f"{name}={stars}" if "password" in unquote_plus(name) else f"{name}{equals}{value}"
        for name, equals, value in pairs
    )


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found[2] or 26379) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(f"{_FORM}: each sentinel is a host, or a host and a port from 1 to 65535")
    host = found[1].strip("[]")
    check_host(host)
    return host, port


def _query(parts: SplitResult) -> str:
    """The options without those of the sentinels."""
    given = parse_qsl(parts.query, keep_blank_values=True)
    return urlencode([(name, value) for name, value in given if name not in _CREDENTIALS])
