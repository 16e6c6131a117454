"""The server HTTP API: an application's backend publishes, reads and manages users through any worker.

`POST /api/<method>`, or `POST /api` with the method in the body, with a key; bodies, results and error
codes are those of Centrifugo's server API.
`http_api` reads requests and writes answers, `api_keys` says what a key may do, `server_methods` carries
the methods out with `user_methods` and `read_methods`; `method_table` is the one table of them, of which
`request_params` and `openapi` are made.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from cluster.api.access_methods import RevocationStore
from cluster.api.http_api import add_routes
from cluster.api.server_methods import ServerMethods
from cluster.config import Config
from cluster.metrics.counters import Counters
from cluster.node.control import Control
from cluster.node.node import Node
from cluster.node.single_connection import SingleConnections
from cluster.node.survey import Survey
from cluster.node.user_commands import UserCommands

__all__ = ["ServerMethods", "add_routes", "serve"]


def serve(
    app: web.Application,
    config: Config,
    node: Node,
    control: Control,
    counters: Counters,
    *,
    name: str,
    is_draining: Callable[[], bool],
    revocations: RevocationStore | None = None,
) -> None:
    """Serve the API on an application if there is a key, and carry out what other workers are asked.

    Args:
        name: of this worker, for people.
        revocations: what is revoked and blocked; None to answer these methods with 108.
    """
    UserCommands(node, control, counters, channel_limit=config.client.channel_limit)
    node.tell_of = SingleConnections(node, control).tell
    methods = ServerMethods(
        node, control, Survey(node, control, counters, name=name), counters, revocations
    )
    add_routes(
        app,
        methods,
        counters,
        config=config.http_api,
        namespace_of=node.permissions.namespace,
        is_draining=is_draining,
    )
