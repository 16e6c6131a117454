"""The files of the page, read once, and its Content-Security-Policy.

Rules
- The page loads nothing from elsewhere: no script, style or picture. Its only request to another
  address is the WebSocket of the live client.
- A browser revalidates each file by its hash (ETag), so that a new version is seen at once.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from cluster.console.access import host_of

_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What is allowed in a header we send: a name or an address, and a port.
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\])(?::\d{1,5})?")
_PORT: Final = re.compile(r":\d+$")


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    kind: str
    tag: str


class Page:
    """The files below static/.

    Args:
        public_port: where clients connect if they reach the admin port without a proxy.
    """

    def __init__(self, public_port: int) -> None:
        self._port = public_port
        self._files = {path.name: _read(path) for path in _STATIC.iterdir() if path.is_file()}

    def answer(self, request: web.Request) -> web.Response:
        """The page at `/`, or the file of the route's `name`."""
        name = request.match_info.get("name", "index.html")
        file = self._files.get(name)
        if file is None or (name == "index.html" and "name" in request.match_info):
            return web.Response(status=404, text="there is no such file\n")
        headers = {
            "ETag": file.tag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": self._policy(request),
            **SAFE_HEADERS,
        }
        if request.headers.get("If-None-Match") == file.tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, headers={**headers, "Content-Type": file.kind})

    def live_address(self, request: web.Request) -> str:
        """`host:port` of the public port as this viewer reaches it; empty if it is this origin."""
        # Through nginx, page and WebSocket share an origin; on the admin port they do not.
        host = host_of(request)
        if "X-Forwarded-For" in request.headers or not _HOST.fullmatch(host):
            return ""
        return f"{_PORT.sub('', host)}:{self._port}"

    def _policy(self, request: web.Request) -> str:
        hosts = [self.live_address(request)]
        if _HOST.fullmatch(host := host_of(request)):
            hosts.append(host)
        sockets = "".join(f" ws://{host} wss://{host}" for host in hosts if host)
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            f"connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )


SAFE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _read(path: Path) -> _File:
    body = path.read_bytes()
    tag = hashlib.sha256(body).hexdigest()[:16]
    return _File(body, _TYPES.get(path.suffix, "application/octet-stream"), f'"{tag}"')
