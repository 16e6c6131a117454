"""Starts nginx, Valkey and the workers, restarts them with back-off, rolls them, stops them.

- `supervisor`: signals, operations and the order of start and stop.
- `fleet`: all services and their listeners; `service`: one child, kept running.
- `exit_metrics`: metrics about starts and exits; `shutdown_log`: the file that keeps them over a
  restart of the supervisor.
- `paths`: directories and locks; `limits`: open files and connection capacity; `build`: revision.
- `terminal`: output for a person; `console_view`: data for the web console.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qsl

from cluster import log
from cluster.children.backoff import RestartPolicy
from cluster.children.binaries import nginx_program, valkey_program
from cluster.children.drop_privileges import User, drop_privileges, find_user, root_regained
from cluster.children.listeners import Listeners
from cluster.children.local_sockets import LocalSockets
from cluster.children.nginx import unprivileged_group
from cluster.children.worker_child import COMMAND
from cluster.config import Config, service_variables
from cluster.config.redis_url import split_url
from cluster.private_files import make_new_files_private
from cluster.supervisor.fleet import Resources
from cluster.supervisor.instance import instance_name
from cluster.supervisor.limits import raise_file_limit
from cluster.supervisor.paths import Paths
from cluster.supervisor.supervisor import ReadStatistics, SessionSource, Supervisor

__all__ = ["ReadStatistics", "SessionSource", "run"]


@asynccontextmanager
async def open_session_statistics(config: Config) -> AsyncIterator[ReadStatistics]:
    """Connect to the store; yields a function that reads the session counts.

    The counts are `tracked`, `created`, `resumed` and `expired`. The store's client is imported
    here, after the workers were started, because the import is slow.
    """
    from cluster.resp.keys import key_prefix
    from cluster.resp.router import Router
    from cluster.sessions.statistics import SessionStatistics

    router = Router(config.broker.redis_urls, timeout_seconds=config.broker.timeout)
    try:
        await router.start()
        yield SessionStatistics(router, prefix=key_prefix(config.broker)).read
    finally:
        await router.aclose()


def run(
    config: Config,
    *,
    reload: Callable[[], Config] | None = None,
    session_source: SessionSource = open_session_statistics,
    worker_command: Sequence[str] = COMMAND,
    policy: RestartPolicy | None = None,
) -> int:
    """Run a cluster in the foreground; returns the exit code.

    Args:
        config: the resolved configuration.
        reload: reads the configuration again on HUP.
        session_source: opens the source of session statistics.
        worker_command: the command that starts a worker, without its arguments.
        policy: delay and budget of restarts.

    Raises:
        ConfigError: if a port or a directory cannot be used.
        DependencyMissing: if nginx or Valkey is needed but not installed.
        BootFailed: if a child cannot boot.
    """
    # prometheus-client chooses its value class by this variable; it is meant for workers only.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    instance = _begin_log(config)
    nginx = nginx_program() if config.server.nginx else ""
    valkey = "" if config.broker.redis_urls else valkey_program()
    user = find_user(config.server.user)
    make_new_files_private()
    paths = Paths(config.server.data_dir, workers=_workers(config), user=user)
    try:
        listeners = Listeners(config, _workers(config))
        file_limit = raise_file_limit()
        try:
            # After the ports are bound and the directories are made, before anything is written there.
            needed = _needed_files(config, nginx, valkey, *worker_command)
            warning = _become(user, needed, paths, reload)
            log.also_write(paths.app_log)
            if warning:
                log.get_logger().warning("privileges_kept", reason=warning)
            resources = Resources(
                listeners=listeners,
                paths=paths,
                valkey=valkey,
                nginx=nginx,
                file_limit=file_limit,
                instance=instance,
                local_sockets=_local_sockets(paths) if nginx else None,
                policy=policy or RestartPolicy(),
                command=worker_command,
            )
            return asyncio.run(_supervise(config, resources, _as_root(reload), session_source))
        finally:
            listeners.close()
    finally:
        log.also_write(None)
        paths.close()


def _begin_log(config: Config) -> str:
    """Configure the log, and say what of the environment is not used; returns the instance of its lines."""
    instance, is_as_given = instance_name(config.server)
    log.configure(config.log, instance=instance)
    sys.excepthook = log.print_exception
    if not is_as_given:
        log.get_logger().warning(
            "instance_not_found",
            name=config.server.instance,
            reason="no address of that name is this machine's: these lines have another instance than the metrics",
        )
    if ignored := service_variables(os.environ):
        log.get_logger().info(
            "environment_ignored",
            names=ignored,
            reason="they describe a Service of Kubernetes; options have __ after the section",
        )
    return instance


async def _supervise(
    config: Config,
    resources: Resources,
    reload: Callable[[], Config] | None,
    session_source: SessionSource,
) -> int:
    supervisor = Supervisor(config, resources, reload=reload, session_source=session_source)
    return await supervisor.run()


def _become(
    user: User | None, needed: list[Path], paths: Paths, reload: Callable[[], Config] | None
) -> str:
    """Become an ordinary user, and with this process all that it starts; returns why not."""
    if user is None:
        return ""
    return drop_privileges(user, needed=needed, owned=paths.owned, reload=reload)


def _local_sockets(paths: Paths) -> LocalSockets:
    group = unprivileged_group()
    return LocalSockets(lambda: paths.socket_directory(group), group)


def _as_root(reload: Callable[[], Config] | None) -> Callable[[], Config] | None:
    if reload is None:
        return None

    def reload_as_root() -> Config:
        with root_regained():
            return reload()

    return reload_as_root


def _needed_files(config: Config, *programs: str) -> list[Path]:
    """The programs, and the files that the store's URLs name (certificates, keys, passwords)."""
    named = [
        value for url in config.broker.redis_urls for _, value in parse_qsl(split_url(url).query)
    ]
    return [
        path for name in (*programs, *named) if (path := Path(name)).is_absolute() and path.exists()
    ]


def _workers(config: Config) -> int:
    return config.server.workers or len(os.sched_getaffinity(0))
