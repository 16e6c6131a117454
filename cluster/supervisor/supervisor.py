"""The supervisor: one process that owns the listening sockets and runs all other processes.

Rules
- TERM, INT and QUIT stop the program at once. HUP, TTIN and TTOU are operations, done one at a
  time. USR1 opens the log files again; USR2 is ignored.
- Order of a start: sockets, Valkey, then workers and nginx together. Order of a stop: report not
  ready, drain the workers, stop nginx, stop Valkey, close the admin port.
- Every background task is watched: if one fails, the program stops with its error.
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from cluster import __version__, log
from cluster.admin import AdminServer, Readiness
from cluster.children.child import Child, Grace
from cluster.children.heartbeat import HUNG_AFTER_SECONDS, PauseDetector
from cluster.children.listeners import reachable_address
from cluster.children.process import Reaper, become_subreaper
from cluster.config import Config
from cluster.console import Console, Guard
from cluster.errors import ClusterError, ConfigError
from cluster.metrics.multiprocess import live_sum
from cluster.metrics.supervisor_metrics import SupervisorMetrics
from cluster.process_signals import STOP_SIGNALS, UNUSED_SIGNALS, signal_name
from cluster.supervisor.build import revision
from cluster.supervisor.code_watch import watch_code
from cluster.supervisor.console_view import (
    cluster_state,
    development_key,
    ended_worker,
    ended_workers_before,
)
from cluster.supervisor.exit_metrics import ExitMetrics
from cluster.supervisor.fleet import Fleet, Resources
from cluster.supervisor.limits import ENOUGH_FILES
from cluster.supervisor.service import Service
from cluster.supervisor.shutdown_log import ShutdownLog
from cluster.supervisor.terminal import StartSummary, Terminal, store_urls, warnings_about

#: Reads the session counts from the store, by name.
ReadStatistics = Callable[[], Awaitable[dict[str, float]]]
SessionSource = Callable[[Config], AbstractAsyncContextManager[ReadStatistics]]

_SIGNALS: Final = (
    *STOP_SIGNALS, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, *UNUSED_SIGNALS,
)  # fmt: skip
_TICK_SECONDS: Final = 0.25
_LONG_PAUSE_SECONDS: Final = 1.0
_SHORTENED_GRACE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 2.0
_STATUS_SECONDS: Final = 1.0
_TRIM_SECONDS: Final = 30.0
_MAX_OPERATIONS: Final = 64


class Supervisor:
    """One run of the program.

    Args:
        config: the resolved configuration.
        resources: sockets, directories, programs and limits.
        reload: reads the configuration again on HUP; None keeps the current one.
        session_source: opens the source of session statistics; its argument is the configuration
            with the URLs of the store in use.
    """

    def __init__(
        self,
        config: Config,
        resources: Resources,
        *,
        session_source: SessionSource,
        reload: Callable[[], Config] | None = None,
    ) -> None:
        become_subreaper()
        self._resources = resources
        self._reload = reload
        self._session_source = session_source
        self._loop = asyncio.get_running_loop()
        self._log = log.get_logger()
        self._reaper = Reaper(reaps_orphans=True)
        self._fleet = Fleet(
            config, resources, reaper=self._reaper, listener=self, watch=self._watch_task
        )
        self._metrics = SupervisorMetrics(
            resources.paths.metrics_dir,
            version=__version__,
            revision=revision(),
            running=self._fleet.running,
        )
        log.count_levels(self._metrics.count_log_event)
        log.count_dropped_lines(self._metrics.count_dropped_line)
        shutdown_log = ShutdownLog(resources.paths.shutdown_log)
        self._exit_metrics = ExitMetrics(self._metrics, shutdown_log)
        self._started_at = time.monotonic()
        self._sessions = 0.0
        self._development_key = development_key(config, resources.paths)
        self._guard = Guard(
            key=lambda: self._fleet.config.admin.key or self._development_key,
            trusted=lambda: self._fleet.trusted_proxies,
            count=self._metrics.count,
        )
        self._console = self._make_console(shutdown_log)
        self._admin = AdminServer(
            resources.listeners.admin,
            version=__version__,
            instance=resources.instance,
            readiness=self._readiness,
            exposition=self._metrics.exposition,
            scraped=self._exit_metrics.scraped,
            console=self._console,
            count=self._metrics.count,
            limit=self._fleet.admin_places,
            guard=self._guard,
        )
        self._terminal = Terminal(config, sys.stdout)
        self._operations: asyncio.Queue[str] = asyncio.Queue(_MAX_OPERATIONS)
        self._operation = ""
        self._stopping = asyncio.Event()
        self._grace: Grace | None = None
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def _make_console(self, shutdown_log: ShutdownLog) -> Console:
        listeners = self._resources.listeners
        return Console(
            lambda: self._fleet.config,
            guard=self._guard,
            version=__version__,
            state=lambda: cluster_state(
                self._fleet,
                self._readiness(),
                sessions=self._sessions,
                up_seconds=time.monotonic() - self._started_at,
            ),
            metrics_dir=self._resources.paths.metrics_dir,
            public_port=(listeners.public or listeners.slots[0]).getsockname()[1],
            ended=ended_workers_before(shutdown_log),
        )

    async def run(self) -> int:
        """Run until a stop signal or a failure; returns the exit code.

        Raises:
            BootFailed: if a child cannot boot.
        """
        self._install_signals()
        ticking = self._watch(self._tick())
        self._watch(self._bring_up())
        await self._stopping.wait()
        for task in [task for task in self._tasks if task is not ticking]:
            task.cancel()
        self._log.info("stop_started", reason=str(self._failure or "stop signal"))
        await self._fleet.stop(self._grace or Grace(self._fleet.config.shutdown.stop_grace_period))
        ticking.cancel()
        await self._admin.close()
        self._reaper.close()
        self._ignore_signals()
        self._terminal.end()
        self._log.info("stopped")
        if self._failure is not None:
            raise self._failure
        return 0

    async def _bring_up(self) -> None:
        began = time.monotonic()
        await self._admin.open()
        await self._fleet.start()
        self._record_deployment()
        config = self._fleet.config
        summary = self._summary(config)
        self._terminal.show(__version__, summary)
        self._log.info(
            "cluster_started",
            version=__version__,
            public=summary.public,
            admin=summary.admin,
            workers=len(summary.workers),
            store=summary.store,
            data_dir=summary.data_dir,
            seconds=round(time.monotonic() - began, 3),
        )
        if self._resources.file_limit < ENOUGH_FILES:
            self._log.warning(
                "file_limit_found_low",
                file_limit=self._resources.file_limit,
                connections_that_fit=self._fleet.capacity(),
                hint="raise the hard limit of open files (ulimit -Hn) for more",
            )
        if config.client.insecure:
            self._log.warning("insecure_mode_used", host=config.server.host)
        if self._development_key:
            self._log.info("admin_key_made", file=str(self._resources.paths.admin_key))
        self._watch(self._operate())
        self._watch(self._count_sessions(config))
        self._watch(self._trim_logs())
        if config.app.reload:
            self._watch(watch_code(config.app.target, lambda: self._queue("roll")))
        if self._terminal.is_live:
            self._watch(self._show_status())

    def _summary(self, config: Config) -> StartSummary:
        listeners = self._resources.listeners
        workers = self._fleet.worker_addresses()
        public = reachable_address(listeners.public) if listeners.public else workers[0]
        return StartSummary(
            public=f"ws://{public}/connection/websocket",
            admin=f"http://{reachable_address(listeners.admin)}/",
            workers=workers,
            store=("embedded Valkey at " if self._resources.valkey else "") + store_urls(config),
            data_dir=str(self._resources.paths.data_dir),
            warnings=warnings_about(config),
            key=self._development_key,
        )

    def _record_deployment(self) -> None:
        self._metrics.set(
            "app_deployment_timestamp_seconds", time.time(), version=self._metrics.version
        )
        self._metrics.set("app_connection_capacity", self._fleet.capacity())

    # --- watching tasks ------------------------------------------------------------------

    def _watch(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._watch_task(task)
        return task

    def _watch_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._begin_stop()

    # --- signals -------------------------------------------------------------------------

    def _install_signals(self) -> None:
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._handle_stop)
        for number, name in ((signal.SIGTTIN, "add"), (signal.SIGTTOU, "remove")):
            self._loop.add_signal_handler(number, self._queue, name)
        self._loop.add_signal_handler(signal.SIGHUP, self._handle_hangup)
        self._loop.add_signal_handler(signal.SIGUSR1, self._handle_reopen)
        for number in UNUSED_SIGNALS:
            self._loop.add_signal_handler(number, self._handle_unused, number)

    def _ignore_signals(self) -> None:
        """Ignore all signals from now on; the default action of TTIN would suspend this process."""
        # `remove_signal_handler`, also when the loop closes, first restores the default action; a
        # signal in that moment would kill or suspend this process.
        handlers: dict[int, object] = self._loop._signal_handlers  # type: ignore[attr-defined]  # noqa: SLF001
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
            handlers.pop(number, None)

    def _handle_hangup(self) -> None:
        """Roll; stop instead if the signal comes from a terminal that was closed."""
        if self._terminal.is_closed:
            self._handle_stop()
        else:
            self._queue("roll")

    def _handle_reopen(self) -> None:
        """Open the log files again, after a rotation."""
        log.reopen()
        self._fleet.reopen_logs()
        self._log.info("logs_reopened")

    def _handle_unused(self, number: int) -> None:
        # nginx and gunicorn start another binary on USR2, so tools send it.
        hint = "HUP rolls the workers, TERM stops the cluster"
        self._log.warning("signal_ignored", signal=signal_name(number), hint=hint)

    def _handle_stop(self) -> None:
        if self._grace is not None:
            self._log.warning("stop_grace_shortened")
            self._grace.shorten(_SHORTENED_GRACE_SECONDS)
        self._begin_stop()

    def _begin_stop(self) -> None:
        if self._grace is None:
            self._grace = Grace(self._fleet.config.shutdown.stop_grace_period)
        self._exit_metrics.is_stopping = True
        self._stopping.set()

    def _queue(self, operation: str) -> None:
        try:
            self._operations.put_nowait(operation)
        except asyncio.QueueFull:
            self._log.warning(
                "operation_refused", operation=operation, reason="too many are waiting"
            )

    async def _operate(self) -> None:
        handlers = {"roll": self.handle_roll, "add": self.handle_add, "remove": self.handle_remove}
        while True:
            self._operation = await self._operations.get()
            began = time.monotonic()
            self._log.info("operation_started", operation=self._operation)
            done = await self._perform(handlers[self._operation])
            self._log.info(
                "operation_finished",
                operation=self._operation,
                done=done,
                seconds=round(time.monotonic() - began, 3),
            )
            self._operation = ""

    async def _perform(self, operation: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await operation()
        except OSError as error:
            self._background_failed(self._operation, error)
            return False

    async def handle_roll(self) -> bool:
        """Read the configuration again and replace the workers one by one."""
        try:
            if self._reload is not None:
                self._fleet.apply_config(self._reload())
        except ConfigError as error:
            self._log.error("reload_failed", problems=[str(p) for p in error.problems])
            return False
        done = await self._fleet.roll()
        if done:
            self._record_deployment()
        return done

    async def handle_add(self) -> bool:
        """Add a worker."""
        try:
            await self._fleet.add_slot()
        except ConfigError as error:
            self._log.error("worker_add_failed", problems=[str(p) for p in error.problems])
            return False
        self._metrics.set("app_connection_capacity", self._fleet.capacity())
        return True

    async def handle_remove(self) -> bool:
        """Remove a worker."""
        done = await self._fleet.remove_slot()
        self._metrics.set("app_connection_capacity", self._fleet.capacity())
        return done

    # --- children ------------------------------------------------------------------------

    def child_changed(self, service: Service, child: Child) -> None:
        """Update metrics, console and fleet after a change of a child."""
        if self._fleet.is_worker(service):
            self._exit_metrics.worker_changed(child)
            if child.exited_at is not None:
                self._console.worker_ended(ended_worker(child, time.time()))
        self._fleet.child_changed()
        self._metrics.set("app_workers_alive", self._fleet.alive)

    def child_restarted(self, service: Service, reason: str) -> None:
        """Count the restart of a worker."""
        if self._fleet.is_worker(service):
            self._exit_metrics.worker_restarted(reason)

    def system_refused(self, service: Service, error_type: str) -> None:
        """Count what the operating system refused."""
        self._metrics.count("app_supervisor_errors_total", type=error_type)

    async def _tick(self) -> None:
        pauses = PauseDetector(time.monotonic(), _TICK_SECONDS)
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            pause = pauses.tick(time.monotonic())
            if pause > _LONG_PAUSE_SECONDS:
                self._log.warning("supervisor_paused", seconds=round(pause, 3))
            for child in self._fleet.children():
                if child.heartbeat is not None:
                    child.heartbeat.discount(pause)
                if child.is_hung(time.monotonic()) and not child.kill_reason:
                    self._log.error("child_hung", lane=child.lane, after_seconds=HUNG_AFTER_SECONDS)
                    child.kill("unresponsive")

    # --- status --------------------------------------------------------------------------

    def _readiness(self) -> Readiness:
        readiness = self._fleet.readiness()
        if self._stopping.is_set():
            return dataclasses.replace(readiness, is_ready=False, reason="draining")
        return readiness

    async def _count_sessions(self, config: Config) -> None:
        """Read the session counts regularly; after a failure, log it and connect again."""
        while True:
            try:
                async with self._session_source(config) as read_statistics:
                    while True:
                        self._record_sessions(await read_statistics())
                        await asyncio.sleep(_POLL_SECONDS)
            except (ClusterError, OSError, TimeoutError) as error:
                self._log.warning("session_statistics_failed", reason=str(error) or "no answer")
            await asyncio.sleep(_POLL_SECONDS)

    def _record_sessions(self, counts: dict[str, float]) -> None:
        self._sessions = counts["tracked"]
        self._metrics.set("app_sessions_tracked", counts["tracked"])
        for name in ("created", "resumed", "expired"):
            self._metrics.set(f"app_sessions_{name}_total", counts[name])

    def _background_failed(self, work: str, error: OSError) -> None:
        """Count and log what failed for lack of descriptors or space; it is tried again later."""
        self._metrics.count("app_supervisor_errors_total", type="background")
        self._log.error("background_work_failed", work=work, error=str(error))

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_SECONDS)
            try:
                await asyncio.to_thread(self._resources.paths.trim_logs)
            except OSError as error:
                self._background_failed("trim_logs", error)

    async def _show_status(self) -> None:
        began = time.monotonic()
        connections = 0.0
        while True:
            try:
                connections = await asyncio.to_thread(
                    live_sum, self._resources.paths.metrics_dir, "app_active_connections"
                )
            except OSError as error:
                self._background_failed("status", error)
            up = int(time.monotonic() - began)
            operation = f" · {self._operation}" if self._operation else ""
            self._terminal.status(
                f"{self._fleet.ready}/{len(self._fleet.slots)} workers ready · "
                f"{connections:.0f} connections · {self._sessions:.0f} sessions · "
                f"up {up // 3600}:{up // 60 % 60:02}:{up % 60:02}{operation}"
            )
            await asyncio.sleep(_STATUS_SECONDS)
