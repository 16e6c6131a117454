"""The state that all users of one process share: options, ledger, counters, and the end of a run.

Rules
- Every measurement is a Locust event of its own, of type `ws`; an intended error is a success.
- At the end users stop publishing, and the run waits for publications that are on their way before users
  disconnect.
- With several processes the master asks all for their settled accounts before it stops them.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import gevent
from locust.env import Environment
from locust.runners import MasterRunner
from prometheus_client.core import Metric

from loadtest import shapes
from loadtest.ledger import Ledger
from loadtest.load_metrics import load_metrics

_SETTLE_SECONDS: Final = 10.0
_QUIET_SECONDS: Final = 0.5
_REPORTS_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1
_WRITE_SECONDS: Final = 1.0
_PATH: Final = "/connection/websocket"
_CONTEXTS: Final[WeakKeyDictionary[Environment, LoadContext]] = WeakKeyDictionary()


class LoadContext:
    """One run in this process."""

    def __init__(self, environment: Environment) -> None:
        assert environment.parsed_options is not None
        self.environment = environment
        self.options: Namespace = environment.parsed_options
        self.processes = 1
        self.users: Counter[type] = Counter()
        self.name = uuid.uuid4().hex[:8]
        self._cpu_before = 0.0
        self.begin()
        _CONTEXTS[environment] = self

    def begin(self) -> None:
        """Start a run with empty counters."""
        self.ledger = Ledger()
        self.is_ending = False
        self.connected = 0
        self.present: Counter[type] = Counter()
        self.closes: Counter[str] = Counter()
        self.delivered = 0
        self.published_bytes = 0
        self.remote: dict[str, Mapping[str, float]] = {}
        self.user_seconds = 0.0
        self._began = time.time()
        self._cpu_before = sum(os.times()[:2])

    @staticmethod
    def of(environment: Environment) -> LoadContext:
        """The context of a Locust environment."""
        return _CONTEXTS[environment]

    # --- hosts and rates------------------------------------------------------------------

    def host_of(self, number: int) -> tuple[int, str]:
        """The number and the WebSocket URL of the host that a user connects to.

        Users are spread over several hosts, separated by commas, in turn; each pass over the channels starts
        at the next host, so that every channel has users at every host.
        """
        hosts = str(self.environment.host or "ws://127.0.0.1:8000").split(",")
        turn = (number % self.options.channels + number // self.options.channels) % len(hosts)
        return turn, websocket_url(hosts[turn].strip())

    @property
    def token(self) -> str:
        """The connection token; empty for none."""
        if self.options.token_file:
            return Path(self.options.token_file).read_text(encoding="utf-8").strip()
        return str(self.options.token)

    def next_number(self, kind: type) -> int:
        """A number for a new user of a class, unique among its class in this process."""
        self.users[kind] += 1
        return self.users[kind] - 1

    def channel(self, number: int) -> str:
        """One of the channels of this run."""
        namespace = f"{self.options.namespace}:" if self.options.namespace else ""
        return f"{namespace}{self.options.channel_prefix}{number % self.options.channels}"

    def pace_seconds(self, kind: type, default_rate: float) -> float:
        """Time between two actions of one user, so that its whole class keeps the rate.

        Args:
            default_rate: actions per second of all users of the class, unless `--rate` says otherwise.
        """
        rate = (self.options.rate or default_rate) / self.processes
        return float(max(1, self.present[kind]) / rate)

    # --- events ----------------------------------------------------------------------------

    def measured(self, name: str, seconds: float, error: Exception | None) -> None:
        """Fire one Locust event."""
        self.environment.events.request.fire(
            request_type="ws",
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            exception=error,
            context={},
        )

    def expected(self, name: str, seconds: float) -> None:
        """Fire an event for an error that was intended: a success."""
        self.measured(f"expected {name}", seconds, None)

    def delivery(self, sent_at: float, *, is_other_host: bool) -> None:
        """A publication arrived; every so many are Locust events, all are in the ledger.

        Args:
            is_other_host: whether it was sent through another of the hosts that were given.
        """
        seconds = time.time() - sent_at
        self.ledger.latencies.add(seconds)
        self.delivered += 1
        if self.delivered % self.options.sample == 0:
            self.measured("delivery other host" if is_other_host else "delivery", seconds, None)

    # --- the end ---------------------------------------------------------------------------

    def settle(self) -> None:
        """Stop publishing, and wait until everything has arrived."""
        if self.is_ending:
            return
        self.is_ending = True
        deadline = time.monotonic() + _SETTLE_SECONDS
        gevent.sleep(_QUIET_SECONDS)
        while not self.ledger.is_settled() and time.monotonic() < deadline:
            gevent.sleep(_POLL_SECONDS)

    def settle_workers(self, runner: MasterRunner) -> None:
        """Have every worker settle, and wait for the report of each; once."""
        if self.is_ending:
            return
        self.is_ending = True
        deadline = time.monotonic() + _REPORTS_SECONDS
        while True:
            self.settled: set[str] = set()
            runner.send_message("settle")
            while len(self.settled) < runner.worker_count and time.monotonic() < deadline:
                gevent.sleep(_POLL_SECONDS)
            # Subscribers of one process may still wait for publications of another.
            if self.ledger.is_settled() or time.monotonic() >= deadline:
                return

    def report(self) -> dict[str, Any]:
        """The report of a worker to its master."""
        return {
            "ledger": self.ledger.report(),
            "connected": self.connected,
            "cpu_seconds": self.cpu_seconds,
        }

    def take_report(self, process: str, report: Mapping[str, Any]) -> None:
        """Add the report of a worker."""
        self.ledger.take_report(process, report["ledger"])
        self.remote[process] = {n: report[n] for n in ("connected", "cpu_seconds")}

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this process since the run began."""
        return sum(os.times()[:2]) - self._cpu_before

    def _all(self, name: str, own: float) -> float:
        return own + sum(values[name] for values in self.remote.values())

    def summary(self, *, is_final: bool) -> dict[str, Any]:
        """The summary of the ledger, with counters and events."""
        stats = self.environment.stats
        cpu_seconds = self._all("cpu_seconds", self.cpu_seconds)
        events = {}
        for entry in stats.entries.values():
            events[entry.name] = {
                "count": entry.num_requests,
                "failures": entry.num_failures,
                "per_second": round(entry.total_rps, 2),
                "p50_ms": entry.get_response_time_percentile(0.5),
                "p99_ms": entry.get_response_time_percentile(0.99),
            }
        return {
            **self.ledger.summary(is_final=is_final),
            "scenario": self.options.scenario,
            "connected": int(self._all("connected", self.connected)),
            "errors": stats.total.num_failures,
            "seconds": round(time.time() - self._began, 1),
            "cpu_seconds": round(cpu_seconds, 2),
            "user_seconds": round(self.user_seconds, 1),
            "cpu_ms_per_user_second": (
                round(1000 * cpu_seconds / self.user_seconds, 3) if self.user_seconds else None
            ),
            "closes": dict(self.closes),
            "events": events,
            **shapes.result(self.environment.shape_class),
        }

    def metrics(self) -> Iterator[Metric]:
        """The metrics of the run; afterwards what has not arrived counts as lost."""
        summary = self.summary(is_final=self.is_ending)
        return load_metrics(summary, self.ledger.merged()[1])

    def write(self, *, is_final: bool) -> None:
        """Write the summary to the file that was asked for."""
        if not self.options.ledger_file:
            return
        path = Path(self.options.ledger_file)
        waiting = path.with_name(path.name + ".new")
        waiting.write_text(json.dumps(self.summary(is_final=is_final), indent=1), encoding="utf-8")
        waiting.replace(path)

    def keep_writing(self) -> None:
        """Write about once a second until the end."""
        before = time.monotonic()
        while not self.is_ending:
            self.write(is_final=False)
            gevent.sleep(_WRITE_SECONDS)
            now = time.monotonic()
            self.user_seconds += self._all("connected", self.connected) * (now - before)
            before = now


def websocket_url(host: str) -> str:
    """The WebSocket URL of a host as given to Locust."""
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "ws", host
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority}{slash + path if path else _PATH}"
