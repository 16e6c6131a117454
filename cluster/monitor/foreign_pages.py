"""Keeps pages of other sites out of the monitoring's ports, which check no key.

Rule: a browser cannot be led here. A request from another page (Origin, Sec-Fetch-Site), and one for a
name that any domain may have resolved to this address (Host), are answered with 403.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

from aiohttp import web

from cluster.addresses import PRIVATE_DOMAINS


class ForeignPageGuard:
    """Answers 403 to what a page of another site sent (CSRF, DNS rebinding).

    Args:
        listens_at: the host of the server, which may be a name with dots.
    """

    def __init__(self, listens_at: str = "") -> None:
        self._listens_at = listens_at.lower()

    @web.middleware
    async def refuse(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """The middleware."""
        why = _why_foreign(request, self._listens_at)
        return web.Response(status=403, text=why) if why else await handler(request)


def _why_foreign(request: web.Request, listens_at: str) -> str:
    """Why a request may be that of another site's page; empty if it is none."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not _is_own_name(hosts[0], listens_at):
        return (
            "Host: name this server by its IP address, as localhost, by a name without a dot,"
            f" or by one below {', '.join(PRIVATE_DOMAINS)}"
        )
    own = {f"http://{hosts[0]}", f"https://{hosts[0]}"}
    if not own.issuperset(request.headers.getall("Origin", [])):
        return "Origin: pages of other sites may not use this server"
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "pages of other sites may not use this server"
    return ""


def _is_own_name(host: str, listens_at: str) -> bool:
    """Whether no domain of the Internet but the server's own can be meant by a Host header."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    own = (listens_at, socket.gethostname().lower())
    return bool(name) and ("." not in name or name in own or name.endswith(PRIVATE_DOMAINS))
