"""Which proxies are asked, by whom: the sections of the configuration that say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from cluster.config.model import Config
from cluster.config.proxy_options import CHANNEL_PROXIES, DEFAULT_PROXY, ProxyOptions

#: The kind of handler that asks a proxy, by the section of the proxy that is its default.
_HANDLERS: Final = {
    "client.proxy.connect": "connecting",
    "client.proxy.refresh": "refreshing",
    "channel.proxy.subscribe": "subscribing",
    "channel.proxy.publish": "publishing",
    "channel.proxy.sub_refresh": "sub_refreshing",
    "rpc.proxy": "rpc",
}


class _Use(NamedTuple):
    """A proxy that is asked: the default section of its kind, and its own."""

    default: str
    section: str
    options: ProxyOptions


def proxy_names(config: Config) -> Iterator[tuple[str, str]]:
    """The options that name a proxy and are turned on, by key."""
    spaces = {"channel.without_namespace": config.channel.without_namespace} | {
        f"channel.namespaces[{index}]": one.options
        for index, one in enumerate(config.channel.namespaces)
    }
    for path, options in spaces.items():
        for kind in CHANNEL_PROXIES:
            if getattr(options, f"{kind}_proxy_enabled"):
                yield f"{path}.{kind}_proxy_name", getattr(options, f"{kind}_proxy_name")
    if config.rpc.without_namespace.proxy_enabled:
        yield "rpc.without_namespace.proxy_name", config.rpc.without_namespace.proxy_name


def _uses(config: Config) -> Iterator[_Use]:
    for kind in ("connect", "refresh"):
        options = getattr(config.client.proxy, kind)
        if options.enabled:
            section = f"client.proxy.{kind}"
            yield _Use(section, section, options)
    named = {f"proxies.{one.name}": one for one in config.proxies}
    defaults = {
        "channel.proxy.subscribe": config.channel.proxy.subscribe,
        "channel.proxy.publish": config.channel.proxy.publish,
        "channel.proxy.sub_refresh": config.channel.proxy.sub_refresh,
        "rpc.proxy": config.rpc.proxy,
    }
    for key, name in proxy_names(config):
        kind = key.rpartition(".")[2].removesuffix("_proxy_name")
        default = "rpc.proxy" if key.startswith("rpc.") else f"channel.proxy.{kind}"
        section = proxy_section(default, name)
        if section == default:
            yield _Use(default, section, defaults[section])
        elif section in named:
            yield _Use(default, section, named[section])


def proxies_in_use(config: Config) -> dict[str, ProxyOptions]:
    """The proxies that are asked, by their sections; that of a named one is `proxies.<name>`."""
    return {one.section: one.options for one in _uses(config)}


def proxy_section(default: str, name: str) -> str:
    """The section of the proxy with a name; `default` is that of the event's kind."""
    return default if name == DEFAULT_PROXY else f"proxies.{name}"


def proxy_timeouts(config: Config) -> dict[str, float]:
    """Seconds that a backend may take to answer, by the kind of handler that asks it; the least of several."""
    found: dict[str, float] = {}
    for one in _uses(config):
        kind = _HANDLERS[one.default]
        found[kind] = min(one.options.timeout, found.get(kind, one.options.timeout))
    return found
