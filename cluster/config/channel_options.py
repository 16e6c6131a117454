"""The options of channels and their namespaces."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.config.option_fields import (
    boolean,
    choice,
    integer,
    optional,
    seconds,
    string,
    strings,
)
from cluster.config.proxy_options import DEFAULT_PROXY, ChannelProxies


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """Options of the channels of one namespace."""

    history_size: int = integer(0, text="publications kept per channel; 0 keeps none")
    history_ttl: float = seconds(0.0, text="time a publication is kept; 0 keeps none")
    history_meta_ttl: float = seconds(
        2592000.0, minimum=1.0, text="time the offset and epoch of a channel are kept"
    )
    force_positioning: bool = boolean(False, text="every subscription is positioned")
    allow_positioning: bool = boolean(False, text="a client may ask for a positioned subscription")
    force_recovery: bool = boolean(False, text="every subscription is recoverable")
    allow_recovery: bool = boolean(False, text="a client may ask for a recoverable subscription")
    presence: bool = boolean(False, text="the clients of a channel are known")
    join_leave: bool = boolean(False, text="joins and leaves are published")
    force_push_join_leave: bool = boolean(
        False, text="every subscription gets joins and leaves; else those that ask for them"
    )
    allow_subscribe_for_client: bool = boolean(False, text="a user may subscribe without a token")
    allow_subscribe_for_anonymous: bool = boolean(
        False, text="what allows a user to subscribe allows an anonymous one, too"
    )
    allow_publish_for_client: bool = boolean(False, text="a user may publish")
    allow_publish_for_subscriber: bool = boolean(
        False, text="a user may publish in a channel that its connection is subscribed to"
    )
    allow_publish_for_anonymous: bool = boolean(
        False, text="what allows a user to publish allows an anonymous one, too"
    )
    allow_history_for_client: bool = boolean(False, text="a user may read the history")
    allow_history_for_subscriber: bool = boolean(
        False, text="a user may read the history of a channel that its connection is subscribed to"
    )
    allow_history_for_anonymous: bool = boolean(
        False, text="what allows a user to read the history allows an anonymous one, too"
    )
    allow_presence_for_client: bool = boolean(False, text="a user may read the presence")
    allow_presence_for_subscriber: bool = boolean(
        False, text="a user may read the presence of a channel that its connection is subscribed to"
    )
    allow_presence_for_anonymous: bool = boolean(
        False, text="what allows a user to read the presence allows an anonymous one, too"
    )
    allow_user_limited_channels: bool = boolean(
        False, text="the users that a channel names, as in `dialog#42,43`, may subscribe to it"
    )
    subscribe_proxy_enabled: bool = boolean(
        False, text="a proxy decides on a subscribe without a token"
    )
    subscribe_proxy_name: str = string(
        DEFAULT_PROXY, text="default is channel.proxy.subscribe; others are in proxies"
    )
    publish_proxy_enabled: bool = boolean(False, text="a proxy decides on a publish")
    publish_proxy_name: str = string(
        DEFAULT_PROXY, text="default is channel.proxy.publish; others are in proxies"
    )
    sub_refresh_proxy_enabled: bool = boolean(
        False, text="a proxy is asked when a subscription expires; its client need not refresh it"
    )
    sub_refresh_proxy_name: str = string(
        DEFAULT_PROXY, text="default is channel.proxy.sub_refresh; others are in proxies"
    )
    channel_regex: str = optional(
        "",
        text="regular expression that the name must match after the namespace; it takes time that grows"
        " with the length of the name only, which channel.max_length bounds; no back references or"
        " look-around",
    )
    publication_data_format: str = choice(
        "",
        ("", "json", "json_object", "binary"),
        text="what may be published; empty and binary are any data that is not empty: JSON, or bytes of"
        " clients that speak Protobuf",
    )
    force_recovery_mode: str = choice(
        "stream",
        ("stream", "cache"),
        text="what a client recovers: all that it has missed, or the newest publication",
    )
    auto_cache_recover: bool = boolean(
        False, text="every subscribe recovers the newest publication, also without a position"
    )
    allow_tags_filter: bool = boolean(
        False, text="a client may ask for publications with certain tags only"
    )
    allowed_delta_types: tuple[str, ...] = strings(
        text="kinds of deltas that a client may ask for: fossil"
    )
    delta_publish: bool = boolean(
        False, text="send deltas of all publications, not only of those that ask for it"
    )


@dataclass(frozen=True, slots=True)
class Namespace:
    """Options of the channels named `<name>:…`; a file has them beside the name."""

    name: str
    options: ChannelOptions = field(default_factory=ChannelOptions)


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """Channels and their namespaces."""

    max_length: int = integer(
        255, minimum=1, maximum=4096, text="length of the longest channel name"
    )
    private_prefix: str = optional(
        "$", text="a channel whose name begins with it needs a subscription token; empty is none"
    )
    namespace_boundary: str = optional(":", text="ends the namespace in a channel's name")
    user_boundary: str = optional("#", text="begins the list of users in a channel's name")
    user_separator: str = optional(",", text="stands between two users of that list")
    proxy: ChannelProxies = field(default_factory=ChannelProxies)
    without_namespace: ChannelOptions = field(default_factory=ChannelOptions)
    namespaces: tuple[Namespace, ...] = field(default=(), metadata={"kind": "namespaces"})
