"""Serves an aiohttp application of the monitoring, with the bounds of the admin port."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from cluster.bounded_connections import BoundedConnections
from cluster.http_runner import HttpRunner, log_no_client_faults
from cluster.kept_back_files import places

_CONNECTION_LIMIT: Final = 256
_SHUTDOWN_SECONDS: Final = 1.0


@asynccontextmanager
async def served(app: web.Application, sock: socket.socket) -> AsyncIterator[None]:
    """Serve on a listening, non-blocking socket inside the block, then close it."""
    log_no_client_faults(logging.getLogger("aiohttp.server"))
    runner = HttpRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        handler_cancellation=True,
    )
    with sock:
        await runner.setup()
        assert runner.server is not None
        connections = BoundedConnections(sock, runner.server, limit=places(_CONNECTION_LIMIT))
        try:
            yield
        finally:
            connections.close()
            await runner.cleanup()
