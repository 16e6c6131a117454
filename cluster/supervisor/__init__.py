"""Keeps the wanted children running: spawn, back off, roll, stop.

`core` is the supervisor itself, `fleet` everybody it keeps, `service` one place where a child is
kept, `record` what metrics hear, `shutdown_log` what a whole stop leaves to the next start, `paths`
and `limits` the machine, `screen` what a person sees.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from cluster import log
from cluster.children.backoff import RestartPolicy
from cluster.children.binaries import nginx_program, valkey_program
from cluster.children.listeners import Listeners, reachable_host
from cluster.children.worker_child import COMMAND
from cluster.config import Config
from cluster.supervisor.fleet import Resources
from cluster.supervisor.limits import raise_file_limit
from cluster.supervisor.paths import Paths
from cluster.supervisor.supervisor import SessionSource, SessionStatistics, Supervisor

__all__ = ["SessionSource", "SessionStatistics", "run"]


@asynccontextmanager
async def session_statistics(config: Config) -> AsyncIterator[SessionStatistics]:
    """Open what the store is asked for: `tracked`, `created`, `resumed` and `expired` sessions.

    The store's client is imported here, after the workers were started: it is slow to import.
    """
    from cluster.resp.router import Router
    from cluster.sessions.statistics import SessionStatistics as Reader

    router = Router(config.broker.redis_urls, timeout_seconds=config.broker.timeout)
    try:
        await router.start()
        yield Reader(router, prefix=config.broker.prefix).read
    finally:
        await router.aclose()


def run(
    config: Config,
    *,
    reload: Callable[[], Config] | None = None,
    session_source: SessionSource = session_statistics,
    worker_command: Sequence[str] = COMMAND,
    policy: RestartPolicy | None = None,
) -> int:
    """Run a cluster in the foreground; returns the exit code.

    Args:
        config: what to run.
        reload: reads the configuration again, for HUP.
        session_source: opens the source of the store's numbers about sessions.
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
    paths = Paths(config.server.data_dir)
    try:
        log.also_write(paths.app_log)
        listeners = Listeners(config, _workers(config))
        try:
            resources = Resources(
                listeners=listeners,
                paths=paths,
                valkey=valkey,
                nginx=nginx,
                file_limit=raise_file_limit(),
                instance=instance,
                policy=policy or RestartPolicy(),
                command=worker_command,
            )
            return asyncio.run(_supervise(config, resources, reload, session_source))
        finally:
            listeners.close()
    finally:
        log.also_write(None)
        paths.close()


async def _supervise(
    config: Config,
    resources: Resources,
    reload: Callable[[], Config] | None,
    session_source: SessionSource,
) -> int:
    supervisor = Supervisor(config, resources, reload=reload, session_source=session_source)
    return await supervisor.run()


def _workers(config: Config) -> int:
    return config.server.workers or len(os.sched_getaffinity(0))


def _instance(config: Config) -> str:
    host = config.server.host
    if reachable_host(host) != host:
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{config.server.admin_port}"
