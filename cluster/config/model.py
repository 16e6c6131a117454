"""Every option, its default and its limits.

Rules
- A section is a frozen dataclass; an option is a field made by `_seconds`, `_count`, `_bytes`,
  `_secret`, `_word` or a plain default. The field's metadata is all that reading needs to know.
- Protocol options have Centrifugo's names, so its configuration carries over.
- 0 switches a limit off where the text says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MAXIMUM_PORT: Final = 65535


def _seconds(default: float, *, minimum: float = 0.0, text: str = "") -> Any:
    return field(default=default, metadata={"kind": "seconds", "minimum": minimum, "text": text})


def _count(
    default: int,
    *,
    minimum: int = 0,
    maximum: int | None = None,
    kind: str = "count",
    text: str = "",
) -> Any:
    return field(
        default=default,
        metadata={"kind": kind, "minimum": minimum, "maximum": maximum, "text": text},
    )


def _bytes(default: int, *, minimum: int = 1, text: str = "") -> Any:
    return _count(default, minimum=minimum, kind="bytes", text=text)


def _secret(text: str = "") -> Any:
    return field(default="", repr=False, metadata={"kind": "secret", "text": text})


def _word(
    default: str, *, choices: tuple[str, ...] = (), empty: bool = False, text: str = ""
) -> Any:
    return field(
        default=default,
        metadata={"kind": "word", "choices": choices, "empty": empty, "text": text},
    )


def _switch(default: bool, *, text: str = "") -> Any:
    return field(default=default, metadata={"kind": "switch", "text": text})


def _words(*, text: str = "", is_secret: bool = False) -> Any:
    return field(default=(), repr=not is_secret, metadata={"kind": "words", "text": text})


@dataclass(frozen=True, slots=True)
class TokenConfig:
    """How connection tokens are verified."""

    hmac_secret_key: str = _secret("key of the HMAC that signs connection tokens")


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client may do, and how long it may stay silent."""

    insecure: bool = _switch(False, text="everybody may do everything; for development only")
    allowed_origins: tuple[str, ...] = _words(text="origins a browser may connect from; * is any")
    token: TokenConfig = field(default_factory=TokenConfig)
    ping_interval: float = _seconds(25.0, minimum=0.1, text="time between two pings")
    pong_timeout: float = _seconds(8.0, minimum=0.05, text="time a pong may take")
    stale_close_delay: float = _seconds(10.0, minimum=0.1, text="time a client has for its connect")
    queue_max_size: int = _bytes(
        1048576, minimum=1024, text="unsent bytes per connection, then 3008"
    )
    channel_limit: int = _count(128, minimum=1, text="subscriptions per connection")
    history_max_publication_limit: int = _count(
        300, minimum=1, text="publications per history reply"
    )
    recovery_max_publication_limit: int = _count(300, minimum=1, text="publications per recovery")
    channel_position_check_delay: float = _seconds(
        40.0, minimum=0.1, text="time after which an idle channel is compared with its stream"
    )
    connection_rate_limit: int = _count(0, text="new connections per second and worker; 0 is off")
    connection_limit: int = _count(0, text="connections per worker; 0 is off")
    connect_concurrency: int = _count(256, minimum=1, text="connects in progress against the store")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """What holds for the channels of one namespace."""

    history_size: int = _count(0, text="publications kept per channel; 0 keeps none")
    history_ttl: float = _seconds(0.0, text="time a publication is kept; 0 keeps none")
    history_meta_ttl: float = _seconds(2592000.0, minimum=1.0, text="time a stream's top is kept")
    force_positioning: bool = _switch(False, text="every subscription is positioned")
    allow_positioning: bool = _switch(False, text="a client may ask for a positioned subscription")
    force_recovery: bool = _switch(False, text="every subscription is recoverable")
    allow_recovery: bool = _switch(False, text="a client may ask for a recoverable subscription")


@dataclass(frozen=True, slots=True)
class Namespace:
    """Options of the channels named `<name>:…`; in a file they stand flat beside the name."""

    name: str
    options: ChannelOptions = field(default_factory=ChannelOptions)


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """Channels: names and what holds for them."""

    max_length: int = _count(255, minimum=1, maximum=4096, text="longest name of a channel")
    without_namespace: ChannelOptions = field(default_factory=ChannelOptions)
    namespaces: tuple[Namespace, ...] = field(default=(), metadata={"kind": "namespaces"})


@dataclass(frozen=True, slots=True)
class WebsocketConfig:
    """The WebSocket itself."""

    message_size_limit: int = _bytes(65536, minimum=128, text="longest frame a client may send")


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Sessions: records that outlive a connection."""

    ttl: float = _seconds(300.0, minimum=1.0, text="time a session lives past its last connection")
    state_max_size: int = _bytes(65536, text="largest state of an application, as JSON")
    short_lived: float = _seconds(
        10.0, text="a session whose connection lived shorter and left nothing ends with it"
    )


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """The store that carries publications and sessions."""

    redis_urls: tuple[str, ...] = _words(
        text="shards by channel; none starts an embedded Valkey", is_secret=True
    )
    prefix: str = _word("ws", text="first part of every key")
    timeout: float = _seconds(4.0, minimum=0.05, text="time a request to the store may take")
    canary_interval: float = _seconds(
        1.0, minimum=0.05, text="time between two canary publications"
    )
    deaf_after: float = _seconds(5.0, minimum=0.1, text="silence after which a worker is not ready")


@dataclass(frozen=True, slots=True)
class ShutdownConfig:
    """How long ending may take: drain_window < timeout < stop_grace_period."""

    timeout: float = _seconds(10.0, minimum=0.1, text="longest drain of a worker")
    drain_window: float = _seconds(3.0, text="time over which closes are spread")
    stop_grace_period: float = _seconds(30.0, minimum=0.2, text="then whoever is left is killed")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Doors, processes and places on this machine."""

    host: str = _word("0.0.0.0", text="address every door listens on")
    port: int = _count(8000, maximum=MAXIMUM_PORT, kind="port", text="public door")
    admin_port: int = _count(8001, maximum=MAXIMUM_PORT, kind="port", text="operator's door")
    worker_port_base: int = _count(
        8101,
        maximum=MAXIMUM_PORT,
        kind="port",
        text="port of slot 0; on loopback only while nginx is on",
    )
    workers: int = _count(0, maximum=512, text="worker processes; 0 is one per CPU")
    data_dir: str = _word(
        "", empty=True, text="where state lives; the user's state directory if empty"
    )
    nginx: bool = _switch(True, text="run an nginx as the public door")


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The operator's door."""

    key: str = _secret("key for whatever changes something")


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    """The page at the operator's door: whom it asks, and where its buttons lead."""

    prometheus_url: str = _word(
        "http://127.0.0.1:9090", empty=True, text="where the server asks Prometheus; empty is none"
    )
    alertmanager_url: str = _word(
        "http://127.0.0.1:9093",
        empty=True,
        text="where the server asks Alertmanager; empty is none",
    )
    prometheus_link: str = _word(
        "", empty=True, text="where a browser finds Prometheus; prometheus_url if empty"
    )
    alertmanager_link: str = _word(
        "", empty=True, text="where a browser finds Alertmanager; alertmanager_url if empty"
    )
    grafana_link: str = _word(
        "http://127.0.0.1:3000", empty=True, text="where a browser finds Grafana; empty is none"
    )
    viewers: int = _count(32, minimum=1, maximum=1000, text="browsers that may look at a time")


@dataclass(frozen=True, slots=True)
class HttpApiConfig:
    """The server HTTP API."""

    key: str = _secret("key of the HTTP API")


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged, and how it looks."""

    level: str = _word("info", choices=("debug", "info", "warning", "error"))
    format: str = _word(
        "auto", choices=("auto", "json", "console"), text="auto is JSON when not on a terminal"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set."""

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
    log: LogConfig = field(default_factory=LogConfig)
