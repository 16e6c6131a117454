"""Who may read the console and who may change something through it.

Rules
- Reading is for private networks, as nginx has it for /metrics; from elsewhere it needs the key.
- Writing needs the key, always: behind nginx everybody seems to come from loopback.
- A page of another origin may do neither: a browser's Origin must be the Host it speaks to.
- The key travels in the Authorization header, so no cookie and no URL can carry it for others.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

_SCHEME: Final = "bearer"


class Denied(Exception):
    """A request that is refused.

    Attributes:
        status: of the answer.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status: Final = status


def check_reader(request: web.BaseRequest, key: str) -> None:
    """Let a reader pass.

    Raises:
        Denied: if it may not read.
    """
    _check_origin(request)
    if not _is_private(request) and not has_key(request, key):
        raise Denied(401, "from this network the console needs the key: open it with #key=…")


def check_writer(request: web.BaseRequest, key: str) -> None:
    """Let somebody pass who wants to change something.

    Raises:
        Denied: if it may not.
    """
    _check_origin(request)
    if request.content_type != "application/json":
        raise Denied(415, "send application/json")
    if not key:
        raise Denied(403, "admin.key is not set, so nothing can be changed here: set it")
    if not has_key(request, key):
        raise Denied(401, "this needs the key: enter the value of admin.key")


def has_key(request: web.BaseRequest, key: str) -> bool:
    """Whether a request carries the key; never without one."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    matches = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), key.encode())
    return bool(key) and scheme.lower() == _SCHEME and matches


def _check_origin(request: web.BaseRequest) -> None:
    """Programs send no Origin; a browser's must be ours."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
        raise Denied(403, f"pages of {origin[:200]} may not use this console")


def _is_private(request: web.BaseRequest) -> bool:
    """Whether the peer and, behind a proxy, the client it names are in private networks."""
    named = request.headers.get("X-Real-IP")
    addresses = [request.remote or "", *([named] if named is not None else [])]
    return all(_is_private_address(address) for address in addresses)


def _is_private_address(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.strip())
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found.is_private
