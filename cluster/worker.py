"""Assembles one worker process and takes it apart in reverse.

The parts are entered into one `AsyncExitStack`, the drainer last, so that it leaves first: stop
accepting, close the clients, flush publishes, detach sessions, close the store. The supervisor
hears every change, and at least one line a second, on the status pipe; that is the heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping

import orjson
import uvloop
from aiohttp import web
from aiohttp.http import HttpProcessingError

from cluster import log as logs
from cluster.broker.canary import Canary
from cluster.broker.redis_broker import RedisBroker
from cluster.config import Config
from cluster.errors import BootFailed, StoreError
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.metrics.worker_metrics import WorkerMetrics
from cluster.node.commands import RpcHandler
from cluster.node.node import Node
from cluster.resp.router import Router
from cluster.resp.subscriptions import Subscriptions
from cluster.sessions.redis_sessions import RedisSessions
from cluster.websocket.accept import Acceptor
from cluster.websocket.server import WebSocketServer

log = get_logger()

BACKLOG = 4096

_HEARTBEAT_SECONDS = 0.5
_FLUSH_SECONDS = 1.0
_RETRY_SECONDS = 0.5
_LAG_TICK_SECONDS = 0.1
_HURRY_SECONDS = 0.5
_LEAST_FLUSH_SECONDS = 0.2
# After `gc.freeze()` almost nothing that lives is garbage-collected in vain by rare collections.
_GC_THRESHOLDS = (20_000, 50, 100)


class StatusPipe:
    """One JSON line per change, and the last one again as heartbeat."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._line = b""
        os.set_blocking(fd, False)

    def say(self, state: str, reason: str = "", **more: str) -> None:
        """Tell the supervisor; repeated by `beat` until the next change."""
        line = orjson.dumps({"state": state, "reason": reason, **more}) + b"\n"
        if line != self._line:
            self._line = line
            self.beat()

    def beat(self) -> None:
        """Say the same again."""
        # A full pipe means that the supervisor is not reading; it discounts its own pauses.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._fd, self._line)


class Worker:
    """One worker process, from boot to exit."""

    def __init__(
        self,
        config: Config,
        *,
        lane: str,
        instance: str,
        listen_fd: int,
        status: StatusPipe,
        is_patient: bool,
        rpc_handlers: Mapping[str, RpcHandler],
    ) -> None:
        self._is_patient = is_patient
        self._config = config
        self._socket = socket.socket(fileno=listen_fd)
        self._status = status
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_draining = False
        self._drain_ends_at = 0.0
        self._server: asyncio.Server | None = None
        self._counters = Counters()
        self._metrics = WorkerMetrics(lane)
        logs.count_levels(self._count_log_event)
        self._node = Node(config, self._counters, rpc_handlers=rpc_handlers)
        self._door = WebSocketServer(config, self._node, self._counters, is_ready=self._is_ready)
        self._router = Router(config.broker.redis_urls, timeout_seconds=config.broker.timeout)
        self._subscriptions = Subscriptions(self._router)
        self._broker = RedisBroker(
            self._router,
            self._subscriptions,
            prefix=config.broker.prefix,
            listener=self._node,
            counters=self._counters,
        )
        self._sessions = RedisSessions(
            self._router,
            self._subscriptions,
            prefix=config.broker.prefix,
            ttl_seconds=config.session.ttl,
            state_max_size=config.session.state_max_size,
            listener=self._node,
        )
        self._canary = Canary(
            self._router,
            self._subscriptions,
            prefix=config.broker.prefix,
            name=f"{instance}:{lane}:{os.getpid()}",
            interval_seconds=config.broker.canary_interval,
            deaf_after_seconds=config.broker.deaf_after,
        )
        self._node.start(self._broker, self._sessions)

    def _count_log_event(self, level: str) -> None:
        if level in self._counters.log_events:
            self._counters.log_events[level] += 1

    # --- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until told to stop.

        Raises:
            BootFailed: when the store cannot be reached at the start.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._handle_signal, number)
        began = time.monotonic()
        async with contextlib.AsyncExitStack() as parts:
            await parts.enter_async_context(self._beating())
            if not await parts.enter_async_context(self._store()):
                return
            await parts.enter_async_context(self._clocks())
            parts.push_async_callback(self._flush)
            await self._accept()
            parts.push_async_callback(self._drain)
            await self._stop.wait()
            began = time.monotonic()
            log.info("drain_started", connections=len(self._door.clients))
        log.info("drain_finished", seconds=round(time.monotonic() - began, 3))

    def _handle_signal(self, number: int) -> None:
        if number == signal.SIGINT:
            return  # Ctrl-C is for the supervisor, which then says TERM.
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    @contextlib.asynccontextmanager
    async def _store(self) -> AsyncIterator[bool]:
        try:
            is_reached = await self._reach_store()
            while not is_reached and not self._stop.is_set():
                # In a cluster that has served: the store will come back.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _RETRY_SECONDS)
                is_reached = await self._reach_store()
            yield is_reached
        finally:
            await self._router.aclose()

    async def _reach_store(self) -> bool:
        """Connect to the store; returns False if it is away and waiting for it makes sense.

        Raises:
            BootFailed: when it is away and the worker is not patient.
        """
        try:
            await self._router.start()
            async with asyncio.timeout(self._config.broker.timeout):
                await self._sessions.start()
        except (StoreError, TimeoutError, OSError) as error:
            reason = f"the worker cannot use the store: {str(error) or 'no answer'}"
            if not self._is_patient:
                raise BootFailed(f"{reason}; check broker.redis_urls or --redis-url") from None
            self._status.say("not_ready", reason)
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
    async def _clocks(self) -> AsyncIterator[None]:
        clocks = (
            self._canary.run(),
            self._door.turn(),
            self._door.sweep(),
            self._node.channels.check_positions(),
            self._renew_sessions(),
            self._flush_metrics(),
            self._measure_lag(),
            self._watch_readiness(),
        )
        tasks = [self._loop.create_task(clock) for clock in clocks]
        for task in tasks:
            task.add_done_callback(self._clock_stopped)
        try:
            yield
        finally:
            for task in tasks:
                task.remove_done_callback(self._clock_stopped)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._set_gauges()
            self._metrics.flush(self._counters)

    def _clock_stopped(self, task: asyncio.Task[None]) -> None:
        """A clock never ends by itself; without one the worker is only half alive."""
        self._counters.errors["internal"] += 1
        log.error("clock_stopped", exc_info=task.exception())
        self._stop.set()

    async def _accept(self) -> None:
        faults = logging.getLogger("cluster.http")
        faults.addFilter(logs.Unlogged(HttpProcessingError, self._door.bad_http))
        http = web.Server(_not_found, access_log=None, logger=faults)
        # Accepted sockets inherit it.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._server = await self._loop.create_server(
            Acceptor(self._door, http), sock=self._socket, backlog=BACKLOG
        )
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        self._status.say("ready")
        log.info("worker_ready")

    # --- the end -------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Stop accepting, then close the clients within the timeout."""
        self._is_draining = True
        self._door.refuse_all()
        if self._server is not None:
            self._server.close()
        self._status.say("draining", phase="clients")
        shutdown = self._config.shutdown
        self._drain_ends_at = self._loop.time() + shutdown.timeout
        drain = self._loop.create_task(self._door.drain(shutdown.drain_window, self._hurry))
        hurry = self._loop.create_task(self._hurry.wait())
        await asyncio.wait(
            {drain, hurry},
            # Room is left for what comes after the clients.
            timeout=max(0.0, shutdown.timeout - 2 * _LEAST_FLUSH_SECONDS),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not drain.done():
            await asyncio.wait({drain}, timeout=_HURRY_SECONDS if self._hurry.is_set() else 0)
        self._door.abort_all()
        for task in (drain, hurry):
            task.cancel()
        await asyncio.gather(drain, hurry, return_exceptions=True)

    async def _flush(self) -> None:
        for phase, flush in (
            ("broker", self._node.calls.flush),
            ("sessions", self._sessions.flush),
        ):
            self._status.say("draining", phase=phase)
            try:
                # Within the same deadline; what is left of it may be little, and never nothing.
                left = self._drain_ends_at - self._loop.time()
                async with asyncio.timeout(min(1.0, max(_LEAST_FLUSH_SECONDS, left))):
                    await flush()
            except TimeoutError:
                log.warning("flush_timed_out", phase=phase)

    # --- clocks --------------------------------------------------------------------------------

    def _is_ready(self) -> bool:
        return self._router.is_up and not self._canary.is_deaf

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            self._status.beat()

    async def _watch_readiness(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            if not self._is_draining:
                if self._is_ready():
                    self._status.say("ready")
                else:
                    reason = (
                        "deaf: the broker's messages do not arrive"
                        if self._router.is_up
                        else ("the broker is away")
                    )
                    self._status.say("not_ready", reason)

    async def _renew_sessions(self) -> None:
        while True:
            await asyncio.sleep(self._sessions.renew_interval_seconds)
            try:
                await self._sessions.renew()
            except StoreError as error:
                self._counters.errors["store"] += 1
                log.error("session_renew_failed", reason=str(error))

    async def _flush_metrics(self) -> None:
        while True:
            self._set_gauges()
            self._metrics.flush(self._counters)
            await asyncio.sleep(_FLUSH_SECONDS)

    def _set_gauges(self) -> None:
        hub = self._node.hub
        self._metrics.set("app_active_connections", len(self._door.clients))
        self._metrics.set("app_subscriptions", hub.subscriptions)
        self._metrics.set("app_channels", len(hub.channels))
        self._metrics.set("app_broker_up", float(self._router.is_up))
        self._metrics.set(
            "app_broker_last_message_timestamp_seconds", self._canary.last_heard_timestamp
        )

    async def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + _LAG_TICK_SECONDS
            await asyncio.sleep(_LAG_TICK_SECONDS)
            self._counters.event_loop_lag.observe(max(0.0, time.monotonic() - due))


def run(
    config: Config,
    *,
    slot: int,
    lane: str,
    instance: str,
    listen_fd: int,
    status_fd: int,
    is_patient: bool = False,
    rpc_handlers: Mapping[str, RpcHandler] | None = None,
) -> int:
    """Run one worker; returns its exit code.

    Args:
        slot: number of its port, from 0.
        lane: its name and metrics identity, e.g. `w0a`.
        listen_fd: the slot's listening socket, bound by the supervisor.
        status_fd: where the supervisor hears from it.
        is_patient: wait for a store that is away instead of failing to boot; for a worker that
            takes a place in a cluster that has served already.
        rpc_handlers: an application's handlers for `rpc`, by method.
    """
    status = StatusPipe(status_fd)
    status.say("starting")
    _raise_file_limit()

    async def main() -> None:
        worker = Worker(
            config,
            lane=lane,
            instance=instance,
            listen_fd=listen_fd,
            status=status,
            is_patient=is_patient,
            rpc_handlers=rpc_handlers or {},
        )
        await worker.run()

    try:
        uvloop.run(main())
    except BootFailed as error:
        status.say("failed", str(error))
        log.error("worker_boot_failed", reason=str(error), slot=slot)
        return error.exit_code
    return 0


async def _not_found(_: web.BaseRequest) -> web.StreamResponse:
    response = web.Response(status=404, text="not found\n")
    # A second request would bypass the entry.
    response.force_close()
    return response


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
