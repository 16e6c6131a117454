"""One worker process: an aiohttp application and its fast WebSocket path.

`boot` starts a process, `worker` assembles it and takes it apart in reverse; `stores` holds its links to the store,
`web_app` its HTTP, `status_pipe` what it reports to the supervisor.
"""

from __future__ import annotations

from cluster.worker.boot import run

__all__ = ["run"]
