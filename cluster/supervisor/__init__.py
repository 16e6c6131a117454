"""Keeps the wanted children running: spawn, back off, roll, stop.

`core` is the supervisor itself, `crew` everybody it keeps, `post` one place where a child is
kept, `record` what metrics hear, `journal` what a whole stop leaves to the next start, `places`
and `limits` the machine, `screen` what a person sees.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

from cluster import log
from cluster.children.doors import Doors, reachable_host
from cluster.children.programs import nginx_program, valkey_program
from cluster.children.restarts import RestartPolicy
from cluster.children.worker import COMMAND
from cluster.config import Config
from cluster.supervisor.census import SessionStats, session_stats
from cluster.supervisor.core import Census, Supervisor
from cluster.supervisor.crew import Means
from cluster.supervisor.limits import raise_file_limit
from cluster.supervisor.places import Places

__all__ = ["Census", "SessionStats", "run"]


def run(
    config: Config,
    *,
    reload: Callable[[], Config] | None = None,
    census: Census = session_stats,
    worker_command: Sequence[str] = COMMAND,
    policy: RestartPolicy | None = None,
) -> int:
    """Run a cluster in the foreground; returns the exit code.

    Args:
        config: what to run.
        reload: reads the configuration again, for HUP.
        census: opens the source of the store's numbers about sessions.
        worker_command: starts a worker; its arguments follow.
        policy: how soon and how often children are started again.

    Raises:
        ConfigError: if a port or a directory is not to be had.
        DependencyMissing: if nginx or Valkey is needed and not there.
        BootFailed: if a child cannot boot.
    """
    # The value class of prometheus-client is chosen by this variable; ours is not the workers'.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    instance = _instance(config)
    log.configure(config.log, instance=instance)
    nginx = nginx_program() if config.server.nginx else ""
    valkey = "" if config.broker.redis_urls else valkey_program()
    places = Places(config.server.data_dir)
    try:
        log.also_write(places.app_log)
        doors = Doors(config, _workers(config))
        try:
            means = Means(
                doors=doors,
                places=places,
                valkey=valkey,
                nginx=nginx,
                file_limit=raise_file_limit(),
                instance=instance,
                policy=policy or RestartPolicy(),
                command=worker_command,
            )
            return asyncio.run(_supervise(config, means, reload, census))
        finally:
            doors.close()
    finally:
        log.also_write(None)
        places.close()


async def _supervise(
    config: Config,
    means: Means,
    reload: Callable[[], Config] | None,
    census: Census,
) -> int:
    supervisor = Supervisor(config, means, reload=reload, census=census)
    return await supervisor.run()


def _workers(config: Config) -> int:
    return config.server.workers or len(os.sched_getaffinity(0))


def _instance(config: Config) -> str:
    host = config.server.host
    if reachable_host(host) != host:
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{config.server.admin_port}"
