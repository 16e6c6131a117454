"""Closes a worker's surplus connections, as `cluster.node.balance` decides, and reports its own.

Guarantees
- A turn of the loop closes one connection, and looks at a bounded number of them.
- Closed are the oldest connections first, of these the idle ones first: those without a command since the
  last look, a command in progress or unsent bytes. None is closed before it has connected.
- Nothing is closed while this worker drains, starts or recovers, even if it has just been decided.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from itertools import islice
from typing import Final

from cluster.config import BalanceConfig
from cluster.connection import State
from cluster.errors import FORCE_RECONNECT, ClientError
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.balance import Balance, BalanceRules, ReportedState, WorkerLoad
from cluster.node.control import Control
from cluster.websocket.client import WebSocketClient
from cluster.websocket.server import WebSocketServer

log = get_logger()

#: Time between two decisions, or the interval of the reports if that is shorter.
_DECIDE_SECONDS: Final = 1.0
#: A worker has started or recovered when it was ready for so many intervals.
_SETTLED_INTERVALS: Final = 2
#: A worker that has missed so many reports is gone.
_LEASE_INTERVALS: Final = 3
#: Among so many of the oldest connections, and twice as many as are closed, the idle ones are found.
_LOOKED_AT: Final = 1000
#: The next connection that is closed after so long is logged again.
_QUIET_SECONDS: Final = 60.0


def rules_of(options: BalanceConfig) -> BalanceRules:
    """The rules of the decision, from `balance.*`."""
    return BalanceRules(
        threshold=options.threshold_percent / 100,
        after_seconds=options.after,
        share_per_minute=options.shed_percent_per_minute / 100,
        lease_seconds=_LEASE_INTERVALS * options.interval,
    )


class ConnectionShedder:
    """The loop of one worker.

    Args:
        is_ready: whether the worker can serve new clients.
        is_draining: whether it is stopping.
    """

    def __init__(
        self,
        options: BalanceConfig,
        server: WebSocketServer,
        control: Control,
        counters: Counters,
        *,
        is_ready: Callable[[], bool],
        is_draining: Callable[[], bool],
    ) -> None:
        self._interval = options.interval
        self._server = server
        self._control = control
        self._counters = counters
        self._is_ready = is_ready
        self._is_draining = is_draining
        self._balance = Balance(control.uid, rules_of(options))
        self._has_recovered = False
        self._settles_at = 0.0
        self._cpu = (time.monotonic(), time.process_time())
        self._cpu_share = 0.0
        self._reported_state: ReportedState | None = None
        self._reports_at = 0.0
        self._commands: dict[str, int] = {}
        self._warned_at = 0
        self._closed_at = -math.inf
        control.on_report("load", WorkerLoad, self._heard)

    def _heard(self, uid: str, load: WorkerLoad) -> None:
        if not self._balance.heard(uid, load, time.monotonic()):
            self._counters.control["dropped"] += 1

    # --- the loop ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Report, decide and close, until cancelled."""
        self._settles_at = time.monotonic() + _SETTLED_INTERVALS * self._interval
        turn = min(_DECIDE_SECONDS, self._interval)
        # Workers that were started together report at different times.
        await asyncio.sleep(random.random() * turn)
        while True:
            now = time.monotonic()
            state = self._state(now)
            load = self._balance.own_load(len(self._server.clients), self._cpu_share, state, now)
            await self._report_due(load, now)
            count = self._balance.to_close(load, now)
            self._warn()
            ends_at = now + turn * random.uniform(0.75, 1.25)
            if count:
                await self._close(count, now, ends_at)
            await asyncio.sleep(max(0.0, ends_at - time.monotonic()))

    def _state(self, now: float) -> ReportedState:
        if self._is_draining():
            return ReportedState.DRAINING
        if not self._is_ready():
            self._has_recovered = True
            self._settles_at = now + _SETTLED_INTERVALS * self._interval
            return ReportedState.RECOVERING
        if now < self._settles_at:
            return ReportedState.RECOVERING if self._has_recovered else ReportedState.STARTING
        return ReportedState.STEADY

    async def _report_due(self, load: WorkerLoad, now: float) -> None:
        """Report if it is time to, or if the state has changed; not to a store that is away."""
        is_due = now >= self._reports_at or load.state != self._reported_state
        if not is_due or not self._is_ready():
            return
        self._reports_at, self._reported_state = now + self._interval, ReportedState(load.state)
        (before, cpu_before), self._cpu = self._cpu, (now, time.process_time())
        self._cpu_share = (self._cpu[1] - cpu_before) / max(now - before, 0.001)
        try:
            await self._control.report("load", load)
        except ClientError:
            # It is counted and logged; the next report follows soon.
            return

    def _warn(self) -> None:
        """Log once for each attempt that was in vain; the attempts become rarer and rarer."""
        attempts = self._balance.attempts_in_vain
        if attempts > self._warned_at:
            log.warning("shed_connections_returned", attempts=attempts)
        self._warned_at = attempts

    # --- closing -------------------------------------------------------------------------------

    async def _close(self, count: int, now: float, ends_at: float) -> None:
        """Close so many connections at random times until `ends_at`."""
        if now - self._closed_at > _QUIET_SECONDS:
            log.info("shedding_started", connections=len(self._server.clients))
        self._closed_at = now
        clients = self._oldest(count)
        times = sorted(random.uniform(now, ends_at) for _ in clients)
        for due, client in zip(times, clients, strict=True):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._state(time.monotonic()) is not ReportedState.STEADY:
                return
            if client.connection.state is State.CONNECTED:
                self._counters.connections_shed += 1
                client.perform(client.connection.disconnect(FORCE_RECONNECT))

    def _oldest(self, count: int) -> list[WebSocketClient]:
        """The oldest connections, the idle ones first."""
        seen, self._commands = self._commands, {}
        idle: list[WebSocketClient] = []
        busy: list[WebSocketClient] = []
        for client in islice(self._server.clients, max(_LOOKED_AT, 2 * count)):
            connection = client.connection
            if connection.state is not State.CONNECTED:
                continue
            name, commands = connection.client, connection.commands
            self._commands[name] = commands
            is_idle = client.is_idle and seen.get(name, commands) == commands
            (idle if is_idle else busy).append(client)
        return [*idle, *busy][:count]
