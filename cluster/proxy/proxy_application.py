"""The application whose handlers ask a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
import msgspec
import orjson
from aiohttp import web

from cluster import data_url, json_text
from cluster.application import (
    Application,
    ApplicationClient,
    ConnectAnswer,
    Connecting,
    PublishAnswer,
    Publishing,
    RefreshAnswer,
    Refreshing,
    SubRefreshing,
    SubscribeAnswer,
    Subscribing,
)
from cluster.auth import TokenRefused, channel_override, server_subscriptions
from cluster.config import Config, ProxyOptions, proxies_in_use, proxy_section, proxy_timeouts
from cluster.metrics.counters import Counters
from cluster.node.permissions import ChannelPermissions
from cluster.proxy.backend import Backend, BackendFailed, Result

_DATA: Final[json_text.JsonDecoder[dict[str, msgspec.Raw]]] = json_text.JsonDecoder(
    dict[str, msgspec.Raw]
)


def proxy_application(config: Config) -> Application | None:
    """Make the application of the proxies that the configuration turns on; None without one."""
    used = proxies_in_use(config)
    if not used:
        return None
    headers = {name for options in used.values() for name in options.http_headers}
    emulated = {name for options in used.values() for name in options.emulated_headers}
    application = Application(headers=sorted(headers), emulated_headers=sorted(emulated))
    # What a proxy does not decide is refused, and counted, by the node.
    permissions = ChannelPermissions(config, Counters())
    proxies = _Proxies(used, permissions, config.rpc.without_namespace.proxy_name)
    application.http.cleanup_ctx.append(proxies.session)
    kinds = proxy_timeouts(config).keys()
    if "connecting" in kinds:
        application.connecting(proxies.connecting)
    if "refreshing" in kinds:
        application.refreshing(proxies.refreshing)
    if "subscribing" in kinds:
        application.subscribing(proxies.subscribing)
    if "sub_refreshing" in kinds:
        application.sub_refreshing(proxies.sub_refreshing)
    if "publishing" in kinds:
        application.publishing(proxies.publishing)
    if "rpc" in kinds:
        application.any_rpc(proxies.rpc)
    return application


class _Proxies:
    """The handlers."""

    def __init__(
        self,
        options: Mapping[str, ProxyOptions],
        permissions: ChannelPermissions,
        rpc_proxy_name: str,
    ) -> None:
        self._rpc = proxy_section("rpc.proxy", rpc_proxy_name)
        self._options = options
        self._permissions = permissions
        self._backends: dict[str, Backend] = {}

    async def session(self, _: web.Application) -> AsyncIterator[None]:
        """Open the connections to the backends, and close them when the worker ends."""
        # Each event holds one of the `app.handler_concurrency` places; a wait for a connection would look
        # like a slow backend, and one backend's events would hold up the others'.
        connector = aiohttp.TCPConnector(limit=0)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session:
            self._backends = {
                path: Backend(options, session) for path, options in self._options.items()
            }
            yield

    async def connecting(self, event: Connecting) -> ConnectAnswer | None:
        if event.has_token:
            return None
        about = {**_client(event.client, event.codec), "name": event.name, **_data(event.raw)}
        if event.version:
            about["version"] = event.version
        if event.channels:
            about["channels"] = event.channels
        result = await self._backends["client.proxy.connect"].ask(
            about, event.headers, event.emulated_headers
        )
        expires_at = result.get("expire_at", 0)
        return ConnectAnswer(
            user=result.get("user", ""),
            info=result.text("info") or None,
            data=_members(result.text("data")),
            expires_at=expires_at,
            refreshed_by_server="client.proxy.refresh" in self._options and expires_at > 0,
            channels=result.get("channels", []),
            subs=_subscriptions(result),
            meta=_object(result.text("meta")),
        )

    async def refreshing(
        self, client: ApplicationClient, event: Refreshing
    ) -> RefreshAnswer | None:
        if event.token:
            return None
        return _extended(await self._ask("client.proxy.refresh", client))

    async def subscribing(
        self, client: ApplicationClient, event: Subscribing
    ) -> SubscribeAnswer | None:
        access = self._permissions.access(event.channel)
        # Who may subscribe to a user-limited channel is in its name.
        if not access.options.subscribe_proxy_enabled or access.users is not None:
            return None
        section = proxy_section("channel.proxy.subscribe", access.options.subscribe_proxy_name)
        result = await self._ask(section, client, channel=event.channel, **_data(event.raw))
        return SubscribeAnswer(
            data=result.text("data") or None,
            info=result.text("info") or None,
            expires_at=result.get("expire_at", 0),
            override=channel_override(result.get("override", {})),
        )

    async def sub_refreshing(
        self, client: ApplicationClient, event: SubRefreshing
    ) -> RefreshAnswer | None:
        name = self._permissions.access(event.channel).options.sub_refresh_proxy_name
        section = proxy_section("channel.proxy.sub_refresh", name)
        return _extended(await self._ask(section, client, channel=event.channel))

    async def publishing(
        self, client: ApplicationClient, event: Publishing
    ) -> PublishAnswer | None:
        access = self._permissions.access(event.channel)
        if not access.options.publish_proxy_enabled:
            return None
        section = proxy_section("channel.proxy.publish", access.options.publish_proxy_name)
        result = await self._ask(section, client, channel=event.channel, **_data(event.raw))
        return PublishAnswer(result.text("data") or None, result.get("skip_history", False))

    async def rpc(self, client: ApplicationClient, method: str, text: bytes) -> bytes:
        result = await self._ask(self._rpc, client, method=method, **_data(text))
        return result.text("data") or b"null"

    async def _ask(self, section: str, client: ApplicationClient, **event: Any) -> Result:
        """Send the event of a connected client to the proxy of a section."""
        about = {**_client(client.id, client.codec), "user": client.user, **event}
        if client.raw_meta and self._options[section].include_connection_meta:
            about["meta"] = orjson.Fragment(client.raw_meta)
        backend = self._backends[section]
        return await backend.ask(about, client.headers, client.emulated_headers)


# --- what is sent --------------------------------------------------------------------------


def _client(client: str, codec: str) -> dict[str, Any]:
    return {"client": client, "transport": "websocket", "protocol": codec, "encoding": "json"}


def _data(text: bytes) -> dict[str, Any]:
    """The data of a client: JSON, or base64 of what a Protobuf client has sent that is none."""
    if not text:
        return {}
    if text.startswith(data_url.PREFIX):
        return {"b64data": text[len(data_url.PREFIX) : -1].decode()}
    return {"data": orjson.Fragment(text)}


# --- what comes back -----------------------------------------------------------------------


def _extended(result: Result) -> RefreshAnswer | None:
    if result.get("expired", False):
        return None
    return RefreshAnswer(result.get("expire_at", 0), result.text("info") or None)


def _members(text: bytes) -> dict[str, bytes]:
    """The members of the reply's data, which has `session` beside them."""
    if not text:
        return {}
    try:
        return {name: bytes(raw) for name, raw in _DATA.decode(text).items()}
    except json_text.JsonTextInvalid:
        raise BackendFailed("the data of a connect must be an object") from None


def _object(text: bytes) -> bytes | None:
    if text and not text.startswith(b"{"):
        raise BackendFailed("meta must be an object")
    return text or None


def _subscriptions(result: Result) -> Any:
    text = result.text("subs")
    try:
        return server_subscriptions(text) if text else None
    except TokenRefused:
        raise BackendFailed("subs must be an object of options by channel") from None
