"""The flat names of Centrifugo 5, such as `token_hmac_secret_key`, as the sections of version 6.

Both may stand in one file. Source: https://centrifugal.dev/docs/getting-started/migration_v6 and the
options that https://centrifugal.dev/docs/5/server/configuration describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cluster.config import ChannelOptions
from cluster.config.reader import options_of
from cluster.import_config.formats import Document

#: Sections of version 6. Where version 5 has a switch of the same name, its value is no table.
SECTIONS: Final = frozenset(
    {
        "admin", "broker", "channel", "client", "debug", "dev", "emulation", "engine", "graphite",
        "grpc_api", "health", "http_api", "http_server", "http_stream", "init", "log", "map_broker",
        "node", "opentelemetry", "presence_manager", "prometheus", "rpc", "shutdown", "sse", "swagger",
        "uni_grpc", "uni_http_stream", "uni_sse", "uni_websocket", "usage_stats", "websocket",
        "webtransport",
    }
)  # fmt: skip
#: Named alike in both versions.
_AT_THE_TOP: Final = frozenset({"consumers", "enable_unreleased_features", "pid_file", "proxies"})
#: Names that follow no rule.
_SINGLE: Final[Mapping[str, str]] = {
    "address": "http_server.address",
    "port": "http_server.port",
    "internal_address": "http_server.internal_address",
    "internal_port": "http_server.internal_port",
    "tls_external": "http_server.tls_external",
    "http3": "http_server.http3.enabled",
    "engine": "engine.type",
    "name": "node.name",
    "namespaces": "channel.namespaces",
    "rpc_namespaces": "rpc.namespaces",
    "rpc_proxy_name": "rpc.without_namespace.proxy_name",
    "allowed_origins": "client.allowed_origins",
    "allow_anonymous_connect_without_token": "client.allow_anonymous_connect_without_token",
    "disallow_anonymous_connection_tokens": "client.disallow_anonymous_connection_tokens",
    "ping_interval": "client.ping_interval",
    "pong_timeout": "client.pong_timeout",
    "separate_subscription_token_config": "client.subscription_token.enabled",
    "user_subscribe_to_personal": "client.subscribe_to_user_personal_channel.enabled",
    "user_personal_channel_namespace": (
        "client.subscribe_to_user_personal_channel.personal_channel_namespace"
    ),
    "user_personal_single_connection": "client.subscribe_to_user_personal_channel.single_connection",
    "global_history_meta_ttl": "channel.history_meta_ttl",
    "global_presence_ttl": "engine.redis.presence_ttl",
    "global_redis_presence_user_mapping": "engine.redis.presence_user_mapping",
    "proxy_connect_endpoint": "client.proxy.connect.endpoint",
    "proxy_connect_timeout": "client.proxy.connect.timeout",
    "proxy_refresh_endpoint": "client.proxy.refresh.endpoint",
    "proxy_refresh_timeout": "client.proxy.refresh.timeout",
    "proxy_rpc_endpoint": "rpc.proxy.endpoint",
    "proxy_rpc_timeout": "rpc.proxy.timeout",
    "redis_use_lists": "engine.redis.history_use_lists",
    "usage_stats_disable": "usage_stats.disabled",
    "websocket_disable": "websocket.disabled",
    "api_disable": "http_api.disabled",
}
#: Beginnings of names, the longer ones first; what follows is the option's name in the section.
_BEGINNINGS: Final = (
    ("subscription_token_", "client.subscription_token."),
    ("redis_sentinel_tls_", "engine.redis.sentinel_tls."),
    ("redis_tls_", "engine.redis.tls."),
    ("redis_", "engine.redis."),
    ("token_", "client.token."),
    ("client_", "client."),
    ("channel_", "channel."),
    ("proxy_subscribe_stream_", "channel.proxy.subscribe_stream."),
    ("proxy_sub_refresh_", "channel.proxy.sub_refresh."),
    ("proxy_subscribe_", "channel.proxy.subscribe."),
    ("proxy_publish_", "channel.proxy.publish."),
    ("uni_http_stream_", "uni_http_stream."),
    ("uni_websocket_", "uni_websocket."),
    ("uni_grpc_", "uni_grpc."),
    ("uni_sse_", "uni_sse."),
    ("http_stream_", "http_stream."),
    ("sse_", "sse."),
    ("websocket_", "websocket."),
    ("webtransport_", "webtransport."),
    ("grpc_api_", "grpc_api."),
    ("api_", "http_api."),
    ("admin_", "admin."),
    ("tls_autocert_", "http_server.tls_autocert."),
    ("tls_", "http_server.tls."),
    ("nats_", "broker.nats."),
    ("graphite_", "graphite."),
    ("opentelemetry_", "opentelemetry."),
    ("prometheus_", "prometheus."),
    ("health_", "health."),
    ("swagger_", "swagger."),
    ("emulation_", "emulation."),
    ("log_", "log."),
    ("node_", "node."),
    ("rpc_ping_", "rpc.ping."),
    ("rpc_", "rpc."),
    ("shutdown_", "shutdown."),
)  # fmt: skip
#: Switches of version 5 that became the option `enabled` of what they switch on.
_SWITCHES: Final[Mapping[str, str]] = {
    "redis_tls": "engine.redis.tls.enabled",
    "redis_sentinel_tls": "engine.redis.sentinel_tls.enabled",
    "tls": "http_server.tls.enabled",
    "tls_autocert": "http_server.tls_autocert.enabled",
    "rpc_ping": "rpc.ping.enabled",
    "uni_grpc_tls": "uni_grpc.tls.enabled",
    "grpc_api_tls": "grpc_api.tls.enabled",
}
#: Options of version 5 that switch something on if they have a value, and the switch of version 6.
_SWITCHED_ON_BY: Final[Mapping[str, str]] = {
    "proxy_connect_endpoint": "client.proxy.connect.enabled",
    "proxy_refresh_endpoint": "client.proxy.refresh.enabled",
}
#: Endings of the options of TLS in version 5, and what they became. A path became text in PEM or a path.
_TLS_ENDINGS: Final[Mapping[str, str]] = {
    "key": "key_pem", "cert": "cert_pem", "root_ca": "server_ca_pem", "client_ca": "client_ca_pem",
    "root_ca_pem": "server_ca_pem",
}  # fmt: skip
#: Options of channels that version 5 has at the top, for channels without a namespace.
_CHANNEL_OPTIONS: Final = frozenset(
    {
        "allow_history_for_anonymous", "allow_history_for_client", "allow_history_for_subscriber",
        "allow_positioning", "allow_presence_for_anonymous", "allow_presence_for_client",
        "allow_presence_for_subscriber", "allow_publish_for_anonymous", "allow_publish_for_client",
        "allow_publish_for_subscriber", "allow_recovery", "allow_subscribe_for_anonymous",
        "allow_subscribe_for_client", "allow_user_limited_channels", "allowed_delta_types",
        "channel_regex", "delta_publish", "force_positioning", "force_push_join_leave",
        "force_recovery", "force_recovery_mode", "history_meta_ttl", "history_size", "history_ttl",
        "join_leave", "presence", "publish_proxy_name", "subscribe_proxy_name",
        "subscribe_stream_proxy_name",
    }
) | {name for name, _ in options_of(ChannelOptions)}  # fmt: skip
#: Options of channels with another name in version 5, at the top and in a namespace.
_CHANNEL_SWITCHES: Final[Mapping[str, str]] = {
    "proxy_subscribe": "subscribe_proxy_enabled",
    "proxy_publish": "publish_proxy_enabled",
    "proxy_sub_refresh": "sub_refresh_proxy_enabled",
    "proxy_subscribe_stream": "subscribe_stream_proxy_enabled",
}


def sectioned_name(name: str) -> str:
    """The dotted name of version 6 for a name of version 5, or the name itself if it has none."""
    if name in _AT_THE_TOP:
        return name
    if name in _SINGLE or name in _SWITCHES:
        return _SINGLE.get(name) or _SWITCHES[name]
    if name in _CHANNEL_SWITCHES or name in _CHANNEL_OPTIONS:
        return f"channel.without_namespace.{_CHANNEL_SWITCHES.get(name, name)}"
    if name in SECTIONS:
        return f"{name}.enabled"
    for beginning, section in _BEGINNINGS:
        if name.startswith(beginning):
            option = name.removeprefix(beginning)
            return section + (_TLS_ENDINGS.get(option, option) if "tls." in section else option)
    return name


def sectioned(document: Document) -> tuple[Document, dict[str, str]]:
    """The options by the names of version 6.

    Returns:
        The tree, and the names of version 5 that were found, by their names of version 6. An option that
        is given in both ways has the value of version 6.
    """
    tree: Document = {}
    flat: dict[str, str] = {}
    for name, value in document.items():
        if name in SECTIONS and isinstance(value, dict):
            tree[name] = _joined(value, tree.get(name))
            continue
        dotted = sectioned_name(name)
        if dotted != name:
            flat[dotted] = name
        _put(tree, dotted, _namespaces(value) if dotted == "channel.namespaces" else value)
        if value and (switch := _SWITCHED_ON_BY.get(name)):
            _put(tree, switch, True)
            flat[switch] = name
    return tree, flat


def _namespaces(value: object) -> object:
    if not isinstance(value, list):
        return value
    return [
        {_CHANNEL_SWITCHES.get(name, name): one for name, one in item.items()}
        if isinstance(item, dict)
        else item
        for item in value
    ]


def _joined(table: Document, before: object) -> Document:
    """A section with what flat names have put into it before; what the section says itself counts."""
    if not isinstance(before, dict):
        return table
    joined: Document = dict(before)
    for name, value in table.items():
        joined[name] = _joined(value, joined.get(name)) if isinstance(value, dict) else value
    return joined


def _put(tree: Document, dotted: str, value: object) -> None:
    *sections, name = dotted.split(".")
    table: Any = tree
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            # Stays at the top, where it is listed as what has no counterpart.
            tree.setdefault(dotted, value)
            return
    table.setdefault(name, value)
