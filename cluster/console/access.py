"""Who may read the console and who may change something through it.

Rules
- Reading is allowed from private networks, as nginx has it for /metrics; from elsewhere it needs the
  key. Every address that a proxy names is checked, because the last proxy is in a private network.
- Without the key the Host must be an address or a name that cannot be registered by others (without a
  dot, or below a domain reserved for private networks). Otherwise a page whose own name resolves to a
  private address (DNS rebinding) could read what its visitor may read.
- Writing always needs the key: behind nginx every request seems to come from loopback.
- A page of another origin may do neither: a browser's Origin must equal the Host of the request.
- The key is sent in the Authorization header, so that no cookie and no URL carries it for another site.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

_SCHEME: Final = "bearer"
# RFC 6761, RFC 6762, RFC 8375, and ICANN's reservation of 2024.
_PRIVATE_DOMAINS: Final = (".localhost", ".local", ".home.arpa", ".internal")


class Denied(Exception):
    """A request that is refused.

    Attributes:
        status: of the answer.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status: Final = status


def check_reader(request: web.BaseRequest, key: str) -> None:
    """Check that a request may read.

    Raises:
        Denied: if it may not.
    """
    _check_origin(request)
    if has_key(request, key):
        return
    if not _is_private(request):
        raise Denied(401, "from this network the console needs the key: open it with #key=…")
    if not _is_own_host(request.host):
        raise Denied(401, f"under the name {request.host[:200]} the console needs the key: #key=…")


def check_writer(request: web.BaseRequest, key: str) -> None:
    """Check that a request may change something.

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
    """Whether a request carries the key; False if no key is set."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    matches = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), key.encode())
    return bool(key) and scheme.lower() == _SCHEME and matches


def _check_origin(request: web.BaseRequest) -> None:
    """Check the Origin, which only browsers send."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
        raise Denied(403, f"pages of {origin[:200]} may not use this console")


def _is_private(request: web.BaseRequest) -> bool:
    """Whether the peer and, behind a proxy, the client it names are in private networks."""
    named = request.headers.getall("X-Real-IP", [])
    chain = ",".join(request.headers.getall("X-Forwarded-For", []))
    addresses = [request.remote or "", *named, *(chain.split(",") if chain else [])]
    return all(_is_private_address(address) for address in addresses)


def _is_own_host(host: str) -> bool:
    """Whether a Host is a name that others cannot register, or an address."""
    name = (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
    if (name and "." not in name and ":" not in name) or name.endswith(_PRIVATE_DOMAINS):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_private_address(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.strip())
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found.is_private
