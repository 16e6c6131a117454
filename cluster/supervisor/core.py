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
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from cluster import __version__, log
from cluster.admin import AdminDoor, Readiness
from cluster.children.child import Child, Grace
from cluster.children.doors import address, reachable_host
from cluster.children.heartbeat import HUNG_AFTER_SECONDS, Pauses
from cluster.children.process import Reaper, become_subreaper
from cluster.config import Config
from cluster.console import Console
from cluster.errors import ClusterError, ConfigError
from cluster.metrics.lanes import live_sum
from cluster.metrics.supervisor import SupervisorMetrics
from cluster.supervisor.build import revision
from cluster.supervisor.census import SessionStats, session_stats
from cluster.supervisor.crew import Crew, Means
from cluster.supervisor.journal import Journal
from cluster.supervisor.limits import ENOUGH_FILES
from cluster.supervisor.post import Post
from cluster.supervisor.record import Record
from cluster.supervisor.screen import Screen, Summary, notes, store_of
from cluster.supervisor.viewing import ended, ended_before, facts_of, made_key

Census = Callable[[Config], AbstractAsyncContextManager[SessionStats]]

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
        means: sockets, places, programs.
        reload: reads the configuration again, for HUP; None keeps it.
        census: given the configuration with the store in use, opens what is asked for the
            store's numbers about sessions.
    """

    def __init__(
        self,
        config: Config,
        means: Means,
        *,
        reload: Callable[[], Config] | None = None,
        census: Census = session_stats,
    ) -> None:
        become_subreaper()
        self._means = means
        self._reload = reload
        self._census = census
        self._loop = asyncio.get_running_loop()
        self._log = log.get_logger()
        self._reaper = Reaper(adopts=True)
        self._crew = Crew(config, means, reaper=self._reaper, listener=self, watch=self._watch_task)
        self._metrics = SupervisorMetrics(
            means.places.metrics_dir,
            version=__version__,
            revision=revision(),
            running=self._crew.running,
        )
        log.count_levels(self._metrics.count_log_event)
        journal = Journal(means.places.journal)
        self._record = Record(self._metrics, journal)
        self._began = time.monotonic()
        self._sessions = 0.0
        self._made_key = made_key(config, means.places)
        self._console = self._make_console(journal)
        self._admin = AdminDoor(
            means.doors.admin,
            version=__version__,
            instance=means.instance,
            readiness=self._readiness,
            exposition=self._metrics.exposition,
            scraped=self._record.scraped,
            console=self._console,
        )
        self._screen = Screen(config, sys.stdout)
        self._operations: asyncio.Queue[str] = asyncio.Queue(_MOST_OPERATIONS)
        self._doing = ""
        self._stopping = asyncio.Event()
        self._grace: Grace | None = None
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def _make_console(self, journal: Journal) -> Console:
        doors = self._means.doors
        return Console(
            lambda: self._crew.config,
            key=lambda: self._crew.config.admin.key or self._made_key,
            version=__version__,
            facts=lambda: facts_of(
                self._crew,
                self._readiness(),
                sessions=self._sessions,
                up_seconds=time.monotonic() - self._began,
            ),
            metrics_dir=self._means.places.metrics_dir,
            public_port=(doors.public or doors.slots[0]).getsockname()[1],
            ended=ended_before(journal),
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
        await self._crew.stop(self._grace or Grace(self._crew.config.shutdown.stop_grace_period))
        ticking.cancel()
        await self._admin.close()
        self._reaper.close()
        self._ignore_signals()
        self._screen.end()
        self._log.info("stopped")
        if self._failure is not None:
            raise self._failure
        return 0

    async def _bring_up(self) -> None:
        began = time.monotonic()
        await self._admin.open()
        await self._crew.start()
        self._all_ready()
        config = self._crew.config
        facts = self._summary(config)
        self._screen.show(__version__, facts)
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
        if self._means.file_limit < ENOUGH_FILES:
            self._log.warning(
                "file_limit_found_low",
                file_limit=self._means.file_limit,
                connections_that_fit=self._crew.capacity(),
                hint="raise the hard limit of open files (ulimit -Hn) for more",
            )
        if config.client.insecure:
            self._log.warning("insecure_mode_used", host=config.server.host)
        if self._made_key:
            self._log.info("admin_key_made", file=str(self._means.places.admin_key))
        self._watch(self._operate())
        self._watch(self._count_sessions(config))
        self._watch(self._trim_logs())
        if self._screen.is_live:
            self._watch(self._show_status())

    def _summary(self, config: Config) -> Summary:
        doors = self._means.doors
        host = reachable_host(doors.admin.getsockname()[0])
        workers = self._crew.worker_addresses()
        public = address(doors.public, host=host) if doors.public else workers[0]
        return Summary(
            public=f"ws://{public}/connection/websocket",
            admin=f"http://{address(doors.admin, host=host)}/",
            workers=workers,
            store=("embedded Valkey at " if self._means.valkey else "") + store_of(config),
            data_dir=str(self._means.places.data_dir),
            warnings=notes(config),
            key=self._made_key,
        )

    def _all_ready(self) -> None:
        self._metrics.set(
            "app_deployment_timestamp_seconds", time.time(), version=self._metrics.version
        )
        self._metrics.set("app_connection_capacity", self._crew.capacity())

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
        if self._screen.is_gone:
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
            self._grace = Grace(self._crew.config.shutdown.stop_grace_period)
        self._record.is_ending = True
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
                self._crew.use(self._reload())
        except ConfigError as error:
            self._log.error("reload_failed", problems=[str(p) for p in error.problems])
            return False
        done = await self._crew.roll()
        if done:
            self._all_ready()
        return done

    async def handle_add(self) -> bool:
        """Add a worker."""
        try:
            await self._crew.add_slot()
        except ConfigError as error:
            self._log.error("worker_add_failed", problems=[str(p) for p in error.problems])
            return False
        self._metrics.set("app_connection_capacity", self._crew.capacity())
        return True

    async def handle_remove(self) -> bool:
        """Remove a worker."""
        done = await self._crew.remove_slot()
        self._metrics.set("app_connection_capacity", self._crew.capacity())
        return done

    # --- children ------------------------------------------------------------------------

    def child_changed(self, post: Post, child: Child) -> None:
        """Let everything follow a child that changed."""
        if self._crew.is_worker(post):
            self._record.worker_changed(child)
            if child.exited_at is not None:
                self._console.worker_ended(ended(child, time.time()))
        self._crew.changed()
        self._metrics.set("app_workers_alive", self._crew.alive)

    def child_restarted(self, post: Post, reason: str) -> None:
        """Count a worker that was started in place of another."""
        if self._crew.is_worker(post):
            self._record.worker_restarted(reason)

    async def _tick(self) -> None:
        pauses = Pauses(time.monotonic(), _TICK_SECONDS)
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            away = pauses.tick(time.monotonic())
            if away > _LONG_PAUSE_SECONDS:
                self._log.warning("supervisor_paused", seconds=round(away, 3))
            for child in self._crew.children():
                if child.heartbeat is not None:
                    child.heartbeat.discount(away)
                if child.is_hung(time.monotonic()) and not child.killed_because:
                    self._log.error("child_hung", lane=child.lane, after_seconds=HUNG_AFTER_SECONDS)
                    child.kill("it did not answer")

    # --- what is shown -------------------------------------------------------------------

    def _readiness(self) -> Readiness:
        state = self._crew.readiness()
        if self._stopping.is_set():
            return dataclasses.replace(state, is_ready=False, reason="draining")
        return state

    async def _count_sessions(self, config: Config) -> None:
        """Ask the store about sessions, for as long as we live and whatever it answers."""
        while True:
            try:
                async with self._census(config) as ask:
                    while True:
                        self._take_sessions(await ask())
                        await asyncio.sleep(_POLL_SECONDS)
            except (ClusterError, OSError, TimeoutError) as error:
                self._log.warning("session_census_failed", reason=str(error) or "no answer")
            await asyncio.sleep(_POLL_SECONDS)

    def _take_sessions(self, numbers: dict[str, float]) -> None:
        self._sessions = numbers["tracked"]
        self._metrics.set("app_sessions_tracked", numbers["tracked"])
        for name in ("created", "resumed", "expired"):
            self._metrics.set(f"app_sessions_{name}_total", numbers[name])

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_SECONDS)
            await asyncio.to_thread(self._means.places.trim_logs)

    async def _show_status(self) -> None:
        began = time.monotonic()
        while True:
            connections = await asyncio.to_thread(
                live_sum, self._means.places.metrics_dir, "app_active_connections"
            )
            up = int(time.monotonic() - began)
            doing = f" · {self._doing}" if self._doing else ""
            self._screen.status(
                f"{self._crew.ready}/{len(self._crew.slots)} workers ready · "
                f"{connections:.0f} connections · {self._sessions:.0f} sessions · "
                f"up {up // 3600}:{up // 60 % 60:02}:{up % 60:02}{doing}"
            )
            await asyncio.sleep(_STATUS_SECONDS)
