"""The rules between options: each names the option to change and says what is allowed.

A rule about an option that could not be read is skipped, because that mistake is reported already.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Container, Iterator
from operator import attrgetter
from typing import Final
from urllib.parse import urlsplit

from cluster.addresses import networks
from cluster.config.model import MAXIMUM_PORT, ChannelOptions, Config
from cluster.config.reader import problem
from cluster.config.redis_url import REDIS_SCHEMES, Address
from cluster.config.sentinel_url import SentinelAddress, is_sentinel_url
from cluster.errors import Problem

_LESS_THAN: Final = (
    ("client.pong_timeout", "client.ping_interval"),
    ("shutdown.drain_window", "shutdown.timeout"),
    ("shutdown.timeout", "shutdown.stop_grace_period"),
)
_CONSOLE_URLS: Final = (
    "prometheus_url",
    "alertmanager_url",
    "prometheus_link",
    "alertmanager_link",
    "grafana_link",
)
_APP_TARGET: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SHORTEST_KEY_BYTES: Final = 32
#: An empty Valkey with the buffers of a few workers needs some of it.
_LEAST_MEMORY: Final = 32 << 20
_KEY_PREFIX: Final = re.compile(r"[-A-Za-z0-9_.]{1,64}")
#: A URL in which nothing can be a part of a password.
_PLAIN_URL: Final = re.compile(r"\w+://[\w.-]*(:[0-9]+)?(/\w*)?")
#: What PyJWT refuses as the secret of an HMAC begins like this, or is a JSON Web Key (RFC 7517).
_PUBLISHED_KEY: Final = re.compile(
    r'\s*-----BEGIN |ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp|\s*[{\[].*"kty"', re.DOTALL
)


def check(config: Config, unread: set[str], needs_keys: bool) -> list[Problem]:
    """Every broken rule. `unread` are the keys of options that could not be read."""
    rules: list[Callable[[Config], Iterator[Problem]]] = [
        _orders,
        _ports,
        _hosts,
        _trusted_proxies,
        _redis_urls,
        _prefix,
        _valkey_maxmemory,
        _console_urls,
        _channels,
        _hmac_key,
        _app,
    ]
    if needs_keys:
        rules += [_keys, _key_lengths]
    return [p for rule in rules for p in rule(config) if p.key not in unread]


def _orders(config: Config) -> Iterator[Problem]:
    for smaller, larger in _LESS_THAN:
        value, limit = attrgetter(smaller)(config), attrgetter(larger)(config)
        if value >= limit:
            yield problem(smaller, value, f"give less than {larger} ({limit:g} s)")


def _ports(config: Config) -> Iterator[Problem]:
    server = config.server
    if server.port and server.port == server.admin_port:
        yield problem("server.admin_port", server.admin_port, "give a port other than server.port")
    if not server.worker_port_base:
        return
    last = server.worker_port_base + max(server.workers, 1) - 1
    if last > MAXIMUM_PORT:
        yield problem(
            "server.worker_port_base",
            server.worker_port_base,
            f"give a port that leaves room for {server.workers} workers below {MAXIMUM_PORT + 1}",
        )
    for key in ("port", "admin_port"):
        port = getattr(server, key)
        if server.worker_port_base <= port <= last:
            yield problem(
                f"server.{key}",
                port,
                f"give a port outside the workers' {server.worker_port_base} to {last}",
            )


def _hosts(config: Config) -> Iterator[Problem]:
    for key in ("server.host", "server.admin_host"):
        host = attrgetter(key)(config)
        try:
            ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        except ValueError:
            yield problem(key, host, "give an IP address, such as 127.0.0.1 or 0.0.0.0")


def _trusted_proxies(config: Config) -> Iterator[Problem]:
    for text in config.server.trusted_proxies:
        try:
            found = networks([text])
        except ValueError:
            advice = "give addresses and networks, such as 10.0.0.7 or 10.1.0.0/16"
            yield problem("server.trusted_proxies", text, advice)
            continue
        if found[0].prefixlen == 0:
            advice = "give the proxies alone: with every address, each client could choose its own"
            yield problem("server.trusted_proxies", text, advice)


def _redis_urls(config: Config) -> Iterator[Problem]:
    for url in config.broker.redis_urls:
        try:
            reason = _refused_url(url, count=len(config.broker.redis_urls))
        except ValueError as error:
            reason = str(error)
        if reason:
            is_secret = _PLAIN_URL.fullmatch(url) is None
            yield problem("broker.redis_urls", url, reason, is_secret=is_secret)


def _refused_url(url: str, *, count: int) -> str:
    """What to change in a store's URL, "" if nothing; raises a `ValueError` that says so, too."""
    if is_sentinel_url(url):
        SentinelAddress.from_url(url)
        return "give one URL of Sentinel, and no other beside it" if count > 1 else ""
    Address.from_url(url)
    return "" if _is_url(url, REDIS_SCHEMES) else "give a host, as in redis://host:6379"


def _prefix(config: Config) -> Iterator[Problem]:
    if not _KEY_PREFIX.fullmatch(config.broker.prefix):
        # A colon ends the prefix in every key (cluster/resp/keys.py), and braces are hash tags.
        yield problem(
            "broker.prefix",
            config.broker.prefix,
            "give 1 to 64 letters, digits, hyphens, dots or underscores",
        )


def _valkey_maxmemory(config: Config) -> Iterator[Problem]:
    if 0 < config.broker.valkey_maxmemory < _LEAST_MEMORY:
        yield problem(
            "broker.valkey_maxmemory",
            config.broker.valkey_maxmemory,
            f"give at least {_LEAST_MEMORY} bytes, or 0",
        )


def _console_urls(config: Config) -> Iterator[Problem]:
    for name in _CONSOLE_URLS:
        url = getattr(config.console, name)
        if url and not _is_url(url, ("http", "https")):
            yield problem(
                f"console.{name}", url, "give a URL such as http://127.0.0.1:9090, or nothing"
            )


def _is_url(url: str, schemes: Container[str]) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(
        parts.path if parts.scheme == "unix" else parts.hostname
    )


def _channels(config: Config) -> Iterator[Problem]:
    yield from _options("channel.without_namespace", config.channel.without_namespace)
    for index, space in enumerate(config.channel.namespaces):
        yield from _options(f"channel.namespaces[{index}]", space.options)


def _options(path: str, options: ChannelOptions) -> Iterator[Problem]:
    has_history = options.history_size > 0 and options.history_ttl > 0
    if (options.history_size > 0) != (options.history_ttl > 0):
        missing = "history_ttl" if options.history_size > 0 else "history_size"
        yield problem(
            f"{path}.{missing}", 0, "history needs history_size and history_ttl, both above 0"
        )
    if options.force_recovery and not has_history:
        yield problem(
            f"{path}.force_recovery", True, "it needs history_size and history_ttl above 0"
        )
    if has_history and options.history_meta_ttl < options.history_ttl:
        yield problem(
            f"{path}.history_meta_ttl",
            options.history_meta_ttl,
            f"give at least history_ttl ({options.history_ttl:g} s)",
        )


def _hmac_key(config: Config) -> Iterator[Problem]:
    if _PUBLISHED_KEY.match(config.client.token.hmac_secret_key):
        yield problem(
            "client.token.hmac_secret_key",
            "",
            "give a random secret; this is a public or private key, or a certificate",
            is_secret=True,
        )


def _app(config: Config) -> Iterator[Problem]:
    app = config.app
    if app.target and not _APP_TARGET.fullmatch(app.target):
        yield problem(
            "app.target", app.target, "give a module and an object in it, as chat.main:app"
        )
    if app.reload and not app.target:
        yield problem("app.reload", True, "give app.target (or --app), whose code is to be watched")


def _keys(config: Config) -> Iterator[Problem]:
    # An application may know its clients without tokens.
    is_known = config.client.insecure or bool(config.app.target)
    if not is_known and not config.client.token.hmac_secret_key:
        yield problem(
            "client.token.hmac_secret_key",
            "",
            "set it (or client.token.hmac_secret_key_file), or client.insecure = true for development",
        )


def _key_lengths(config: Config) -> Iterator[Problem]:
    """RFC 7518, section 3.2: the key of an HMAC is at least as long as its hash."""
    if config.client.insecure:
        return
    for key in ("client.token.hmac_secret_key", "admin.key", "http_api.key"):
        value: str = attrgetter(key)(config)
        is_short = len(value.encode("utf-8", "surrogateescape")) < _SHORTEST_KEY_BYTES
        if value and is_short and not _PUBLISHED_KEY.match(value):
            advice = (
                f"give a random key of {_SHORTEST_KEY_BYTES} bytes or more, as `openssl rand -hex 32`"
                " prints; shorter ones are for insecure mode"
            )
            yield problem(key, "", advice, is_secret=True)
