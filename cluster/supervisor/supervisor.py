"""The supervisor: one process that owns the sockets and keeps everybody else running.

Rules
- TERM and INT stop at once; HUP, TTIN and TTOU are operations and done one after the other.
- Order of a start: sockets, Valkey, then workers and nginx together. Order of a stop: not ready,
  workers drain, nginx, Valkey; the operator's door closes last.
- Side tasks are watched: one that fails stops the program, nothing fails in silence.
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
from cluster.children.heartbeat import HUNG_AFTER_SECONDS, Pauses
from cluster.children.listeners import address, reachable_host
from cluster.children.process import Reaper, become_subreaper
from cluster.config import Config
from cluster.console import Console
from cluster.errors import ClusterError, ConfigError
from cluster.metrics.multiprocess import live_sum
from cluster.metrics.supervisor_metrics import SupervisorMetrics
from cluster.supervisor.build import revision
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
from cluster.supervisor.terminal import StartSummary, Terminal, notes, store_of

#: Asks the store for its numbers about sessions, by name.
SessionStatistics = Callable[[], Awaitable[dict[str, float]]]
SessionSource = Callable[[Config], AbstractAsyncContextManager[SessionStatistics]]

_SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
_TICK_SECONDS: Final = 0.25
_LONG_PAUSE_SECONDS: Final = 1.0
_HURRY_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 2.0
_STATUS_SECONDS: Final = 1.0
_TRIM_SECONDS: Final = 30.0
_MOST_OPERATIONS: Final = 64


class Supervisor:
    """One run of the program, from its first child to its last.

    Args:
        config: what to run.
        resources: sockets, paths, programs.
        reload: reads the configuration again, for HUP; None keeps it.
        session_source: given the configuration with the store in use, opens what is asked for the
            store's numbers about sessions.
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
        self._reaper = Reaper(adopts=True)
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
        shutdown_log = ShutdownLog(resources.paths.shutdown_log)
        self._exit_metrics = ExitMetrics(self._metrics, shutdown_log)
        self._began = time.monotonic()
        self._sessions = 0.0
        self._made_key = development_key(config, resources.paths)
        self._console = self._make_console(shutdown_log)
        self._admin = AdminServer(
            resources.listeners.admin,
            version=__version__,
            instance=resources.instance,
            readiness=self._readiness,
            exposition=self._metrics.exposition,
            scraped=self._exit_metrics.scraped,
            console=self._console,
        )
        self._terminal = Terminal(config, sys.stdout)
        self._operations: asyncio.Queue[str] = asyncio.Queue(_MOST_OPERATIONS)
        self._doing = ""
        self._stopping = asyncio.Event()
        self._grace: Grace | None = None
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def _make_console(self, shutdown_log: ShutdownLog) -> Console:
        listeners = self._resources.listeners
        return Console(
            lambda: self._fleet.config,
            key=lambda: self._fleet.config.admin.key or self._made_key,
            version=__version__,
            state=lambda: cluster_state(
                self._fleet,
                self._readiness(),
                sessions=self._sessions,
                up_seconds=time.monotonic() - self._began,
            ),
            metrics_dir=self._resources.paths.metrics_dir,
            public_port=(listeners.public or listeners.slots[0]).getsockname()[1],
            ended=ended_workers_before(shutdown_log),
        )

    async def run(self) -> int:
        """Run until told to stop; returns the exit code.

        Raises:
            BootFailed: if a child cannot boot.
        """
        self._install_signals()
        ticking = self._watch(self._tick())
        side = [self._watch(self._bring_up())]
        await self._stopping.wait()
        for task in side + [task for task in self._tasks if task is not ticking]:
            task.cancel()
        self._log.info("stop_started", reason=str(self._failure or "asked to"))
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
        self._all_ready()
        config = self._fleet.config
        facts = self._summary(config)
        self._terminal.show(__version__, facts)
        self._log.info(
            "cluster_started",
            version=__version__,
            public=facts.public,
            admin=facts.admin,
            workers=len(facts.workers),
            store=facts.store,
            data_dir=facts.data_dir,
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
        if self._made_key:
            self._log.info("admin_key_made", file=str(self._resources.paths.admin_key))
        self._watch(self._operate())
        self._watch(self._count_sessions(config))
        self._watch(self._trim_logs())
        if self._terminal.is_live:
            self._watch(self._show_status())

    def _summary(self, config: Config) -> StartSummary:
        listeners = self._resources.listeners
        host = reachable_host(listeners.admin.getsockname()[0])
        workers = self._fleet.worker_addresses()
        public = address(listeners.public, host=host) if listeners.public else workers[0]
        return StartSummary(
            public=f"ws://{public}/connection/websocket",
            admin=f"http://{address(listeners.admin, host=host)}/",
            workers=workers,
            store=("embedded Valkey at " if self._resources.valkey else "") + store_of(config),
            data_dir=str(self._resources.paths.data_dir),
            warnings=notes(config),
            key=self._made_key,
        )

    def _all_ready(self) -> None:
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
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._handle_stop)
        for number, name in (
            (signal.SIGTTIN, "add"),
            (signal.SIGTTOU, "remove"),
        ):
            self._loop.add_signal_handler(number, self._queue, name)
        self._loop.add_signal_handler(signal.SIGHUP, self._handle_hangup)

    def _ignore_signals(self) -> None:
        """Nothing can be asked of us any more; by default TTIN would stop this process for ever."""
        # In one step: the loop's own way, now or when it is closed, gives a signal its default
        # action back, and one that comes just then kills or stops us.
        handlers: dict[int, object] = self._loop._signal_handlers  # type: ignore[attr-defined]  # noqa: SLF001
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
            handlers.pop(number, None)

    def _handle_hangup(self) -> None:
        """Roll; but a terminal that was closed wants us to end."""
        if self._terminal.is_gone:
            self._handle_stop()
        else:
            self._queue("roll")

    def _handle_stop(self) -> None:
        if self._grace is not None:
            self._log.warning("stop_hurried")
            self._grace.shorten(_HURRY_SECONDS)
        self._begin_stop()

    def _begin_stop(self) -> None:
        if self._grace is None:
            self._grace = Grace(self._fleet.config.shutdown.stop_grace_period)
        self._exit_metrics.is_ending = True
        self._stopping.set()

    def _queue(self, operation: str) -> None:
        try:
            self._operations.put_nowait(operation)
        except asyncio.QueueFull:
            self._log.warning("operation_refused", operation=operation, reason="too many wait")

    async def _operate(self) -> None:
        handlers = {"roll": self.handle_roll, "add": self.handle_add, "remove": self.handle_remove}
        while True:
            self._doing = await self._operations.get()
            began = time.monotonic()
            self._log.info("operation_started", operation=self._doing)
            done = await handlers[self._doing]()
            self._log.info(
                "operation_finished",
                operation=self._doing,
                done=done,
                seconds=round(time.monotonic() - began, 3),
            )
            self._doing = ""

    async def handle_roll(self) -> bool:
        """Read the configuration again and replace the workers one by one."""
        try:
            if self._reload is not None:
                self._fleet.use(self._reload())
        except ConfigError as error:
            self._log.error("reload_failed", problems=[str(p) for p in error.problems])
            return False
        done = await self._fleet.roll()
        if done:
            self._all_ready()
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
        """Let everything follow a child that changed."""
        if self._fleet.is_worker(service):
            self._exit_metrics.worker_changed(child)
            if child.exited_at is not None:
                self._console.worker_ended(ended_worker(child, time.time()))
        self._fleet.changed()
        self._metrics.set("app_workers_alive", self._fleet.alive)

    def child_restarted(self, service: Service, reason: str) -> None:
        """Count a worker that was started in place of another."""
        if self._fleet.is_worker(service):
            self._exit_metrics.worker_restarted(reason)

    async def _tick(self) -> None:
        pauses = Pauses(time.monotonic(), _TICK_SECONDS)
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            away = pauses.tick(time.monotonic())
            if away > _LONG_PAUSE_SECONDS:
                self._log.warning("supervisor_paused", seconds=round(away, 3))
            for child in self._fleet.children():
                if child.heartbeat is not None:
                    child.heartbeat.discount(away)
                if child.is_hung(time.monotonic()) and not child.killed_because:
                    self._log.error("child_hung", lane=child.lane, after_seconds=HUNG_AFTER_SECONDS)
                    child.kill("it did not answer")

    # --- what is shown -------------------------------------------------------------------

    def _readiness(self) -> Readiness:
        state = self._fleet.readiness()
        if self._stopping.is_set():
            return dataclasses.replace(state, is_ready=False, reason="draining")
        return state

    async def _count_sessions(self, config: Config) -> None:
        """Ask the store about sessions, for as long as we live and whatever it answers."""
        while True:
            try:
                async with self._session_source(config) as ask:
                    while True:
                        self._take_sessions(await ask())
                        await asyncio.sleep(_POLL_SECONDS)
            except (ClusterError, OSError, TimeoutError) as error:
                self._log.warning("session_statistics_failed", reason=str(error) or "no answer")
            await asyncio.sleep(_POLL_SECONDS)

    def _take_sessions(self, numbers: dict[str, float]) -> None:
        self._sessions = numbers["tracked"]
        self._metrics.set("app_sessions_tracked", numbers["tracked"])
        for name in ("created", "resumed", "expired"):
            self._metrics.set(f"app_sessions_{name}_total", numbers[name])

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_SECONDS)
            await asyncio.to_thread(self._resources.paths.trim_logs)

    async def _show_status(self) -> None:
        began = time.monotonic()
        while True:
            connections = await asyncio.to_thread(
                live_sum, self._resources.paths.metrics_dir, "app_active_connections"
            )
            up = int(time.monotonic() - began)
            doing = f" · {self._doing}" if self._doing else ""
            self._terminal.status(
                f"{self._fleet.ready}/{len(self._fleet.slots)} workers ready · "
                f"{connections:.0f} connections · {self._sessions:.0f} sessions · "
                f"up {up // 3600}:{up // 60 % 60:02}:{up % 60:02}{doing}"
            )
            await asyncio.sleep(_STATUS_SECONDS)
