"""The real supervisor with fake workers: `python fake_cluster.py '{"options": {…}, "policy": {…}}'`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cluster import config, supervisor
from cluster.children.backoff import RestartPolicy
from cluster.errors import ExitError

WORKER = (
    os.environ.get("FAKE_WORKER_PROGRAM", sys.executable),
    str(Path(__file__).with_name("fake_worker.py")),
)


@asynccontextmanager
async def session_source(
    _: config.Config,
) -> AsyncIterator[Callable[[], Awaitable[dict[str, float]]]]:
    async def counts() -> dict[str, float]:
        return {"tracked": 3.0, "created": 5.0, "resumed": 2.0, "expired": 1.0}

    yield counts


def main() -> int:
    given = json.loads(sys.argv[1])

    def load() -> config.Config:
        return config.load(given.get("file"), flags=given["options"])

    try:
        return supervisor.run(
            load(),
            reload=load,
            worker_command=WORKER,
            session_source=session_source,
            policy=RestartPolicy(**given["policy"]),
        )
    except ExitError as error:
        sys.stderr.write(f"ws-cluster: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
