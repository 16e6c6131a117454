"""Assembles one worker process and takes it apart in reverse.

The parts are entered into one `AsyncExitStack`, the drain last, so that it is left first: stop
accepting, close the clients and finish HTTP requests, flush publishes, detach sessions, close the
store. Every change of state goes to the supervisor through the status pipe, and at least one line
per second, which is the heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from cluster import api
from cluster import log as logs
from cluster.application import Application
from cluster.children.listeners import BACKLOG
from cluster.config import Config
from cluster.errors import BootFailed, StoreDenied, StoreError
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.metrics.worker_metrics import WorkerMetrics
from cluster.node.commands import RpcHandler
from cluster.node.control import Control
from cluster.node.node import Node
from cluster.process_signals import UNUSED_SIGNALS
from cluster.sessions.user_connections import LEASE_SECONDS
from cluster.websocket.accept import Acceptor
from cluster.websocket.file_reserve import PausableListener
from cluster.websocket.server import WebSocketServer
from cluster.worker import garbage, web_app
from cluster.worker.heap import HeapTrimmer, trim_function
from cluster.worker.shedding import ConnectionShedder
from cluster.worker.status_pipe import StatusPipe
from cluster.worker.stores import RedisStores

log = get_logger()

# They are for the supervisor: Ctrl-C, a power failure, a roll, one worker more or less, and some that nothing uses.
_IGNORED_SIGNALS = (
    signal.SIGINT,
    signal.SIGPWR,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    *UNUSED_SIGNALS,
)
_HEARTBEAT_SECONDS = 0.5
_FLUSH_SECONDS = 1.0
_RETRY_SECONDS = 0.5
_LAG_TICK_SECONDS = 0.1
_HURRY_SECONDS = 0.5
#: So long before its timeout a drain that is late no longer keeps a pace.
_RUSH_SECONDS = 1.5
_LEAST_FLUSH_SECONDS = 0.2
#: How long a drain waits for the requests of connections that it has accepted.
_PENDING_SECONDS = 0.5


class Worker:
    """One worker process, from boot to exit."""

    def __init__(
        self,
        config: Config,
        *,
        lane: str,
        instance: str,
        listen_fds: Sequence[int],
        status: StatusPipe,
        is_patient: bool,
        rpc_handlers: Mapping[str, RpcHandler],
        application: Application | None,
    ) -> None:
        self._is_patient = is_patient
        self._config = config
        self._sockets = [socket.socket(fileno=fd) for fd in listen_fds]
        self._status = status
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_draining = False
        self._is_http_closed = False
        self._drain_ends_at = 0.0
        self._listener: PausableListener | None = None
        self._counters = Counters()
        self._metrics = WorkerMetrics(lane)
        logs.count_levels(self._count_log_event)
        logs.count_dropped_lines(self._count_dropped_line)
        for failure in self._metrics.failures:
            self._counters.errors["internal"] += 1
            log.error("metrics_file_failed", reason=failure)
        self._stores = RedisStores(config, self._counters, name=f"{instance}:{lane}:{os.getpid()}")
        self._node = Node(
            config,
            self._counters,
            open_broker=self._stores.open_broker,
            open_sessions=self._stores.open_sessions,
            users=self._stores.open_user_connections(),
            revocations=self._stores.revocations,
            rpc_handlers=rpc_handlers,
            application=application,
            presence_store=self._stores.open_presence(),
        )
        self._control = Control(
            secrets.token_hex(8),
            self._counters,
            open_broker=self._stores.open_control,
            timeout_seconds=config.broker.timeout,
        )
        self._server = WebSocketServer(config, self._node, self._counters, is_ready=self._is_ready)
        self._shedder = self._make_shedder(config)
        app = web_app.application(self._server)
        api.serve(
            app,
            config,
            self._node,
            self._control,
            self._counters,
            name=f"{instance}:{lane}",
            is_draining=self._stop.is_set,
            revocations=self._stores.revocations,
        )
        if application is not None and self._node.application is not None:
            web_app.mount(app, application, self._node.application.calls)
        self._http = web_app.runner(
            app,
            self._server,
            logs_requests=config.log.level == "debug",
            idle_seconds=config.client.stale_close_delay,
            shutdown_seconds=config.shutdown.drain_window,
        )

    def _make_shedder(self, config: Config) -> ConnectionShedder:
        return ConnectionShedder(
            config.balance,
            self._server,
            self._control,
            self._counters,
            is_ready=self._is_ready,
            is_draining=self._stop.is_set,
        )

    def _count_log_event(self, level: str) -> None:
        if level in self._counters.log_events:
            self._counters.log_events[level] += 1

    def _count_dropped_line(self, output: str) -> None:
        self._counters.log_lines_dropped[output] += 1

    # --- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until told to stop.

        Raises:
            BootFailed: when the store cannot be reached at the start.
        """
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGXCPU):
            self._loop.add_signal_handler(number, self._handle_stop)
        for number in _IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._loop.add_signal_handler(signal.SIGUSR1, logs.reopen)
        began = time.monotonic()
        async with contextlib.AsyncExitStack() as parts:
            await parts.enter_async_context(self._beating())
            if not await parts.enter_async_context(self._store()):
                return
            await parts.enter_async_context(self._background_tasks())
            parts.push_async_callback(self._flush)
            parts.push_async_callback(self._close_http)
            await self._accept()
            parts.push_async_callback(self._drain)
            await self._stop.wait()
            began = time.monotonic()
            log.info("drain_started", connections=len(self._server.clients))
        log.info("drain_finished", seconds=round(time.monotonic() - began, 3))

    def _handle_stop(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    @contextlib.asynccontextmanager
    async def _store(self) -> AsyncIterator[bool]:
        try:
            is_reached = await self._reach_store()
            while not is_reached and not self._stop.is_set():
                # The cluster has served before: the store will come back.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _RETRY_SECONDS)
                is_reached = await self._reach_store()
            yield is_reached
        finally:
            await self._control.aclose()
            await self._stores.aclose()

    async def _reach_store(self) -> bool:
        """Connect to the store; returns False if it is unavailable and the worker waits for it.

        Raises:
            BootFailed: when it is unavailable and the worker does not wait.
        """
        try:
            await self._stores.start()
            await self._control.start()
        except (StoreError, TimeoutError, OSError) as error:
            reason = f"the worker cannot use the store: {str(error) or 'no answer'}"
            if not self._is_patient:
                raise BootFailed(
                    f"{reason}; check broker.redis_urls or --redis-url",
                    is_final=isinstance(error, StoreDenied),
                ) from None
            self._status.report("not_ready", reason)
            return False
        return True

    @contextlib.asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        beat = self._loop.create_task(self._beat())
        try:
            yield
        finally:
            beat.cancel()

    @contextlib.asynccontextmanager
    async def _background_tasks(self) -> AsyncIterator[None]:
        coroutines = [
            self._stores.canary.run(),
            self._server.ping_clients(),
            self._server.close_overdue(),
            self._node.channels.check_positions(),
            self._renew_sessions(),
            self._renew_user_connections(),
            self._renew_presence(),
            self._flush_metrics(),
            self._measure_lag(),
            self._watch_readiness(),
            HeapTrimmer(
                accepted=lambda: self._server.accepted_connections,
                still_open=lambda: len(self._server.clients),
                trim=trim_function(),
            ).run(),
        ]
        if self._config.balance.enabled:
            coroutines.append(self._shedder.run())
        tasks = [self._loop.create_task(one) for one in coroutines]
        for task in tasks:
            task.add_done_callback(self._task_stopped)
        try:
            yield
        finally:
            for task in tasks:
                task.remove_done_callback(self._task_stopped)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._set_gauges()
            self._metrics.flush(self._counters)

    def _task_stopped(self, task: asyncio.Task[None]) -> None:
        """Stop the worker: its background tasks never end by themselves, and it needs each of them."""
        self._counters.errors["internal"] += 1
        log.error("background_task_stopped", exc_info=task.exception())
        self._stop.set()

    async def _start_http(self) -> None:
        try:
            await self._http.setup()
        except Exception as error:
            if self._node.application is None:
                raise
            log.exception("application_start_failed")
            reason = f"{type(error).__name__}: {error}"
            raise BootFailed(f"app.http of the application cannot start: {reason}") from None

    async def _close_http(self) -> None:
        """Let requests in progress finish, then end the application; once."""
        if self._is_http_closed:
            return
        self._is_http_closed = True
        try:
            await self._http.cleanup()
        except Exception:
            if self._node.application is None:
                raise
            self._counters.errors["handler"] += 1
            log.exception("application_cleanup_failed")

    async def _accept(self) -> None:
        for sock in self._sockets:
            # Accepted sockets inherit it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await self._start_http()
        assert self._http.server is not None, "setup() has made it"
        self._listener = PausableListener(
            Acceptor(self._server, self._http.server), self._sockets, BACKLOG
        )
        await self._listener.open()
        self._server.listener = self._listener
        garbage.collect_in_small_parts()
        self._status.report("ready")
        log.info("worker_ready")

    # --- the end -------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Stop accepting, then close the clients and end HTTP within the timeout."""
        self._is_draining = True
        self._server.refuse_all()
        if self._listener is not None:
            self._listener.close()
        self._status.report("draining", phase="clients")
        shutdown = self._config.shutdown
        self._drain_ends_at = self._loop.time() + shutdown.timeout
        drain = self._loop.create_task(self._drain_all(shutdown.drain_window))
        hurry = self._loop.create_task(self._hurry.wait())
        # Leaves time for the flushes.
        most = max(0.0, shutdown.timeout - 2 * _LEAST_FLUSH_SECONDS)
        paced = min(most, max(shutdown.drain_window, shutdown.timeout - _RUSH_SECONDS))
        await asyncio.wait({drain, hurry}, timeout=paced, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            left = _HURRY_SECONDS if self._hurry.is_set() else most - paced
            self._hurry.set()
            await asyncio.wait({drain}, timeout=left)
        for task in (drain, hurry):
            task.cancel()
        await asyncio.gather(drain, hurry, return_exceptions=True)
        await self._server.end()

    async def _drain_all(self, window_seconds: float) -> None:
        """Close the clients and finish the HTTP requests in progress, side by side."""
        if (application := self._node.application) is not None:
            # The handlers of ended connections use what the cleanup of app.http ends.
            await self._server.drain(window_seconds, self._hurry)
            await application.calls.flush()
        await asyncio.gather(
            self._server.drain(window_seconds, self._hurry), self._settle_and_close_http()
        )

    async def _settle_and_close_http(self) -> None:
        await self._server.settle_pending(_PENDING_SECONDS)
        await self._close_http()

    async def _flush(self) -> None:
        for phase, flush in (
            ("broker", self._node.flush),
            ("sessions", self._stores.sessions.flush),
        ):
            self._status.report("draining", phase=phase)
            try:
                # Within the same deadline, but each flush gets at least a moment.
                left = self._drain_ends_at - self._loop.time()
                async with asyncio.timeout(min(1.0, max(_LEAST_FLUSH_SECONDS, left))):
                    await flush()
            except TimeoutError:
                log.warning("flush_timed_out", phase=phase)

    # --- background tasks --------------------------------------------------------------------------------

    def _is_ready(self) -> bool:
        return self._stores.is_up and not self._stores.canary.is_deaf

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            self._status.beat()

    async def _watch_readiness(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            if not self._is_draining:
                if self._is_ready():
                    self._status.report("ready")
                else:
                    reason = (
                        "deaf: the broker's messages do not arrive"
                        if self._stores.is_up
                        else "the broker is unavailable"
                    )
                    self._status.report("not_ready", reason)

    async def _renew_sessions(self) -> None:
        while True:
            await asyncio.sleep(self._stores.sessions.renew_interval_seconds)
            try:
                await self._stores.sessions.renew()
            except StoreError as error:
                self._counters.errors["store"] += 1
                log.error("session_renew_failed", reason=str(error))

    async def _renew_user_connections(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                await self._stores.users.renew()
            except StoreError as error:
                self._counters.errors["store"] += 1
                log.error("user_renew_failed", reason=str(error))

    async def _renew_presence(self) -> None:
        assert self._node.members is not None, "a worker's node has a presence store"
        await self._node.members.renew()

    async def _flush_metrics(self) -> None:
        while True:
            self._set_gauges()
            self._metrics.flush(self._counters)
            await asyncio.sleep(_FLUSH_SECONDS)

    def _set_gauges(self) -> None:
        hub = self._node.hub
        self._metrics.set("app_active_connections", len(self._server.clients))
        self._metrics.set("app_subscriptions", hub.subscriptions)
        self._metrics.set("app_channels", len(hub.channels))
        if self._node.members is not None:
            self._metrics.set("app_presence_entries", self._node.members.entries)
        self._metrics.set("app_broker_up", float(self._stores.is_up))
        self._metrics.set(
            "app_broker_last_message_timestamp_seconds", self._stores.canary.last_heard_timestamp
        )

    async def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + _LAG_TICK_SECONDS
            await asyncio.sleep(_LAG_TICK_SECONDS)
            self._counters.event_loop_lag.observe(max(0.0, time.monotonic() - due))
