"""The URL of a Redis or Valkey server, as redis-py reads it, and stricter.

Guarantees
- redis-py splits the URL and converts its options; an option is used or refused, never ignored.
- What is refused is refused with one sentence that repeats nothing which might be a secret.
- What remains of a password that is not percent-encoded is never taken for a host, a port or a path.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

#: Schemes of a store's URL. valkey and valkeys mean what redis and rediss mean.
REDIS_SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys", "unix")

_ENCODE: Final = (
    "percent-encode special characters in the user name and the password, such as %23 for #, "
    "%40 for @, %2F for / and %3F for ?"
)
_TLS: Final = frozenset(
    {
        "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile",
        "ssl_check_hostname", "ssl_ciphers", "ssl_exclude_verify_flags",
        "ssl_include_verify_flags", "ssl_keyfile", "ssl_min_version",
    }
)  # fmt: skip
_USED: Final = frozenset({"client_name", "db", "protocol"}) | _TLS
_BEFORE_HOST: Final = "write user name and password before the host: redis://user:password@host"
_TIMEOUT: Final = "set broker.timeout instead of a timeout in the URL"
# int() takes signs, spaces, underscores and digits of other alphabets, too.
_DATABASE: Final = re.compile(r"[0-9]{1,9}")
_BOOLEANS: Final = frozenset({"true", "false", "1", "0", "t", "f", "yes", "no", "y", "n"})
_REFUSED: Final = {
    "username": _BEFORE_HOST,
    "password": _BEFORE_HOST,
    "ssl_password": "give a ssl_keyfile that is not encrypted",
    "socket_timeout": _TIMEOUT,
    "socket_connect_timeout": _TIMEOUT,
    "timeout": _TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens and how to authenticate; `str()` and `repr()` show no password.

    Attributes:
        path: a unix socket's path, then host and port mean nothing.
        tls_options: redis-py's `ssl_*` options, as sorted pairs.
    """

    host: str = "127.0.0.1"
    port: int = 6379
    path: str = ""
    username: str = ""
    password: str = ""
    database: int = 0
    tls: bool = False
    client_name: str = ""
    tls_options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self})"

    def at(self, host: str, port: int) -> Address:
        """The same credentials and options at another server."""
        return replace(self, host=host, port=port, path="")

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what `rediss://` and its options ask for, None without TLS.

        Raises:
            OSError: if a file that is named cannot be read or used.
        """
        return _tls_context(self.tls_options) if self.tls else None

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            ValueError: with one sentence that says what to change.
        """
        parts = _split(url)
        if parts.scheme == "unix" and not (parts.netloc or parts.query):
            # What the embedded Valkey has. redis-py reads the same, and importing it takes a worker 60 ms.
            return cls(path=unquote(parts.path))
        options = _parsed_by_redis_py(url, parts)
        address = cls(
            host=str(options.get("host", cls().host)),
            port=options.get("port", 6379),
            path=str(options.get("path", "")),
            username=options.get("username", ""),
            password=options.get("password", ""),
            database=options.get("db", 0),
            tls=parts.scheme in {"rediss", "valkeys"},
            client_name=options.get("client_name", ""),
            tls_options=tuple(
                (name, tuple(value) if isinstance(value, list) else value)
                for name, value in sorted(options.items())
                if name in _TLS
            ),
        )
        _check_tls(address)
        check_host(address.host)
        return address


def check_host(host: str) -> None:
    """Refuse a host that no resolver takes.

    Raises:
        ValueError: with one sentence that says what to change.
    """
    try:
        host.encode("idna")
        is_name = re.search(r"[\s\x00-\x1f]", host) is None
    except UnicodeError:
        is_name = False
    if not is_name:
        raise ValueError("give a host of which each part between dots has 1 to 63 characters")


def split_url(url: str) -> SplitResult:
    """Split a store's URL, whose `netloc` may name several hosts; neither is checked.

    urlsplit takes a list in which a host has brackets or refuses it, depending on the version of Python.
    """
    scheme, _, rest = url.partition("://")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    return urlsplit(f"{scheme}://{rest[len(netloc) :]}")._replace(netloc=netloc)


def database_of(url: str) -> int:
    """The number of the database that a store's URL names, 0 if it names none; the URL must be valid."""
    parts = split_url(url)
    given = dict(parse_qsl(parts.query)).get("db", "")
    if not given and parts.scheme.endswith("+sentinel"):
        given = parts.path.strip("/").partition("/")[2]  # After the name of the master.
    elif not given and parts.scheme != "unix":
        given = parts.path.rstrip("/").rpartition("/")[2]
    return int(given) if _DATABASE.fullmatch(given) else 0


def with_password(url: str, password: str) -> str:
    """The URL with this password, or as it is if it names one."""
    parts = split_url(url)
    user, _, host = parts.netloc.rpartition("@")
    if ":" in user:
        return url
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))


def _split(url: str) -> SplitResult:
    scheme = url.partition("://")[0]
    if scheme not in REDIS_SCHEMES:
        raise ValueError(
            "give URLs such as redis://host:6379/0 or unix:///path; the schemes are "
            + ", ".join(REDIS_SCHEMES)
            + ", and redis+sentinel"
        )
    # urlsplit ends the host at the first of / ? #, and takes what follows for a path or an option.
    if "#" in url or re.search(r"[\s\x00-\x1f]", url):
        raise ValueError(_ENCODE)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The text of this error repeats a part of the URL, which may be the password.
        raise ValueError(f"give a port from 1 to 65535, and {_ENCODE}") from None
    if "@" in parts.path or "@" in parts.query:
        raise ValueError(_ENCODE)
    if port == 0:
        raise ValueError("give a port from 1 to 65535")
    _check_place(parts)
    return parts


def _check_place(parts: SplitResult) -> None:
    if parts.scheme == "unix":
        # Of unix://u:p@/path only the part after the @ would be a host.
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError("give the path of the socket with three slashes: unix:///path")
    elif not re.fullmatch(rf"/?|/{_DATABASE.pattern}/?", parts.path):
        raise ValueError("give the number of the database as the path, such as redis://host:6379/0")
    if not parts.username and not parts.password and "@" in parts.netloc:
        raise ValueError("give a user name or a password before the @")


def _parsed_by_redis_py(url: str, parts: SplitResult) -> dict[str, Any]:
    # Slow to import, and not needed with an embedded Valkey.
    from redis.asyncio.connection import parse_url

    _check_options(parts)
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(parts.scheme, parts.scheme)
    try:
        options: dict[str, Any] = dict(parse_url(f"{scheme}://{url.partition('://')[2]}"))
    except ValueError as error:
        name = re.search(r"Invalid value for '(\w+)'", str(error))
        raise ValueError(
            f"give a valid value for the option {name[1]}" if name else _ENCODE
        ) from None
    if options.get("protocol", 2) != 2:
        raise ValueError("leave out the option protocol, or give 2: RESP3 is not spoken here")
    return options


def _check_options(parts: SplitResult) -> None:
    given = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in given]
    for name, value in given:
        if name in _REFUSED:
            raise ValueError(_REFUSED[name])
        if name not in _USED:
            raise ValueError(
                f"use only these options in the URL: {', '.join(sorted(_USED))}; or {_ENCODE}"
            )
        if not value or names.count(name) > 1:
            raise ValueError(f"give the option {name} once, with a value")
        if name == "db" and not _DATABASE.fullmatch(value):
            raise ValueError("give the option db in digits alone, such as db=3")
        if name == "ssl_check_hostname" and value.lower() not in _BOOLEANS:
            # redis-py takes every other word for true.
            raise ValueError("give true or false for the option ssl_check_hostname")
        if name in _TLS and parts.scheme not in {"rediss", "valkeys"}:
            raise ValueError(f"begin the URL with rediss://, or leave out {name}")
    if "db" in names and parts.path.strip("/") and parts.scheme != "unix":
        raise ValueError("give the database as the path or as the option db, not as both")


def _check_tls(address: Address) -> None:
    given = {name for name, _ in address.tls_options}
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        raise ValueError("give ssl_certfile, the certificate of the client, beside ssl_keyfile")
    try:
        address.tls_context()
    except (OSError, ValueError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"give files and values that TLS can use for the ssl_ options ({reason})"
        ) from None


@cache
def _tls_context(options: tuple[tuple[str, Any], ...]) -> ssl.SSLContext:
    """A context by redis-py, so that its options mean what they mean there."""
    from redis.asyncio.connection import SSLConnection
    from redis.exceptions import RedisError

    given: dict[str, Any] = {name: list(v) if isinstance(v, tuple) else v for name, v in options}
    try:
        return SSLConnection(**given).ssl_context.get()
    except RedisError as error:
        raise ValueError(str(error)) from None
