"""One worker of ours with an application's `rpc` handler, without a supervisor.

`ws-cluster up` has no option for handlers yet; `cluster.worker.run` has a parameter. So this program does
the little that a supervisor does for a worker: it binds the socket, and provides a status pipe (which
nothing reads: the worker drops what does not fit) and a directory for its metrics.
"""

import argparse
import os
import socket
import sys
import tempfile

from benchmarks.paths import BENCHMARKS


def echo(_user: str, data: bytes) -> bytes:
    return data


async def echo_awaited(_user: str, data: bytes) -> bytes:
    return data


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--redis", required=True)
    arguments.add_argument("--awaited", action="store_true", help="the handler is a coroutine")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="ws-cluster-bench-") as metrics:
        # prometheus-client chooses its kind of value when it is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        from cluster import config, log, worker

        settings = config.load(
            str(BENCHMARKS / "ours.toml"), env={}, flags={"broker.redis_urls": [given.redis]}
        )
        log.configure(settings.log, instance="echo", worker="w0a")
        listener = socket.create_server(("127.0.0.1", given.port), backlog=4096)
        _, status = os.pipe()
        return worker.run(
            settings,
            slot=0,
            lane="w0a",
            instance="echo",
            listen_fd=listener.detach(),
            status_fd=status,
            rpc_handlers={"echo": echo_awaited if given.awaited else echo},
        )


if __name__ == "__main__":
    sys.exit(main())
