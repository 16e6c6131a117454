"""The one guard of the admin port: who may read metrics, details and the console, and who may write.

Rules
- Reading is allowed from private networks, as nginx has it for /metrics; from elsewhere it needs the
  key. Every address that a proxy names must be private or a trusted proxy: what a client says about
  itself can only restrict it.
- Without the key the Host must be an address or a name that cannot be registered by others (without a
  dot, or below a domain reserved for private networks). Otherwise a page whose own name resolves to a
  private address (DNS rebinding) could read what its visitor may read.
- Writing always needs the key: behind nginx every request seems to come from loopback.
- A page of another origin may do neither: a browser's Origin must equal the Host of the request.
- The key is sent in the Authorization header, so that no cookie and no URL carries it for another site.
- Wrong keys are slowed down per address: `_BURST` at once, then one in `_SECONDS_PER_GUESS`. Until then
  no key of that address is compared.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from cluster import log
from cluster.addresses import PRIVATE_DOMAINS, Network, address_key, client_address, is_in, parse

_SCHEME: Final = "bearer"
# RFC 9110, section 7.2: a name or an address, with brackets around IPv6, and a port.
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([^\s/?#@\[\]:]{1,253}))(?::\d{0,5})?")
_BURST: Final = 10
_SECONDS_PER_GUESS: Final = 5.0
_MOST_ADDRESSES: Final = 4096
_WRONG_KEY_SECONDS: Final = 0.5
_MOST_NAMED: Final = 32
_KEY_STATUSES: Final = (401, 403, HTTPStatus.TOO_MANY_REQUESTS)


class Denied(Exception):
    """A request that is refused.

    Attributes:
        status: of the answer.
        reason: its label in `app_admin_requests_rejected_total`.
        retry_after: whole seconds after which it may be sent again; 0 if that does not help.
    """

    def __init__(self, status: int, reason: str, text: str, *, retry_after: int = 0) -> None:
        super().__init__(text)
        self.status: Final = status
        self.reason: Final = reason
        self.retry_after: Final = retry_after


class WrongKeys:
    """How many wrong keys each address may still send; it forgets the oldest of too many addresses."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # When the address will have its whole burst again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def seconds_to_wait(self, address: str) -> float:
        """Seconds until a key of this address is compared again; 0 if it is now."""
        over = self._full_at.get(address, 0.0) - self._now() - (_BURST - 1) * _SECONDS_PER_GUESS
        return max(0.0, over)

    def add(self, address: str) -> None:
        """Count a wrong key."""
        start = max(self._now(), self._full_at.pop(address, 0.0))
        self._full_at[address] = start + _SECONDS_PER_GUESS
        if len(self._full_at) > _MOST_ADDRESSES:
            self._full_at.popitem(last=False)


class Guard:
    """Decides what a request may do.

    Args:
        key: called for `admin.key`; if it is empty, nothing can be changed.
        trusted: called for the proxies whose X-Forwarded-For is believed.
        count: counts an event: the name of its counter, and labels.
    """

    def __init__(
        self,
        *,
        key: Callable[[], str],
        trusted: Callable[[], Sequence[Network]],
        count: Callable[..., None],
    ) -> None:
        self._key = key
        self._trusted = trusted
        self._count = count
        self._wrong_keys = WrongKeys()
        self._log = log.get_logger()

    @property
    def can_write(self) -> bool:
        """Whether there is a key with which something can be changed."""
        return bool(self._key())

    def client(self, request: web.BaseRequest) -> str:
        """The address of the client, behind trusted proxies."""
        chain = request.headers.getall("X-Forwarded-For", [])
        return client_address(request.remote or "", chain, self._trusted())

    def check_reader(self, request: web.BaseRequest) -> bool:
        """Check that a request may read; returns whether it carries the key.

        Raises:
            Denied: if it may not.
        """
        _check_origin(request)
        if self.has_key(request):
            return True
        if not self._is_private(request):
            raise Denied(
                401, "network", "from this network this needs the key: open it with #key=…"
            )
        host = host_of(request)
        if not _is_own_host(host):
            text = f"under the name {host[:200]} this needs the key: open it with #key=…"
            raise Denied(401, "host", text)
        return False

    def may_read(self, request: web.BaseRequest) -> bool:
        """Whether a request may read; without the key this is no guess."""
        try:
            self.check_reader(request)
        except Denied:
            return False
        return True

    def check_writer(self, request: web.BaseRequest) -> None:
        """Check that a request may change something.

        Raises:
            Denied: if it may not.
        """
        _check_origin(request)
        if _media_type(request) != "application/json":
            raise Denied(415, "malformed", "send application/json")
        if not self.can_write:
            raise Denied(
                403, "no_key", "admin.key is not set, so nothing can be changed here: set it"
            )
        if not self.has_key(request):
            reason = "no_key" if _given_key(request) is None else "key"
            raise Denied(401, reason, "this needs the key: enter the value of admin.key")

    def has_key(self, request: web.BaseRequest) -> bool:
        """Whether a request carries the key; False if no key is set.

        Raises:
            Denied: if its address has sent too many wrong keys.
        """
        given = _given_key(request)
        if given is None:
            return False
        address = address_key(self.client(request))
        wait = self._wrong_keys.seconds_to_wait(address)
        if wait:
            text = f"too many wrong keys came from {address}: try again in {wait:.0f} s"
            raise Denied(HTTPStatus.TOO_MANY_REQUESTS, "key_rate", text, retry_after=int(wait) + 1)
        key = self._key()
        if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key.encode()) and key:
            return True
        self._wrong_keys.add(address)
        self._count("app_admin_requests_rejected_total", reason="key")
        return False

    async def refuse(self, request: web.BaseRequest, denied: Denied) -> web.Response:
        """Count a refusal, log one of a key; returns the answer, late if the key was wrong."""
        # A wrong key is counted where it is compared, because it may not lead to a refusal.
        if denied.reason != "key":
            self._count("app_admin_requests_rejected_total", reason=denied.reason)
        if hdrs.AUTHORIZATION in request.headers and denied.status in _KEY_STATUSES:
            self._log.warning(
                "console_key_refused", status=denied.status, client=self.client(request)
            )
            if denied.status != HTTPStatus.TOO_MANY_REQUESTS:
                await asyncio.sleep(_WRONG_KEY_SECONDS)
        return error_response(denied.status, str(denied), retry_after=denied.retry_after)

    def _is_private(self, request: web.BaseRequest) -> bool:
        """Whether the client, and all that it and its proxies name, are private or trusted proxies."""
        named = request.headers.getall("X-Real-IP", [])
        chain = ",".join(request.headers.getall("X-Forwarded-For", []))
        others = [*named, *(chain.split(",", _MOST_NAMED) if chain else [])]
        if len(others) > _MOST_NAMED:
            return False
        trusted = self._trusted()
        return _is_private_address(self.client(request)) and all(
            _is_private_address(one, trusted) for one in [request.remote or "", *others]
        )


def error_response(status: int, text: str, *, retry_after: int = 0) -> web.Response:
    """An answer with one sentence in `error`."""
    headers = {hdrs.RETRY_AFTER: str(retry_after)} if retry_after else {}
    return web.json_response({"error": text}, status=status, headers=headers)


def host_of(request: web.BaseRequest) -> str:
    """The Host of a request; empty if it has none, more than one, or one that is none."""
    # aiohttp's `request.host` asks DNS for the name of this machine if there is no Host.
    hosts = request.headers.getall(hdrs.HOST, [])
    return hosts[0] if len(hosts) == 1 and _HOST.fullmatch(hosts[0]) else ""


def _given_key(request: web.BaseRequest) -> str | None:
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return given.strip() if scheme.lower() == _SCHEME else None


def _check_origin(request: web.BaseRequest) -> None:
    """Check the Origin, which only browsers send."""
    origins = request.headers.getall(hdrs.ORIGIN, [])
    own = host_of(request).lower()
    for origin in origins:
        if len(origins) > 1 or not own or origin.partition("://")[2].lower() != own:
            raise Denied(403, "origin", f"pages of {origin[:200]} may not use this console")


def _media_type(request: web.BaseRequest) -> str:
    return request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()


def _is_own_host(host: str) -> bool:
    """Whether a Host is a name that others cannot register, or an address."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = (found[1] or found[2]).rstrip(".").lower()
    if (name and "." not in name and ":" not in name) or name.endswith(PRIVATE_DOMAINS):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_private_address(text: str, trusted: Sequence[Network] = ()) -> bool:
    found = parse(text)
    return found is not None and (found.is_private or is_in(found, trusted))
