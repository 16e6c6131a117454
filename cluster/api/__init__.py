"""The server HTTP API: an application's backend publishes through any worker.

`POST /api/<method>` with a key; bodies, results and error codes are those of Centrifugo's server API.
`http_api` reads requests and writes answers, `server_methods` carries the methods out.
"""

from __future__ import annotations

from cluster.api.http_api import add_routes
from cluster.api.server_methods import ServerMethods

__all__ = ["ServerMethods", "add_routes"]
