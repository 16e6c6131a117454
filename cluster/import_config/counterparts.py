"""The table: what becomes of each option of Centrifugo 6.

- An option that ours has under the same name is taken over as it is, and stands here only if it means
  something else or has other values. New options of `cluster.config` need no row.
- `OWN` are our options that Centrifugo does not have. tests/unit/test_import_config.py sets every other
  option of ours in a configuration of Centrifugo and looks for it in what is written.
- Options of namespaces stand below `channel.without_namespace`. A row counts for all that is below its name.
- The store's options are in `store_urls`.

Source of names and meanings: https://centrifugal.dev/docs/server/configuration and the pages beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Counterpart:
    """What becomes of an option.

    Attributes:
        to: our option; "" is none.
        differs: how ours differs, or what to do instead.
        usual: values that need no remark, because nothing changes with them. The empty value is one always.
        convert: gives our value; None takes the value as it is.
        is_lost: whether what the option asks for is not there; otherwise it is there without an option.
    """

    to: str = ""
    differs: str = ""
    usual: tuple[object, ...] = ()
    convert: Callable[[Any], object] | None = None
    is_lost: bool = True


def _none(instead: str, *usual: object) -> Counterpart:
    return Counterpart("", instead, usual)


def _always(how: str, *usual: object) -> Counterpart:
    return Counterpart("", how, usual, is_lost=False)


def _level(value: object) -> object:
    word = str(value).lower()
    words = {"trace": "debug", "warn": "warning", "fatal": "error", "none": "error"}
    return words.get(word, word)


def _address(value: object) -> object:
    return value or "0.0.0.0"


def _words(value: object) -> object:
    return value.split() if isinstance(value, str) else value


_ENDS_TLS: Final = "TLS ends at a proxy in front of the public port: docs/how-to/own-nginx.md"
_ADMIN_PORT: Final = (
    "health, metrics and the console are on the admin port; the API is on the public port"
)
_TRANSPORT: Final = "clients connect with WebSocket only; every official SDK can"
_API_ONLY: Final = "publish through the HTTP API instead: docs/how-to/publish-from-a-backend.md"
_PATH: Final = "this path is fixed"
_PROXY: Final = "no event is passed on to a backend in this way"
_CODES: Final = "only an answer with status 200 is read: answer with an error or a disconnect in it"
_CODES_READ: Final = (
    "a backend answers with a result, an error from 400 to 1999, or a disconnect from 4000 to 4999; after"
    " any other answer the client gets error 100"
)
_CONNECT_READ: Final = f"the data of the answer to a connect must be an object; {_CODES_READ}"
_PROXY_TLS: Final = "the backend's certificate is checked with the authorities of the machine, and none is shown to it"
_EACH_PROXY: Final = "set it for each proxy: docs/how-to/proxies.md"
_HTTP_ONLY: Final = "backends are asked over HTTP only: docs/how-to/proxies.md"
_EMULATED: Final = (
    "headers of a client's connect command are passed on only if emulated_headers names them,"
    " as since Centrifugo 6.9"
)
_BUFFERS: Final = "there is nothing to set: buffers grow and shrink with what is sent"
_PRO: Final = "an option of Centrifugo PRO"

_PROXIES: Final = (
    "client.proxy.connect", "client.proxy.refresh", "channel.proxy.subscribe", "channel.proxy.publish",
    "channel.proxy.sub_refresh", "rpc.proxy", "proxies",
)  # fmt: skip

#: Sections and options that Centrifugo does not have. A section ends with a dot.
OWN: Final = (
    "session.", "server.", "broker.", "console.", "balance.",
    "admin.key", "admin.connection_limit", "app.", "http_api.keys", "client.token.jwks_file",
    "client.subscription_token.jwks_file",
    "client.command_rate_limit", "client.command_burst", "client.connect_concurrency",
    "client.connection_limit_per_address", "client.connection_rate_limit_per_address",
    "client.history_max_publication_bytes",
    "log.format",
    "shutdown.timeout", "shutdown.drain_window", "shutdown.stop_grace_period",
)  # fmt: skip

#: Limits that Centrifugo does not have and that hold by default, with what they do.
LIMITS: Final[Mapping[str, str]] = {
    "client.command_rate_limit": (
        "{} commands and control frames per second and connection; above, error 111 and delays, then a"
        " close with 3013; 0 is off"
    ),
    "client.history_max_publication_bytes": "a history reply ends before {} bytes of publications",
}

COUNTERPARTS: Final[Mapping[str, Counterpart]] = {
    # --- ports
    "http_server.address": Counterpart("server.host", convert=_address),
    "http_server.port": Counterpart("server.port"),
    "http_server.internal_address": Counterpart("server.admin_host", _ADMIN_PORT),
    "http_server.internal_port": Counterpart("server.admin_port", _ADMIN_PORT),
    "http_server.tls": _none(_ENDS_TLS),
    "http_server.tls_autocert": _none(_ENDS_TLS),
    "http_server.internal_tls": _none(_ENDS_TLS),
    "http_server.tls_external": _none(_ENDS_TLS),
    "http_server.http3": _none("a proxy in front of the public port may speak HTTP/3"),
    # --- clients
    "client.allowed_origins": Counterpart("client.allowed_origins", convert=_words),
    "client.connection_limit": Counterpart(
        "client.connection_limit", "there for each node, here for each worker"
    ),
    "client.connection_rate_limit": Counterpart(
        "client.connection_rate_limit", "there for each node, here for each worker"
    ),
    "client.user_connection_limit": Counterpart(
        "client.user_connection_limit", "there for each node, here for all workers together"
    ),
    "client.insecure": Counterpart(
        "client.insecure", "every client may do everything: for development only", usual=(False,)
    ),
    "client.concurrency": _none(
        "commands of a connection that wait for the store are in progress at the same time always"
    ),
    "client.channel_position_max_time_lag": _none(
        "a gap is found by its offset, however late the publication comes"
    ),
    "client.connect_include_server_time": _none("the reply has no time"),
    "client.user_id_http_header": _none("users are known by their tokens"),
    "client.insecure_skip_token_signature_verify": _none(
        "a token without a valid signature is never accepted"
    ),
    "client.connect_code_to_unidirectional_disconnect": _none(_TRANSPORT),
    **{
        f"client.{kind}.{name}": _none(instead)
        for kind in ("token", "subscription_token")
        for name, instead in (
            ("user_id_claim", "the user is what the claim sub says: a token without it is anonymous"),
            ("issuer_regex", "no issuer is checked unless issuer names one, which is compared as a whole"),
            ("audience_regex", "no audience is checked unless audience names one, compared as a whole"),
            ("jwks", "the key set's certificate is checked with the authorities of the machine"),
        )
    },
    # --- backends
    "client.proxy.connect.enabled": Counterpart("client.proxy.connect.enabled", _CONNECT_READ),
    "client.proxy.refresh.enabled": Counterpart("client.proxy.refresh.enabled", _CODES_READ),
    **{f"{kind}.endpoint": Counterpart(f"{kind}.endpoint", _CODES_READ) for kind in _PROXIES[2:]},
    **{
        f"{kind}.{name}": _none(instead)
        for kind in _PROXIES
        for name, instead in (
            ("http.status_to_code_transforms", _CODES),
            ("http.tls", _PROXY_TLS),
            ("grpc", _HTTP_ONLY),
            ("grpc_metadata", _HTTP_ONLY),
            ("binary_encoding", "bytes that are no JSON are passed on as base64, and JSON as it is"),
        )
    },
    **{f"{kind}.http_headers": Counterpart(f"{kind}.http_headers", _EMULATED) for kind in _PROXIES},
    "proxy_http_headers": _none(_EACH_PROXY),
    "proxy_static_http_headers": _none(_EACH_PROXY),
    "proxy_grpc_metadata": _none(_HTTP_ONLY),
    "channel.proxy.subscribe_stream": _none(_PROXY),
    "client.rate_limit": _none(
        f"{_PRO}; client.command_rate_limit and client.command_burst are for each connection"
    ),
    # --- channels
    "channel.without_namespace.history_meta_ttl": Counterpart(
        "channel.without_namespace.history_meta_ttl", usual=(0, "0", "0s")
    ),
    "channel.patterns": _none(_PRO),
    "channel.without_namespace.subscribe_stream_proxy_name": _none(_PROXY, "default"),
    "channel.without_namespace.subscribe_stream_proxy_enabled": _none(_PROXY),
    "channel.without_namespace.subscription_type": _none("streams are the one type of subscription"),
    "channel.without_namespace.map": _none("streams are the one type of subscription"),
    "channel.without_namespace.shared_poll": _none("streams are the one type of subscription"),
    "channel.without_namespace.shared_position_sync": _none(
        "positions are compared once for each channel and worker already"
    ),
    "rpc.namespaces": _none("all methods have the same endpoint, that of rpc.without_namespace"),
    # --- what is listened to
    "websocket.message_size_limit": Counterpart("websocket.message_size_limit"),
    "websocket.disabled": _none("WebSocket is always on"),
    "websocket.handler_prefix": _none(
        f"{_PATH}: /connection/websocket", "/connection/websocket"
    ),
    "websocket.compression": _none("messages are not compressed"),
    "websocket.compression_min_size": _none("messages are not compressed"),
    "websocket.compression_level": _none("messages are not compressed"),
    "websocket.read_buffer_size": _none(_BUFFERS),
    "websocket.write_buffer_size": _none(_BUFFERS),
    "websocket.use_write_buffer_pool": _none(_BUFFERS),
    "websocket.write_timeout": _none(
        "a client that does not read is closed when client.queue_max_size is reached"
    ),
    "sse": _none(_TRANSPORT),
    "http_stream": _none(_TRANSPORT),
    "webtransport": _none(_TRANSPORT),
    "uni_websocket": _none(_TRANSPORT),
    "uni_sse": _none(_TRANSPORT),
    "uni_http_stream": _none(_TRANSPORT),
    "uni_grpc": _none(_TRANSPORT),
    "emulation": _none(_TRANSPORT),
    "http_api.disabled": _none("without http_api.key every request is refused"),
    "http_api.handler_prefix": _none(f"{_PATH}: /api", "/api"),
    "http_api.external": _always("the API is on the public port always; only a key opens it"),
    "http_api.insecure": _none("the API needs http_api.key always"),
    "grpc_api": _none(_API_ONLY),
    "consumers": _none(_API_ONLY),
    # --- operation
    "admin.enabled": _always("the console is on the admin port always: docs/how-to/admin-port.md"),
    "admin.password": _none(
        "changes in the console need admin.key, of 32 bytes or more: openssl rand -hex 32"
    ),
    "admin.secret": _none("it is not needed: admin.key is the one secret of the admin port"),
    "admin.insecure": _none("changes in the console need admin.key always"),
    "admin.external": _none("set server.admin_host: docs/how-to/admin-port.md"),
    "admin.handler_prefix": _none(f"{_PATH}: / of the admin port"),
    "admin.web_path": _none("the console's files are a part of the package"),
    "admin.web_proxy_address": _none("the console's files are a part of the package"),
    "admin.oidc": _none(_PRO),
    "prometheus.enabled": _always(
        "/metrics is on the admin port always; its names begin with app_: docs/reference/metrics.md"
    ),
    "prometheus.handler_prefix": _none(f"{_PATH}: /metrics", "/metrics"),
    "prometheus.instrument_http_handlers": _none("docs/reference/metrics.md has what is measured"),
    "health.enabled": _always("/health and /ready are always on", True),
    "health.handler_prefix": _none(f"{_PATH}: /health", "/health"),
    "swagger": _none("docs/reference has the pages for people"),
    "debug": _none("there is no profiler"),
    "dev": _none("the console sends and receives messages"),
    "init": _none(_TRANSPORT),
    "graphite": _none("metrics are for Prometheus, which can pass them on"),
    "opentelemetry": _none("there are no traces"),
    "usage_stats": _always("nothing is sent anywhere", True),
    "node": _none("a worker is named after its machine and its slot"),
    "log.level": Counterpart("log.level", convert=_level),
    "log.file": _none("logs are written to standard output"),
    "pid_file": _none("the supervisor stays in the foreground, under a service manager"),
    "enable_unreleased_features": _none("there are none"),
    "shutdown.timeout": Counterpart(
        "shutdown.stop_grace_period",
        "there connections are closed at once; here a drain spreads them, with shutdown.drain_window",
    ),
    # --- Centrifugo PRO
    **dict.fromkeys(
        (
            "brokers", "cache", "clickhouse_analytics", "database", "distributed_rate_limit", "license",
            "presence_managers", "push_notifications", "singleflight", "state", "token_revoke",
            "user_block", "user_status", "user_tokens_invalidate",
        ),
        _none(_PRO),
    ),
}  # fmt: skip


def is_own(key: str) -> bool:
    """Whether Centrifugo has no option of this name with this meaning."""
    return any(key.startswith(one) if one.endswith(".") else key == one for one in OWN)


def counterpart(key: str) -> Counterpart | None:
    """The row of an option, or that of the part in which it stands; None without one."""
    while key and key not in COUNTERPARTS:
        key = key.rpartition(".")[0]
    return COUNTERPARTS.get(key)
