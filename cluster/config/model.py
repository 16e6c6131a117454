"""Every option with its default, its limits and its text in the reference.

- A section is a frozen dataclass. The metadata of a field is all that the reader needs to know.
- Options of the protocol have Centrifugo's names, so that its configuration carries over.
- 0 turns a limit off where the text says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.config.channel_options import ChannelConfig
from cluster.config.option_fields import (
    boolean,
    byte_size,
    choice,
    integer,
    optional,
    port_number,
    seconds,
    secret,
    string,
    strings,
    tables,
    url,
)
from cluster.config.proxy_options import ClientProxies, NamedProxy, RpcConfig


@dataclass(frozen=True, slots=True)
class TokenConfig:
    """Keys of tokens, and whom the tokens must be for."""

    hmac_secret_key: str = secret(
        text="secret of HS256 tokens, 32 random bytes or more; of HS384 ones with 48, of HS512 with 64"
    )
    hmac_previous_secret_key: str = secret(
        text="the secret before, whose tokens are accepted too while keys are changed"
    )
    hmac_previous_secret_key_valid_until: int = integer(
        0, text="Unix time from which on the previous secret is not accepted; 0 is never"
    )
    rsa_public_key: str = secret(
        text="public key of RS256, RS384, RS512, PS256, PS384 and PS512 tokens, in PEM; 2048 bits or more"
    )
    ecdsa_public_key: str = secret(
        text="public key in PEM: on P-256 of ES256 tokens, on P-384 of ES384, on P-521 of ES512"
    )
    jwks_public_endpoint: str = url(
        "", text="URL of a JSON Web Key Set; its keys verify the tokens that name one of them (kid)"
    )
    jwks_file: str = optional("", text="file with a JSON Web Key Set, instead of the URL")
    audience: str = optional("", text="what the claim aud must be or have; empty is any")
    issuer: str = optional("", text="what the claim iss must be; empty is any")


@dataclass(frozen=True, slots=True)
class SubscriptionTokenConfig(TokenConfig):
    """Keys of subscription tokens; if off, they have those of connection tokens."""

    enabled: bool = boolean(False, text="subscription tokens have keys of their own, these")


@dataclass(frozen=True, slots=True)
class PersonalChannelConfig:
    """The channel to which the server subscribes every connection of a user."""

    enabled: bool = boolean(False, text="subscribe each user's connections to `#<user>`")
    personal_channel_namespace: str = optional(
        "", text="namespace of the personal channels, `<namespace>:#<user>`; none if empty"
    )
    single_connection: bool = boolean(
        False, text="a connect closes the user's other connections, at all workers, with 3504"
    )


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client may do, and how long it may be silent."""

    insecure: bool = boolean(False, text="every client may do everything; for development only")
    allowed_origins: tuple[str, ...] = strings(text="origins of pages that may connect; * is any")
    token: TokenConfig = field(default_factory=TokenConfig)
    subscription_token: SubscriptionTokenConfig = field(default_factory=SubscriptionTokenConfig)
    proxy: ClientProxies = field(default_factory=ClientProxies)
    allow_anonymous_connect_without_token: bool = boolean(
        False, text="a client without a token may connect, as an anonymous user"
    )
    disallow_anonymous_connection_tokens: bool = boolean(
        False, text="a connection token without a user is refused with 3507"
    )
    expired_close_delay: float = seconds(
        25.0, text="time after its expiry for which a connection may still be refreshed"
    )
    expired_sub_close_delay: float = seconds(
        25.0, text="time after its expiry for which a subscription may still be refreshed"
    )
    subscribe_to_user_personal_channel: PersonalChannelConfig = field(
        default_factory=PersonalChannelConfig
    )
    ping_interval: float = seconds(25.0, minimum=0.1, text="time between two pings")
    pong_timeout: float = seconds(8.0, minimum=0.05, text="longest time from a ping to its pong")
    stale_close_delay: float = seconds(
        10.0, minimum=0.1, text="longest time from the handshake to the connect command"
    )
    queue_max_size: int = byte_size(
        1048576, minimum=1024, text="unsent bytes per connection; above, it is closed with 3008"
    )
    channel_limit: int = integer(128, minimum=1, text="subscriptions per connection")
    command_rate_limit: int = integer(
        500,
        text="commands and control frames per second and connection; above, 111 and delays, then 3013;"
        " 0 is off",
    )
    command_burst: int = integer(
        1000, minimum=1, text="commands and control frames that a connection may send at once"
    )
    presence_update_interval: float = seconds(
        27.0, minimum=0.1, text="time between two renewals of a presence entry"
    )
    presence_ttl: float = seconds(
        60.0,
        minimum=0.2,
        text="time a presence entry lives after its last renewal: the lease of a worker that was killed",
    )
    history_max_publication_limit: int = integer(
        300, minimum=1, text="publications per history reply"
    )
    history_max_publication_bytes: int = byte_size(
        262144, minimum=1024, text="bytes of publications per history reply, which ends before them"
    )
    recovery_max_publication_limit: int = integer(300, minimum=1, text="publications per recovery")
    channel_position_check_delay: float = seconds(
        40.0,
        minimum=0.1,
        text="time after which the position of an idle channel is compared with its stream",
    )
    connection_rate_limit: int = integer(0, text="new connections per second and worker; 0 is off")
    connection_limit: int = integer(0, text="connections per worker; 0 is off")
    connection_limit_per_address: int = integer(
        0, text="connections of one IPv4 address or IPv6 /64, to nginx or a worker; 0 is off"
    )
    connection_rate_limit_per_address: int = integer(
        0, text="new connections per second of one IPv4 address or IPv6 /64; 0 is off"
    )
    user_connection_limit: int = integer(
        0, text="connections of one user, at all workers; above, 3504; 0 is off"
    )
    connect_concurrency: int = integer(
        256, minimum=1, text="connects per worker that may wait for the store at a time"
    )


@dataclass(frozen=True, slots=True)
class WebsocketConfig:
    """WebSocket connections."""

    message_size_limit: int = byte_size(
        65536, minimum=128, text="largest message a client may send"
    )


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Sessions: records that outlive a connection."""

    ttl: float = seconds(
        300.0, minimum=1.0, text="time a session is kept after its last connection has ended"
    )
    state_max_size: int = byte_size(65536, text="largest state of a session, as JSON")
    short_lived: float = seconds(
        10.0, text="an empty session ends with its connection if that was shorter"
    )


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """The store that carries publications and sessions."""

    redis_urls: tuple[str, ...] = strings(
        text="shards, chosen by channel; if empty, a Valkey is started", is_secret=True
    )
    redis_password: str = secret(text="password of the servers whose URL names none")
    sentinel_password: str = secret(text="password of the sentinels whose URL names none")
    prefix: str = string("ws", text="prefix of every key; letters, digits and -_.")
    timeout: float = seconds(4.0, minimum=0.05, text="time a request to the store may take")
    read_concurrency: int = integer(
        16,
        minimum=1,
        maximum=200,
        text="reads of publications that a worker may have in flight; the others wait",
    )
    valkey_maxmemory: int = byte_size(
        0,
        minimum=0,
        text="memory of the embedded Valkey; 0 is half of the machine's or container's",
    )
    canary_interval: float = seconds(1.0, minimum=0.05, text="time between two canary publications")
    deaf_after: float = seconds(
        5.0, minimum=0.1, text="a worker that has received no canary for so long is not ready"
    )


@dataclass(frozen=True, slots=True)
class ShutdownConfig:
    """How long a shutdown may take: drain_window < timeout < stop_grace_period."""

    timeout: float = seconds(10.0, minimum=0.1, text="longest drain of a worker")
    drain_window: float = seconds(3.0, text="time over which the closes are spread")
    stop_grace_period: float = seconds(
        30.0, minimum=0.2, text="processes that still run after it are killed"
    )


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Ports, processes and paths of this machine."""

    host: str = string(
        "0.0.0.0", text="address of the public port and, without nginx, of the workers' ports"
    )
    port: int = port_number(8000, text="public port")
    admin_host: str = string(
        "127.0.0.1",
        text="address of the admin port; in a container, or for a Prometheus elsewhere, 0.0.0.0",
    )
    admin_port: int = port_number(8001, text="admin port")
    instance: str = optional(
        "",
        text="host:port by which Prometheus knows this replica, for its logs; a name stands for that of its addresses that is this machine's",
    )
    trusted_proxies: tuple[str, ...] = strings(
        text="addresses and networks of proxies whose X-Forwarded-For is believed; loopback always is"
    )
    worker_port_base: int = port_number(
        8101, text="port of worker slot 0; on loopback only if nginx is on"
    )
    workers: int = integer(0, maximum=512, text="worker processes; 0 is one per CPU")
    data_dir: str = optional("", text="directory of the state; the user's state directory if empty")
    nginx: bool = boolean(True, text="serve the public port with nginx")
    user: str = optional(
        "nobody",
        text="user that every process becomes if the program is started as root; root keeps it",
    )


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The admin port."""

    key: str = secret(text="key that requests need to change something; 32 random bytes or more")
    connection_limit: int = integer(
        256, minimum=16, maximum=65536, text="open connections to the admin port"
    )


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    """The web console: the servers it queries, and the links it shows."""

    prometheus_url: str = url(
        "http://127.0.0.1:9090",
        text="address at which the server queries Prometheus; empty is none",
    )
    alertmanager_url: str = url(
        "http://127.0.0.1:9093",
        text="address at which the server queries Alertmanager; empty is none",
    )
    prometheus_link: str = url(
        "", text="address of Prometheus for the browser; prometheus_url if empty"
    )
    alertmanager_link: str = url(
        "", text="address of Alertmanager for the browser; alertmanager_url if empty"
    )
    grafana_link: str = url(
        "http://127.0.0.1:3000",
        text="address of Grafana for the browser; empty is none",
    )
    viewers: int = integer(
        32,
        minimum=1,
        maximum=1000,
        text="browsers without the key that may watch at a time; 8 with it have places of their own",
    )


@dataclass(frozen=True, slots=True)
class ApiKeyConfig:
    """One more key of the server HTTP API, which may be limited."""

    name: str = string("", text="its name, for people and logs")
    key: str = secret(text="the key; 32 random bytes or more")
    methods: tuple[str, ...] = strings(text="methods that it may call; empty is all")
    namespaces: tuple[str, ...] = strings(
        text="namespaces whose channels it may use, `without_namespace` for the others; empty is all"
    )


@dataclass(frozen=True, slots=True)
class HttpApiConfig:
    """The server HTTP API."""

    key: str = secret(text="key of the HTTP API; 32 random bytes or more")
    keys: tuple[ApiKeyConfig, ...] = tables(ApiKeyConfig)
    error_mode: str = choice(
        "", ("", "transport"), text="transport: an error has an HTTP status, and stands alone"
    )


@dataclass(frozen=True, slots=True)
class AppConfig:
    """The application in Python that the workers run."""

    target: str = optional("", text="the application, as package.module:app; empty is none")
    reload: bool = boolean(
        False, text="roll the workers when its code changes; for development only"
    )
    handler_timeout: float = seconds(
        4.0, minimum=0.01, text="time a handler may take, its wait for a place included"
    )
    handler_concurrency: int = integer(
        256,
        minimum=1,
        maximum=100_000,
        text="handlers per worker that may run at a time; four times as many may wait",
    )
    http_concurrency: int = integer(
        1024,
        minimum=1,
        maximum=100_000,
        text="requests below /app/ per worker in progress, streams included; above it they get 503",
    )


@dataclass(frozen=True, slots=True)
class BalanceConfig:
    """Moving connections from workers that have more than the others."""

    enabled: bool = boolean(
        False, text="close surplus connections with 3011, so that their clients reconnect elsewhere"
    )
    interval: float = seconds(
        5.0, minimum=0.1, text="time between two reports of a worker; after three it counts as gone"
    )
    threshold_percent: int = integer(
        10,
        minimum=1,
        maximum=100,
        text="distance from the mean at which a worker is out of balance",
    )
    after: float = seconds(
        30.0,
        minimum=0.1,
        text="time for which the workers must be out of balance, and all be ready",
    )
    shed_percent_per_minute: int = integer(
        30, minimum=1, maximum=100, text="most of its connections that a worker closes in a minute"
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The level and format of the logs."""

    level: str = choice(
        "info", ("debug", "info", "warning", "error"), text="lowest level that is written"
    )
    format: str = choice(
        "auto", ("auto", "json", "console"), text="auto writes JSON unless on a terminal"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All options."""

    client: ClientConfig = field(default_factory=ClientConfig)
    channel: ChannelConfig = field(default_factory=ChannelConfig)
    rpc: RpcConfig = field(default_factory=RpcConfig)
    proxies: tuple[NamedProxy, ...] = tables(NamedProxy)
    websocket: WebsocketConfig = field(default_factory=WebsocketConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    broker: BrokerConfig = field(default_factory=BrokerConfig)
    shutdown: ShutdownConfig = field(default_factory=ShutdownConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
    http_api: HttpApiConfig = field(default_factory=HttpApiConfig)
    app: AppConfig = field(default_factory=AppConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    log: LogConfig = field(default_factory=LogConfig)
