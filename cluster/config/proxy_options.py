"""The options of proxies: events of clients that a backend in any language decides on, over HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.config.option_fields import boolean, optional, seconds, strings


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """Where the events of one kind are sent."""

    endpoint: str = optional("", text="URL to which the events are sent, with POST")
    timeout: float = seconds(1.0, minimum=0.01, text="time an answer may take; then error 100")
    http_headers: tuple[str, ...] = strings(
        text="headers of a client's handshake that are passed on, such as Cookie"
    )


@dataclass(frozen=True, slots=True)
class SwitchedProxyOptions(ProxyOptions):
    """The same for a kind that is not chosen by the options of channels."""

    enabled: bool = boolean(False, text="ask the backend")


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


@dataclass(frozen=True, slots=True)
class RpcMethodOptions:
    """Options of rpc methods."""

    proxy_enabled: bool = boolean(False, text="send calls to rpc.proxy.endpoint")


@dataclass(frozen=True, slots=True)
class RpcConfig:
    """Calls of clients (rpc) that a backend answers."""

    proxy: ProxyOptions = field(default_factory=ProxyOptions)
    without_namespace: RpcMethodOptions = field(default_factory=RpcMethodOptions)
