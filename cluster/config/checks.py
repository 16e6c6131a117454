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
from cluster.config.channel_options import ChannelOptions
from cluster.config.channel_regex import regex_fault
from cluster.config.model import Config, TokenConfig
from cluster.config.option_fields import MAXIMUM_PORT
from cluster.config.proxy_options import DEFAULT_PROXY
from cluster.config.proxy_sections import proxies_in_use, proxy_names
from cluster.config.public_keys import has_keys, public_key
from cluster.config.reader import problem
from cluster.config.redis_url import REDIS_SCHEMES, Address, check_host
from cluster.config.sentinel_url import SentinelAddress, is_sentinel_url
from cluster.errors import Problem
from cluster.methods import API_METHODS
from cluster.url_credentials import without_credentials

_LESS_THAN: Final = (
    ("client.pong_timeout", "client.ping_interval"),
    ("client.presence_update_interval", "client.presence_ttl"),
    ("shutdown.drain_window", "shutdown.timeout"),
    ("shutdown.timeout", "shutdown.stop_grace_period"),
)
_LONGEST_BOUNDARY: Final = 8
_CONSOLE_URLS: Final = (
    "prometheus_url",
    "alertmanager_url",
    "prometheus_link",
    "alertmanager_link",
    "grafana_link",
)
#: What stands for the channels without a namespace where a list of namespaces is given.
WITHOUT_NAMESPACE: Final = "without_namespace"
_APP_TARGET: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SHORTEST_KEY_BYTES: Final = 32
_HEADER_NAME: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,64}")
#: A header of a handshake that would mean something else in a request to a backend.
_NOT_PASSED_ON: Final = frozenset(
    {
        "connection", "content-length", "content-type", "expect", "host", "keep-alive", "te",
        "trailer", "transfer-encoding", "upgrade", "accept-encoding",
    }
)  # fmt: skip
_TOKEN_SECTIONS: Final = ("client.token", "client.subscription_token")
_HMAC_KEYS: Final = tuple(
    f"{section}.{name}"
    for section in _TOKEN_SECTIONS
    for name in ("hmac_secret_key", "hmac_previous_secret_key")
)
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
        _boundaries,
        _channels,
        _published_keys,
        _public_keys,
        _personal_channel,
        _api_keys,
        _app,
        _proxies,
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
    host, _, port = config.server.instance.rpartition(":")
    if config.server.instance and not (host and port.isdecimal() and port.isascii()):
        reason = (
            "give the host and port at which Prometheus scrapes this replica, such as 10.0.0.5:8001"
        )
        yield problem("server.instance", config.server.instance, reason)


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
                f"console.{name}",
                without_credentials(url),
                "give a URL such as http://127.0.0.1:9090, or nothing",
            )


def _is_url(url: str, schemes: Container[str]) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
        check_host(parts.hostname or "")
    except ValueError:
        return False
    return parts.scheme in schemes and bool(
        parts.path if parts.scheme == "unix" else parts.hostname
    )


def _channels(config: Config) -> Iterator[Problem]:
    channel = config.channel
    has_users = bool(channel.user_boundary)
    yield from _options("channel.without_namespace", channel.without_namespace, has_users)
    for index, space in enumerate(channel.namespaces):
        yield from _options(f"channel.namespaces[{index}]", space.options, has_users)
        for name in ("namespace_boundary", "private_prefix", "user_boundary"):
            # A channel of such a namespace would be one of another namespace, private, or for its users.
            part = getattr(channel, name)
            if part and part in space.name:
                advice = f"give a name without channel.{name} ({part})"
                yield problem(f"channel.namespaces[{index}].name", space.name, advice)


def _boundaries(config: Config) -> Iterator[Problem]:
    channel = config.channel
    given: dict[str, str] = {}
    for name in ("private_prefix", "namespace_boundary", "user_boundary", "user_separator"):
        value = getattr(channel, name)
        if not value:
            continue
        if not value.isascii() or not value.isprintable() or len(value) > _LONGEST_BOUNDARY:
            advice = f"give 1 to {_LONGEST_BOUNDARY} printable ASCII characters, or nothing"
            yield problem(f"channel.{name}", value, advice)
        elif value in given:
            yield problem(f"channel.{name}", value, f"give another one than channel.{given[value]}")
        given.setdefault(value, name)
    if channel.namespaces and not channel.namespace_boundary:
        yield problem("channel.namespace_boundary", "", "namespaces need one, such as :")


def _personal_channel(config: Config) -> Iterator[Problem]:
    path = "client.subscribe_to_user_personal_channel"
    personal = config.client.subscribe_to_user_personal_channel
    namespace = personal.personal_channel_namespace
    if namespace and namespace not in [space.name for space in config.channel.namespaces]:
        advice = "give the name of a namespace in channel.namespaces, or nothing"
        yield problem(f"{path}.personal_channel_namespace", namespace, advice)
    if personal.enabled and not config.channel.user_boundary:
        yield problem(f"{path}.enabled", True, "it needs channel.user_boundary, such as #")
    if personal.single_connection and not personal.enabled:
        yield problem(f"{path}.single_connection", True, f"it needs {path}.enabled = true")


def _options(path: str, options: ChannelOptions, has_users: bool) -> Iterator[Problem]:
    yield from _history_options(path, options)
    if options.allow_user_limited_channels and not has_users:
        key = f"{path}.allow_user_limited_channels"
        yield problem(key, True, "it needs channel.user_boundary, such as #")
    if fault := regex_fault(options.channel_regex):
        yield problem(f"{path}.channel_regex", options.channel_regex, fault)


def _history_options(path: str, options: ChannelOptions) -> Iterator[Problem]:
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
    is_cache = options.force_recovery and options.force_recovery_mode == "cache"
    if options.auto_cache_recover and not is_cache:
        yield problem(
            f"{path}.auto_cache_recover",
            True,
            "it needs force_recovery = true and force_recovery_mode = cache",
        )
    for kind in options.allowed_delta_types:
        if kind != "fossil":
            yield problem(f"{path}.allowed_delta_types", kind, "the only kind is fossil")
    if has_history and options.history_meta_ttl < options.history_ttl:
        yield problem(
            f"{path}.history_meta_ttl",
            options.history_meta_ttl,
            f"give at least history_ttl ({options.history_ttl:g} s)",
        )


def _published_keys(config: Config) -> Iterator[Problem]:
    for key in _HMAC_KEYS:
        if _PUBLISHED_KEY.match(attrgetter(key)(config)):
            advice = "give a random secret; this is a public or private key, or a certificate"
            yield problem(key, "", advice, is_secret=True)


def _public_keys(config: Config) -> Iterator[Problem]:
    for section in _TOKEN_SECTIONS:
        options: TokenConfig = attrgetter(section)(config)
        for name, family in (("rsa_public_key", "RSA"), ("ecdsa_public_key", "EC")):
            text: str = getattr(options, name)
            try:
                if text:
                    public_key(text, family)
            except ValueError as error:
                yield problem(f"{section}.{name}", "", str(error), is_secret=True)
        url = options.jwks_public_endpoint
        if url and not _is_url(url, ("http", "https")):
            advice = "give a URL such as https://login.example.com/keys"
            yield problem(f"{section}.jwks_public_endpoint", without_credentials(url), advice)
        if url and options.jwks_file:
            advice = "give either jwks_public_endpoint or jwks_file, not both"
            yield problem(f"{section}.jwks_file", options.jwks_file, advice)


def _app(config: Config) -> Iterator[Problem]:
    app = config.app
    if app.target and not _APP_TARGET.fullmatch(app.target):
        yield problem(
            "app.target", app.target, "give a module and an object in it, as chat.main:app"
        )
    if app.reload and not app.target:
        yield problem("app.reload", True, "give app.target (or --app), whose code is to be watched")


def _proxies(config: Config) -> Iterator[Problem]:
    names = [DEFAULT_PROXY, *(one.name for one in config.proxies)]
    for key, name in proxy_names(config):
        if name not in names:
            yield problem(key, name, f"give one of {', '.join(names)}")
    used = proxies_in_use(config)
    for path, options in used.items():
        if not _is_url(options.endpoint, ("http", "https")):
            advice = "give the URL of the backend, such as http://127.0.0.1:3000/connect"
            yield problem(f"{path}.endpoint", without_credentials(options.endpoint), advice)
        given = {
            "http_headers": options.http_headers,
            "emulated_headers": options.emulated_headers,
            "http.static_headers": [name for name, _ in options.http.static_headers],
        }
        for option, headers in given.items():
            for name in headers:
                if not _HEADER_NAME.fullmatch(name) or name.lower() in _NOT_PASSED_ON:
                    advice = "give names of headers, but none of the connection or of the body"
                    yield problem(f"{path}.{option}", name, advice)
    if used and config.app.target:
        yield problem(
            "app.target", config.app.target, f"give either it or {next(iter(used))}, not both"
        )
    if config.client.proxy.refresh.enabled and not config.client.proxy.connect.enabled:
        key = "client.proxy.refresh.enabled"
        yield problem(key, True, "it needs client.proxy.connect.enabled = true")


def _keys(config: Config) -> Iterator[Problem]:
    client = config.client
    # An application may know its clients without tokens, or all of them may be anonymous.
    is_known = (
        client.insecure
        or client.allow_anonymous_connect_without_token
        or bool(config.app.target)
        or client.proxy.connect.enabled
    )
    if not is_known and not has_keys(client.token):
        yield problem(
            "client.token.hmac_secret_key",
            "",
            "set it (or client.token.hmac_secret_key_file), or the option of a public key or key set, or"
            " client.insecure = true for development",
        )
    if client.subscription_token.enabled and not has_keys(client.subscription_token):
        yield problem(
            "client.subscription_token.enabled",
            True,
            "set client.subscription_token.hmac_secret_key, or the option of a public key or key set",
        )


def _api_keys(config: Config) -> Iterator[Problem]:
    known = {space.name for space in config.channel.namespaces} | {WITHOUT_NAMESPACE}
    for index, one in enumerate(config.http_api.keys):
        path = f"http_api.keys[{index}]"
        if not one.key:
            yield problem(f"{path}.key", "", "give a key, or key_file", is_secret=True)
        for method in one.methods:
            if method not in API_METHODS:
                yield problem(f"{path}.methods", method, f"give some of {', '.join(API_METHODS)}")
        for name in one.namespaces:
            if name not in known:
                advice = f"give names of channel.namespaces, or {WITHOUT_NAMESPACE}"
                yield problem(f"{path}.namespaces", name, advice)
    given = [config.http_api.key, *(one.key for one in config.http_api.keys)]
    for index, key in enumerate(given[1:]):
        if key and key in given[: index + 1]:
            advice = "give each of them a key of its own"
            yield problem(f"http_api.keys[{index}].key", "", advice, is_secret=True)


def _key_lengths(config: Config) -> Iterator[Problem]:
    """RFC 7518, section 3.2: the key of an HMAC is at least as long as its hash."""
    if config.client.insecure:
        return
    names = (*_HMAC_KEYS, "admin.key", "http_api.key")
    values: list[tuple[str, str]] = [(key, attrgetter(key)(config)) for key in names]
    for index, one in enumerate(config.http_api.keys):
        values.append((f"http_api.keys[{index}].key", one.key))
    for key, value in values:
        is_short = len(value.encode("utf-8", "surrogateescape")) < _SHORTEST_KEY_BYTES
        if value and is_short and not _PUBLISHED_KEY.match(value):
            advice = (
                f"give a random key of {_SHORTEST_KEY_BYTES} bytes or more, as `openssl rand -hex 32`"
                " prints; shorter ones are for insecure mode"
            )
            yield problem(key, "", advice, is_secret=True)
