"""The configuration: what may be set, what it defaults to, and how it is read.

Rules
- `Config` and its sections are frozen; whoever holds one may keep it.
- Durations are float seconds; sizes are bytes. Files may write "25s", "720h" or "500ms".
- A file is overruled by the environment, the environment by flags.
- Every mistake is reported at once (`ConfigError.problems`); unknown keys are mistakes.
- Secrets may come from a file (`<name>_file`) and are never part of a repr or a print.
"""

from __future__ import annotations

from cluster.config.checks import REDIS_SCHEMES
from cluster.config.model import (
    AdminConfig,
    BrokerConfig,
    ChannelConfig,
    ChannelOptions,
    ClientConfig,
    Config,
    ConsoleConfig,
    HttpApiConfig,
    LogConfig,
    Namespace,
    ServerConfig,
    SessionConfig,
    ShutdownConfig,
    TokenConfig,
    WebsocketConfig,
)
from cluster.config.reading import known_keys
from cluster.config.sources import from_json, load, printable, to_json, without_password

__all__ = [
    "REDIS_SCHEMES",
    "AdminConfig",
    "BrokerConfig",
    "ChannelConfig",
    "ChannelOptions",
    "ClientConfig",
    "Config",
    "ConsoleConfig",
    "HttpApiConfig",
    "LogConfig",
    "Namespace",
    "ServerConfig",
    "SessionConfig",
    "ShutdownConfig",
    "TokenConfig",
    "WebsocketConfig",
    "from_json",
    "known_keys",
    "load",
    "printable",
    "to_json",
    "without_password",
]
