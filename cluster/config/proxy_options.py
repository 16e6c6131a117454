"""The options of proxies: events of clients that a backend in any language decides on, over HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cluster.config.option_fields import boolean, headers, seconds, string, strings, url

#: The name of a proxy that stands for the section of the event's kind, such as channel.proxy.publish.
DEFAULT_PROXY: Final = "default"
#: The kinds of events that the options of a namespace send to a proxy.
CHANNEL_PROXIES: Final = ("subscribe", "publish", "sub_refresh")


@dataclass(frozen=True, slots=True)
class ProxyHttpOptions:
    """How requests to a backend are made."""

    static_headers: tuple[tuple[str, str], ...] = headers(
        text="headers of every request to the backend, such as Authorization"
    )


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """Where the events of one kind are sent."""

    endpoint: str = url("", text="URL to which the events are sent, with POST")
    timeout: float = seconds(1.0, minimum=0.01, text="time an answer may take; then error 100")
    http_headers: tuple[str, ...] = strings(
        text="headers of a client's handshake that are passed on, such as Cookie"
    )
    emulated_headers: tuple[str, ...] = strings(
        text="headers of a client's connect command that are passed on: what the client likes"
    )
    include_connection_meta: bool = boolean(
        False, text="send the connection's meta, which a token or the connect proxy has given, too"
    )
    http: ProxyHttpOptions = field(default_factory=ProxyHttpOptions)


@dataclass(frozen=True, slots=True)
class SwitchedProxyOptions(ProxyOptions):
    """The same for a kind that is not chosen by the options of channels."""

    enabled: bool = boolean(False, text="ask the backend")


@dataclass(frozen=True, slots=True)
class NamedProxy(ProxyOptions):
    """The same for the namespaces that name it."""

    name: str = string("", text="by which options such as subscribe_proxy_name refer to it")


@dataclass(frozen=True, slots=True)
class ClientProxies:
    """What a backend decides about connections."""

    connect: SwitchedProxyOptions = field(default_factory=SwitchedProxyOptions)
    refresh: SwitchedProxyOptions = field(default_factory=SwitchedProxyOptions)


@dataclass(frozen=True, slots=True)
class ChannelProxies:
    """What a backend decides about channels, in namespaces with `…_proxy_enabled`."""

    subscribe: ProxyOptions = field(default_factory=ProxyOptions)
    publish: ProxyOptions = field(default_factory=ProxyOptions)
    sub_refresh: ProxyOptions = field(default_factory=ProxyOptions)


@dataclass(frozen=True, slots=True)
class RpcMethodOptions:
    """Options of rpc methods."""

    proxy_enabled: bool = boolean(False, text="send calls to the proxy that proxy_name names")
    proxy_name: str = string(DEFAULT_PROXY, text="default is rpc.proxy; others are in proxies")


@dataclass(frozen=True, slots=True)
class RpcConfig:
    """Calls of clients (rpc) that a backend answers."""

    proxy: ProxyOptions = field(default_factory=ProxyOptions)
    without_namespace: RpcMethodOptions = field(default_factory=RpcMethodOptions)
