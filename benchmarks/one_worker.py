"""One worker of ours with an application's `rpc` handlers, without a supervisor.

`ws-cluster up` has no option for handlers yet; `cluster.worker.run` has a parameter. So this does the
little that a supervisor does for a worker: it binds the socket, and provides a status pipe (which
nothing reads: the worker drops what does not fit) and a directory for its metrics.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def serve(
    file: Path, port: int, redis_url: str, rpc_handlers: Mapping[str, Callable[[str, Any], Any]]
) -> int:
    """Run the worker until it is stopped; returns its exit code."""
    with tempfile.TemporaryDirectory(prefix="ws-cluster-bench-") as metrics:
        # prometheus-client chooses its kind of value when it is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        from cluster import config, log, worker
        from cluster.children.listeners import bind

        settings = config.load(str(file), env={}, flags={"broker.redis_urls": [redis_url]})
        log.configure(settings.log, instance="bench", worker="w0a")
        listener = bind("127.0.0.1", port)
        _, status = os.pipe()
        return worker.run(
            settings,
            slot=0,
            lane="w0a",
            instance="bench",
            listen_fd=listener.detach(),
            status_fd=status,
            rpc_handlers=rpc_handlers,
        )
