"""The configuration: its options, their defaults, and how they are read.

- `Config` and its sections are frozen, so a part of the program may keep the one it was given.
- Durations are float seconds; sizes are bytes. Files may write "25s", "720h" or "500ms".
- The environment overrides a file, flags override the environment.
- Every mistake is reported at once (`ConfigError.problems`); an unknown key is a mistake.
- A secret may come from a file (`<name>_file`) and is never part of a repr or a print.
"""

from __future__ import annotations

from cluster.config.channel_options import ChannelConfig, ChannelOptions, Namespace
from cluster.config.channel_regex import ChannelRegex
from cluster.config.model import (
    AdminConfig,
    ApiKeyConfig,
    AppConfig,
    BalanceConfig,
    BrokerConfig,
    ClientConfig,
    Config,
    ConsoleConfig,
    HttpApiConfig,
    LogConfig,
    PersonalChannelConfig,
    ServerConfig,
    SessionConfig,
    ShutdownConfig,
    SubscriptionTokenConfig,
    TokenConfig,
    WebsocketConfig,
)
from cluster.config.proxy_options import ProxyOptions
from cluster.config.proxy_sections import proxies_in_use, proxy_section, proxy_timeouts
from cluster.config.reader import known_keys
from cluster.config.redis_url import REDIS_SCHEMES
from cluster.config.sources import (
    DEVELOPMENT_FILE,
    from_json,
    load,
    printable,
    service_variables,
    to_json,
    without_password,
)

__all__ = [
    "DEVELOPMENT_FILE",
    "REDIS_SCHEMES",
    "AdminConfig",
    "ApiKeyConfig",
    "AppConfig",
    "BalanceConfig",
    "BrokerConfig",
    "ChannelConfig",
    "ChannelOptions",
    "ChannelRegex",
    "ClientConfig",
    "Config",
    "ConsoleConfig",
    "HttpApiConfig",
    "LogConfig",
    "Namespace",
    "PersonalChannelConfig",
    "ProxyOptions",
    "ServerConfig",
    "SessionConfig",
    "ShutdownConfig",
    "SubscriptionTokenConfig",
    "TokenConfig",
    "WebsocketConfig",
    "from_json",
    "known_keys",
    "load",
    "printable",
    "proxies_in_use",
    "proxy_section",
    "proxy_timeouts",
    "service_variables",
    "to_json",
    "without_password",
]
