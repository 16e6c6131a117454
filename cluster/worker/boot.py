"""Boots the worker of a process: its files, its application, its event loop."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping

import uvloop

from cluster.application import Application
from cluster.config import Config
from cluster.errors import BootFailed, ConfigError
from cluster.log import get_logger
from cluster.node.commands import RpcHandler
from cluster.proxy import proxy_application
from cluster.worker.status_pipe import StatusPipe
from cluster.worker.worker import Worker

log = get_logger()


def run(
    config: Config,
    *,
    slot: int,
    lane: str,
    instance: str,
    listen_fd: int,
    local_fd: int | None = None,
    status_fd: int,
    is_patient: bool = False,
    rpc_handlers: Mapping[str, RpcHandler] | None = None,
    load_application: Callable[[], Application] | None = None,
) -> int:
    """Run one worker; returns its exit code.

    Args:
        slot: number of its port, from 0.
        lane: its name and metrics identity, e.g. `w0a`.
        listen_fd: the slot's listening socket, bound by the supervisor.
        local_fd: its unix socket, if it has one.
        status_fd: where the supervisor hears from it.
        is_patient: wait for a store that is away instead of failing to boot; for a worker that
            takes a place in a cluster that has served already.
        rpc_handlers: handlers for `rpc`, by method, if there is no application.
        load_application: imports the application; its `ConfigError` is why the worker cannot boot.
    """
    status = StatusPipe(status_fd)
    status.report("starting")
    _raise_file_limit()

    async def main() -> None:
        worker = Worker(
            config,
            lane=lane,
            instance=instance,
            listen_fds=[listen_fd] if local_fd is None else [listen_fd, local_fd],
            status=status,
            is_patient=is_patient,
            rpc_handlers=rpc_handlers or {},
            application=application,
        )
        await worker.run()

    try:
        application: Application | None
        if load_application is not None:
            application = load_application()
        else:
            application = proxy_application(config)
        uvloop.run(main())
    except (BootFailed, ConfigError) as error:
        is_final = isinstance(error, BootFailed) and error.is_final
        status.report("failed", str(error), **({"final": "yes"} if is_final else {}))
        log.error("worker_boot_failed", reason=str(error), slot=slot)
        return error.exit_code
    return 0


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
