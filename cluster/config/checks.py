"""What must hold between options: each rule says which option to change and to what.

Rules
- A rule that leans on an option which could not be read stays silent: that mistake is told already.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

from cluster.config.model import MAXIMUM_PORT, ChannelOptions, Config
from cluster.config.reading import shown
from cluster.errors import Problem

#: Schemes of a store's URL. valkey and valkeys mean what redis and rediss mean.
REDIS_SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys", "unix")


def check(config: Config, unread: set[str], needs_keys: bool) -> list[Problem]:
    """Every broken rule of a configuration whose options are readable one by one."""
    rules: list[Callable[[Config], Iterator[Problem]]] = [
        _pings,
        _shutdown,
        _ports,
        _host,
        _redis_urls,
        _console_addresses,
        _channels,
    ]
    if needs_keys:
        rules.append(_keys)
    return [p for rule in rules for p in rule(config) if p.key not in unread]


def _problem(key: str, value: object, allowed: str, *, is_secret: bool = False) -> Problem:
    return Problem(key, shown(value, is_secret=is_secret), allowed)


def _pings(config: Config) -> Iterator[Problem]:
    client = config.client
    if client.pong_timeout >= client.ping_interval:
        yield _problem(
            "client.pong_timeout",
            client.pong_timeout,
            f"give less than client.ping_interval ({client.ping_interval:g} s)",
        )


def _shutdown(config: Config) -> Iterator[Problem]:
    times = config.shutdown
    if times.drain_window >= times.timeout:
        yield _problem(
            "shutdown.drain_window",
            times.drain_window,
            f"give less than shutdown.timeout ({times.timeout:g} s)",
        )
    if times.timeout >= times.stop_grace_period:
        yield _problem(
            "shutdown.timeout",
            times.timeout,
            f"give less than shutdown.stop_grace_period ({times.stop_grace_period:g} s)",
        )


def _ports(config: Config) -> Iterator[Problem]:
    server = config.server
    if server.port and server.port == server.admin_port:
        yield _problem("server.admin_port", server.admin_port, "give a port other than server.port")
    if not server.worker_port_base:
        return
    last = server.worker_port_base + max(server.workers, 1) - 1
    if last > MAXIMUM_PORT:
        yield _problem(
            "server.worker_port_base",
            server.worker_port_base,
            f"give a port that leaves room for {server.workers} workers below {MAXIMUM_PORT + 1}",
        )
    for key in ("port", "admin_port"):
        port = getattr(server, key)
        if server.worker_port_base <= port <= last:
            yield _problem(
                f"server.{key}",
                port,
                f"give a port outside the workers' {server.worker_port_base} to {last}",
            )


def _host(config: Config) -> Iterator[Problem]:
    host = config.server.host
    try:
        ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        yield _problem("server.host", host, "give an IP address, such as 127.0.0.1 or 0.0.0.0")


def _redis_urls(config: Config) -> Iterator[Problem]:
    for url in config.broker.redis_urls:
        if not _is_redis_url(url):
            yield _problem(
                "broker.redis_urls",
                url,
                f"give URLs that begin with {_listed(f'{s}://' for s in REDIS_SCHEMES)}, "
                "such as redis://host:6379/0 or unix:///path",
                is_secret="@" in url,
            )


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


def _is_redis_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme not in REDIS_SCHEMES:
        return False
    return bool(parts.path if parts.scheme == "unix" else parts.hostname)


def _console_addresses(config: Config) -> Iterator[Problem]:
    console = config.console
    for name in (
        "prometheus_url",
        "alertmanager_url",
        "prometheus_link",
        "alertmanager_link",
        "grafana_link",
    ):
        url = getattr(console, name)
        if url and not _is_http_url(url):
            yield _problem(
                f"console.{name}", url, "give a URL such as http://127.0.0.1:9090, or nothing"
            )


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _channels(config: Config) -> Iterator[Problem]:
    yield from _options("channel.without_namespace", config.channel.without_namespace)
    for index, space in enumerate(config.channel.namespaces):
        yield from _options(f"channel.namespaces[{index}]", space.options)


def _options(path: str, options: ChannelOptions) -> Iterator[Problem]:
    has_history = options.history_size > 0 and options.history_ttl > 0
    if (options.history_size > 0) != (options.history_ttl > 0):
        missing = "history_ttl" if options.history_size > 0 else "history_size"
        yield _problem(
            f"{path}.{missing}", 0, "history needs history_size and history_ttl, both above 0"
        )
    if options.force_recovery and not has_history:
        yield _problem(
            f"{path}.force_recovery", True, "it needs history_size and history_ttl above 0"
        )
    if has_history and options.history_meta_ttl < options.history_ttl:
        yield _problem(
            f"{path}.history_meta_ttl",
            options.history_meta_ttl,
            f"give at least history_ttl ({options.history_ttl:g} s)",
        )


def _keys(config: Config) -> Iterator[Problem]:
    if not config.client.insecure and not config.client.token.hmac_secret_key:
        yield _problem(
            "client.token.hmac_secret_key",
            "",
            "set it (or client.token.hmac_secret_key_file), or client.insecure = true for development",
        )
