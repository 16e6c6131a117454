"""Serves the metrics of the incident tracker, from a thread with an event loop of its own.

Rules
- One format, whatever a scrape accepts: that of the admin port. prometheus_client's choice by the Accept
  header raises for a version that is no number.
- The store is read in one more thread, for one scrape at a time.
- The connections have the bounds of the admin port: they take neither the CPU time nor the descriptors that
  the tracker needs for its store and its notifications.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from cluster.children.listeners import bind
from cluster.monitor.bounded_server import served
from cluster.monitor.foreign_pages import ForeignPageGuard
from cluster.monitor.incidents.incident_metrics import IncidentCollector


def serve(host: str, port: int, folder: Path) -> Callable[[], None]:
    """Serve /metrics until the function that is returned is called.

    Raises:
        OSError: it cannot listen there.
        OverflowError: there is no such port.
    """
    sock = bind(host, port)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_serve(sock, host, folder, stop))

    thread = threading.Thread(target=run, name="metrics", daemon=True)
    thread.start()

    def close() -> None:
        loop.call_soon_threadsafe(stop.set)
        thread.join()

    return close


async def _serve(sock: socket.socket, host: str, folder: Path, stop: asyncio.Event) -> None:
    registry = CollectorRegistry()
    registry.register(IncidentCollector(folder))
    collecting = asyncio.Lock()

    async def metrics(request: web.Request) -> web.Response:
        async with collecting:
            page = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    app = web.Application(middlewares=[ForeignPageGuard(host).refuse])
    app.router.add_get("/metrics", metrics)
    async with served(app, sock):
        await stop.wait()
