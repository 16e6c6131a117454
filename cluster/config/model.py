"""Every option with its default, its limits and its text in the reference.

- A section is a frozen dataclass. The metadata of a field is all that the reader needs to know.
- Options of the protocol have Centrifugo's names, so that its configuration carries over.
- 0 turns a limit off where the text says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MAXIMUM_PORT: Final = 65535


def _option(kind: str, default: Any, text: str, *, is_secret: bool = False, **limits: Any) -> Any:
    metadata = {"kind": kind, "text": text, **limits}
    return field(default=default, repr=not is_secret, metadata=metadata)


def _seconds(default: float, *, minimum: float = 0.0, text: str) -> Any:
    return _option("seconds", default, text, minimum=minimum)


def _integer(default: int, *, minimum: int = 0, maximum: int | None = None, text: str) -> Any:
    return _option("integer", default, text, minimum=minimum, maximum=maximum)


def _bytes(default: int, *, minimum: int = 1, text: str) -> Any:
    return _option("bytes", default, text, minimum=minimum, maximum=None)


def _port(default: int, *, text: str) -> Any:
    return _option("port", default, text, minimum=0, maximum=MAXIMUM_PORT)


def _boolean(default: bool, *, text: str) -> Any:
    return _option("boolean", default, text)


def _string(default: str, *, text: str) -> Any:
    return _option("string", default, text, may_be_empty=False)


def _optional(default: str, *, text: str) -> Any:
    return _option("string", default, text, may_be_empty=True)


def _choice(default: str, choices: tuple[str, ...], *, text: str) -> Any:
    return _option("choice", default, text, choices=choices)


def _secret(*, text: str) -> Any:
    return _option("secret", "", text, is_secret=True, may_be_empty=True)


def _strings(*, is_secret: bool = False, text: str) -> Any:
    return _option("strings", (), text, is_secret=is_secret)


def _tables(of: type) -> Any:
    """A list of tables of the same options; each has a name of its own."""
    return field(default=(), metadata={"kind": "tables", "of": of})


@dataclass(frozen=True, slots=True)
class TokenConfig:
    """Keys of tokens, and whom the tokens must be for."""

    hmac_secret_key: str = _secret(
        text="secret of HS256 tokens, 32 random bytes or more; of HS384 ones with 48, of HS512 with 64"
    )
    hmac_previous_secret_key: str = _secret(
        text="the secret before, whose tokens are accepted too while keys are changed"
    )
    hmac_previous_secret_key_valid_until: int = _integer(
        0, text="Unix time from which on the previous secret is not accepted; 0 is never"
    )
    rsa_public_key: str = _secret(
        text="public key of RS256, RS384, RS512, PS256, PS384 and PS512 tokens, in PEM; 2048 bits or more"
    )
    ecdsa_public_key: str = _secret(
        text="public key in PEM: on P-256 of ES256 tokens, on P-384 of ES384, on P-521 of ES512"
    )
    jwks_public_endpoint: str = _optional(
        "", text="URL of a JSON Web Key Set; its keys verify the tokens that name one of them (kid)"
    )
    jwks_file: str = _optional("", text="file with a JSON Web Key Set, instead of the URL")
    audience: str = _optional("", text="what the claim aud must be or have; empty is any")
    issuer: str = _optional("", text="what the claim iss must be; empty is any")


@dataclass(frozen=True, slots=True)
class SubscriptionTokenConfig(TokenConfig):
    """Keys of subscription tokens; if off, they have those of connection tokens."""

    enabled: bool = _boolean(False, text="subscription tokens have keys of their own, these")


@dataclass(frozen=True, slots=True)
class PersonalChannelConfig:
    """The channel to which the server subscribes every connection of a user."""

    enabled: bool = _boolean(False, text="subscribe each user's connections to `#<user>`")
    personal_channel_namespace: str = _optional(
        "", text="namespace of the personal channels, `<namespace>:#<user>`; none if empty"
    )
    single_connection: bool = _boolean(
        False, text="a connect closes the user's other connections to the same worker with 3504"
    )


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client may do, and how long it may be silent."""

    insecure: bool = _boolean(False, text="every client may do everything; for development only")
    allowed_origins: tuple[str, ...] = _strings(text="origins of pages that may connect; * is any")
    token: TokenConfig = field(default_factory=TokenConfig)
    subscription_token: SubscriptionTokenConfig = field(default_factory=SubscriptionTokenConfig)
    disallow_anonymous_connection_tokens: bool = _boolean(
        False, text="a connection token without a user is refused with 3507"
    )
    expired_close_delay: float = _seconds(
        25.0, text="time after its expiry for which a connection may still be refreshed"
    )
    expired_sub_close_delay: float = _seconds(
        25.0, text="time after its expiry for which a subscription may still be refreshed"
    )
    subscribe_to_user_personal_channel: PersonalChannelConfig = field(
        default_factory=PersonalChannelConfig
    )
    ping_interval: float = _seconds(25.0, minimum=0.1, text="time between two pings")
    pong_timeout: float = _seconds(8.0, minimum=0.05, text="longest time from a ping to its pong")
    stale_close_delay: float = _seconds(
        10.0, minimum=0.1, text="longest time from the handshake to the connect command"
    )
    queue_max_size: int = _bytes(
        1048576, minimum=1024, text="unsent bytes per connection; above, it is closed with 3008"
    )
    channel_limit: int = _integer(128, minimum=1, text="subscriptions per connection")
    command_rate_limit: int = _integer(
        500,
        text="commands and control frames per second and connection; above, 111 and delays, then 3013;"
        " 0 is off",
    )
    command_burst: int = _integer(
        1000, minimum=1, text="commands and control frames that a connection may send at once"
    )
    presence_update_interval: float = _seconds(
        27.0, minimum=0.1, text="time between two renewals of a presence entry"
    )
    presence_ttl: float = _seconds(
        60.0,
        minimum=0.2,
        text="time a presence entry lives after its last renewal: the lease of a worker that was killed",
    )
    history_max_publication_limit: int = _integer(
        300, minimum=1, text="publications per history reply"
    )
    history_max_publication_bytes: int = _bytes(
        262144, minimum=1024, text="bytes of publications per history reply, which ends before them"
    )
    recovery_max_publication_limit: int = _integer(300, minimum=1, text="publications per recovery")
    channel_position_check_delay: float = _seconds(
        40.0,
        minimum=0.1,
        text="time after which the position of an idle channel is compared with its stream",
    )
    connection_rate_limit: int = _integer(0, text="new connections per second and worker; 0 is off")
    connection_limit: int = _integer(0, text="connections per worker; 0 is off")
    connection_limit_per_address: int = _integer(
        0, text="connections of one IPv4 address or IPv6 /64, to nginx or a worker; 0 is off"
    )
    connection_rate_limit_per_address: int = _integer(
        0, text="new connections per second of one IPv4 address or IPv6 /64; 0 is off"
    )
    user_connection_limit: int = _integer(
        0, text="connections of one user, at all workers; above, 3504; 0 is off"
    )
    connect_concurrency: int = _integer(
        256, minimum=1, text="connects per worker that may wait for the store at a time"
    )


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """Options of the channels of one namespace."""

    history_size: int = _integer(0, text="publications kept per channel; 0 keeps none")
    history_ttl: float = _seconds(0.0, text="time a publication is kept; 0 keeps none")
    history_meta_ttl: float = _seconds(
        2592000.0, minimum=1.0, text="time the offset and epoch of a channel are kept"
    )
    force_positioning: bool = _boolean(False, text="every subscription is positioned")
    allow_positioning: bool = _boolean(False, text="a client may ask for a positioned subscription")
    force_recovery: bool = _boolean(False, text="every subscription is recoverable")
    allow_recovery: bool = _boolean(False, text="a client may ask for a recoverable subscription")
    presence: bool = _boolean(False, text="the clients of a channel are known")
    join_leave: bool = _boolean(False, text="joins and leaves are published")
    force_push_join_leave: bool = _boolean(
        False, text="every subscription gets joins and leaves; else those that ask for them"
    )
    allow_subscribe_for_client: bool = _boolean(False, text="a user may subscribe without a token")
    allow_subscribe_for_anonymous: bool = _boolean(
        False, text="what allows a user to subscribe allows an anonymous one, too"
    )
    allow_publish_for_client: bool = _boolean(False, text="a user may publish")
    allow_publish_for_subscriber: bool = _boolean(
        False, text="a user may publish in a channel that its connection is subscribed to"
    )
    allow_publish_for_anonymous: bool = _boolean(
        False, text="what allows a user to publish allows an anonymous one, too"
    )
    allow_history_for_client: bool = _boolean(False, text="a user may read the history")
    allow_history_for_subscriber: bool = _boolean(
        False, text="a user may read the history of a channel that its connection is subscribed to"
    )
    allow_history_for_anonymous: bool = _boolean(
        False, text="what allows a user to read the history allows an anonymous one, too"
    )
    allow_presence_for_client: bool = _boolean(False, text="a user may read the presence")
    allow_presence_for_subscriber: bool = _boolean(
        False, text="a user may read the presence of a channel that its connection is subscribed to"
    )
    allow_presence_for_anonymous: bool = _boolean(
        False, text="what allows a user to read the presence allows an anonymous one, too"
    )
    allow_user_limited_channels: bool = _boolean(
        False, text="the users that a channel names, as in `dialog#42,43`, may subscribe to it"
    )
    channel_regex: str = _optional(
        "",
        text="regular expression that the name must match after the namespace; it takes time that grows"
        " with the length of the name only, which channel.max_length bounds; no back references or"
        " look-around",
    )
    publication_data_format: str = _choice(
        "",
        ("", "json", "json_object", "binary"),
        text="what a client may publish: empty is any data that is not empty; binary is refused",
    )
    force_recovery_mode: str = _choice(
        "stream",
        ("stream", "cache"),
        text="what a client recovers: all that it has missed, or the newest publication",
    )
    auto_cache_recover: bool = _boolean(
        False, text="every subscribe recovers the newest publication, also without a position"
    )
    allow_tags_filter: bool = _boolean(
        False, text="a client may ask for publications with certain tags only"
    )
    allowed_delta_types: tuple[str, ...] = _strings(
        text="kinds of deltas that a client may ask for: fossil"
    )
    delta_publish: bool = _boolean(
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

    max_length: int = _integer(
        255, minimum=1, maximum=4096, text="length of the longest channel name"
    )
    private_prefix: str = _optional(
        "$", text="a channel whose name begins with it needs a subscription token; empty is none"
    )
    namespace_boundary: str = _optional(":", text="ends the namespace in a channel's name")
    user_boundary: str = _optional("#", text="begins the list of users in a channel's name")
    user_separator: str = _optional(",", text="stands between two users of that list")
    without_namespace: ChannelOptions = field(default_factory=ChannelOptions)
    namespaces: tuple[Namespace, ...] = field(default=(), metadata={"kind": "namespaces"})


@dataclass(frozen=True, slots=True)
class WebsocketConfig:
    """WebSocket connections."""

    message_size_limit: int = _bytes(65536, minimum=128, text="largest message a client may send")


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Sessions: records that outlive a connection."""

    ttl: float = _seconds(
        300.0, minimum=1.0, text="time a session is kept after its last connection has ended"
    )
    state_max_size: int = _bytes(65536, text="largest state of a session, as JSON")
    short_lived: float = _seconds(
        10.0, text="an empty session ends with its connection if that was shorter"
    )


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """The store that carries publications and sessions."""

    redis_urls: tuple[str, ...] = _strings(
        text="shards, chosen by channel; if empty, a Valkey is started", is_secret=True
    )
    redis_password: str = _secret(text="password of the servers whose URL names none")
    prefix: str = _string("ws", text="prefix of every key; letters, digits and -_.")
    timeout: float = _seconds(4.0, minimum=0.05, text="time a request to the store may take")
    read_concurrency: int = _integer(
        64,
        minimum=1,
        maximum=200,
        text="reads of publications that a worker may have in flight; the others wait",
    )
    valkey_maxmemory: int = _bytes(
        0,
        minimum=0,
        text="memory of the embedded Valkey; 0 is half of the machine's or container's",
    )
    canary_interval: float = _seconds(
        1.0, minimum=0.05, text="time between two canary publications"
    )
    deaf_after: float = _seconds(
        5.0, minimum=0.1, text="a worker that has received no canary for so long is not ready"
    )


@dataclass(frozen=True, slots=True)
class ShutdownConfig:
    """How long a shutdown may take: drain_window < timeout < stop_grace_period."""

    timeout: float = _seconds(10.0, minimum=0.1, text="longest drain of a worker")
    drain_window: float = _seconds(3.0, text="time over which the closes are spread")
    stop_grace_period: float = _seconds(
        30.0, minimum=0.2, text="processes that still run after it are killed"
    )


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Ports, processes and paths of this machine."""

    host: str = _string(
        "0.0.0.0", text="address of the public port and, without nginx, of the workers' ports"
    )
    port: int = _port(8000, text="public port")
    admin_host: str = _string(
        "127.0.0.1",
        text="address of the admin port; in a container, or for a Prometheus elsewhere, 0.0.0.0",
    )
    admin_port: int = _port(8001, text="admin port")
    trusted_proxies: tuple[str, ...] = _strings(
        text="addresses and networks of proxies whose X-Forwarded-For is believed; loopback always is"
    )
    worker_port_base: int = _port(
        8101, text="port of worker slot 0; on loopback only if nginx is on"
    )
    workers: int = _integer(0, maximum=512, text="worker processes; 0 is one per CPU")
    data_dir: str = _optional(
        "", text="directory of the state; the user's state directory if empty"
    )
    nginx: bool = _boolean(True, text="serve the public port with nginx")
    user: str = _optional(
        "nobody",
        text="user that every process becomes if the program is started as root; root keeps it",
    )


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The admin port."""

    key: str = _secret(text="key that requests need to change something; 32 random bytes or more")
    connection_limit: int = _integer(
        256, minimum=16, maximum=65536, text="open connections to the admin port"
    )


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    """The web console: the servers it queries, and the links it shows."""

    prometheus_url: str = _optional(
        "http://127.0.0.1:9090",
        text="address at which the server queries Prometheus; empty is none",
    )
    alertmanager_url: str = _optional(
        "http://127.0.0.1:9093",
        text="address at which the server queries Alertmanager; empty is none",
    )
    prometheus_link: str = _optional(
        "", text="address of Prometheus for the browser; prometheus_url if empty"
    )
    alertmanager_link: str = _optional(
        "", text="address of Alertmanager for the browser; alertmanager_url if empty"
    )
    grafana_link: str = _optional(
        "http://127.0.0.1:3000",
        text="address of Grafana for the browser; empty is none",
    )
    viewers: int = _integer(
        32,
        minimum=1,
        maximum=1000,
        text="browsers without the key that may watch at a time; 8 with it have places of their own",
    )


@dataclass(frozen=True, slots=True)
class ApiKeyConfig:
    """One more key of the server HTTP API, which may be limited."""

    name: str = _string("", text="its name, for people and logs")
    key: str = _secret(text="the key; 32 random bytes or more")
    methods: tuple[str, ...] = _strings(text="methods that it may call; empty is all")
    namespaces: tuple[str, ...] = _strings(
        text="namespaces whose channels it may use, `without_namespace` for the others; empty is all"
    )


@dataclass(frozen=True, slots=True)
class HttpApiConfig:
    """The server HTTP API."""

    key: str = _secret(text="key of the HTTP API; 32 random bytes or more")
    keys: tuple[ApiKeyConfig, ...] = _tables(ApiKeyConfig)
    error_mode: str = _choice(
        "", ("", "transport"), text="transport: an error has an HTTP status, and stands alone"
    )


@dataclass(frozen=True, slots=True)
class AppConfig:
    """The application in Python that the workers run."""

    target: str = _optional("", text="the application, as package.module:app; empty is none")
    reload: bool = _boolean(
        False, text="roll the workers when its code changes; for development only"
    )
    handler_timeout: float = _seconds(
        4.0, minimum=0.01, text="time a handler may take, its wait for a place included"
    )
    handler_concurrency: int = _integer(
        256,
        minimum=1,
        maximum=100_000,
        text="handlers per worker that may run at a time; four times as many may wait",
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The level and format of the logs."""

    level: str = _choice(
        "info", ("debug", "info", "warning", "error"), text="lowest level that is written"
    )
    format: str = _choice(
        "auto", ("auto", "json", "console"), text="auto writes JSON unless on a terminal"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All options."""

    client: ClientConfig = field(default_factory=ClientConfig)
    channel: ChannelConfig = field(default_factory=ChannelConfig)
    websocket: WebsocketConfig = field(default_factory=WebsocketConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    broker: BrokerConfig = field(default_factory=BrokerConfig)
    shutdown: ShutdownConfig = field(default_factory=ShutdownConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
    http_api: HttpApiConfig = field(default_factory=HttpApiConfig)
    app: AppConfig = field(default_factory=AppConfig)
    log: LogConfig = field(default_factory=LogConfig)
