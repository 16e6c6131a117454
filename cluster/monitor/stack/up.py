"""`ws-cluster monitoring up`: Prometheus, Alertmanager and the rest beside a running cluster.

Rules
- Everything is checked before anything is started: programs, ports, secrets, configuration.
- A part that does not become ready ends the command with what it said last; one that dies later is
  started again, after a second, then two, up to thirty; a minute of health forgives all.
- SIGTERM or SIGINT ends all parts, the tracker first, and leaves no process.
- One data directory serves one `monitoring up` at a time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Final, TextIO

from cluster.errors import BootFailed
from cluster.monitor import durations, endpoints
from cluster.monitor.admin_client import AdminClient
from cluster.monitor.faults import NotAnswering
from cluster.monitor.stack import processes, setup
from cluster.monitor.stack.processes import StackProcess
from cluster.monitor.stack.render import Rendered
from cluster.monitor.stack.setup import Options

_BOOT_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05
_WATCH_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
# Who has run for so long begins to count anew.
_HEALTHY_SECONDS: Final = 60.0
_TRIM_SECONDS: Final = 60.0
# A cluster that is started anew, elsewhere or otherwise, may have another name.
_RENAME_SECONDS: Final = 30.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)


def run(options: Options, out: TextIO = sys.stdout) -> int:
    """Run all parts until told to end.

    Raises:
        DependencyMissing: a program is not there.
        ConfigError: a port is taken, a secret is missing, a file is malformed.
        BootFailed: a part does not start.
    """
    found = processes.find(
        [n for n in processes.KNOWN if options.with_node_exporter or n != "node_exporter"]
    )
    lock = setup.locked(options.data_dir)
    try:
        setup.check_ports(options)
        rendered = setup.rendered_files(options)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        return _Stack(options, setup.parts_of(options, found, rendered), rendered, out).run()
    finally:
        os.close(lock)


def pause_seconds(failures: int) -> float:
    """How long to wait before a part is started again."""
    return float(min(_LONGEST_PAUSE_SECONDS, 2.0 ** min(failures, 8)))


# --- their life --------------------------------------------------------------------------


class _Stack:
    """All parts, from the first start to the last end."""

    def __init__(
        self, options: Options, parts: list[StackProcess], rendered: Rendered, out: TextIO
    ) -> None:
        self._options = options
        self._parts = parts
        self._rendered = rendered
        self._out = out
        self._trimmed_at = time.monotonic()
        self._instances: dict[str, str] = {}
        self._name_again_at: dict[str, float] = {}

    def run(self) -> int:
        try:
            self._name_targets()
            for part in self._parts:
                if not self._boot(part):
                    return 0
            self._publish()
            while not self._is_told_to_stop(_WATCH_SECONDS):
                self._look_after()
        finally:
            self._stop()
        return 0

    def _boot(self, part: StackProcess) -> bool:
        """Start a part and wait until it is ready; False if told to stop meanwhile."""
        deadline = time.monotonic() + _BOOT_SECONDS
        try:
            part.start()
        except OSError as error:
            raise BootFailed(f"{part.name} cannot be started: {error.strerror}") from None
        while not (part.is_running and part.is_ready()):
            if part.exit_code is not None or time.monotonic() > deadline:
                how = "ended" if part.exit_code is not None else "is not ready"
                raise BootFailed(
                    f"{part.name} {how}; it said: {part.last_lines()} (its log is {part.log})"
                )
            if self._is_told_to_stop(_LOOK_SECONDS):
                return False
        return True

    def _is_told_to_stop(self, seconds: float) -> bool:
        """Wait for a signal, at most so long; whether it says stop."""
        found = signal.sigtimedwait(_SIGNALS, seconds)
        return found is not None and found.si_signo != signal.SIGCHLD

    def _publish(self) -> None:
        options = self._options
        addresses = {
            "prometheus": options.url(options.prometheus_port),
            "alertmanager": options.url(options.alertmanager_port),
            "receiver": options.url(options.receiver_port),
            "admin": f"http://{options.apps[0]}",
        }
        endpoints.write_addresses(options.data_dir, addresses)
        receiver = addresses["receiver"]
        told = f"{receiver} (stand-in)" if options.uses_stand_in else "Slack and PagerDuty"
        facts = {
            "prometheus": addresses["prometheus"],
            "alerts": addresses["alertmanager"],
            "told": told,
            "switch": f"{receiver}/watchdog",
            "scrapes": ", ".join(options.apps),
            "state": str(options.data_dir),
        }
        if options.compress != 1:
            facts["note"] = (
                f"time is compressed: {durations.stretch(options.compress)} pass per second"
            )
        lines = "\n".join(f"  {name:<11}{fact}" for name, fact in facts.items())
        self._say(f"ws-cluster monitoring is ready\n{lines}\n")

    def _look_after(self) -> None:
        now = time.monotonic()
        for part in self._parts:
            if part.is_running:
                if now - part.started_at > _HEALTHY_SECONDS:
                    part.failures = 0
                continue
            if not part.start_again_at:
                pause = pause_seconds(part.failures)
                part.failures += 1
                part.start_again_at = now + pause
                self._say(
                    f"{part.name} ended with {part.exit_code} and is started again in {pause:g} s;"
                    f" its log is {part.log}\n"
                )
            elif now >= part.start_again_at:
                part.start_again_at = 0.0
                with suppress(OSError):
                    part.start()
        if now - self._trimmed_at > _TRIM_SECONDS:
            self._trimmed_at = now
            for part in self._parts:
                part.trim_log()
        self._name_targets()

    def _name_targets(self) -> None:
        """Give each target the name its own logs carry, as soon as it says which, and when that changes."""
        now = time.monotonic()
        for app in self._options.apps:
            if now < self._name_again_at.get(app, 0.0):
                continue
            # Who has no name yet is asked again at once: Prometheus waits for it.
            self._name_again_at[app] = now + (_RENAME_SECONDS if app in self._instances else 0.0)
            with suppress(NotAnswering):
                name = str(AdminClient(f"http://{app}").health().get("instance", app))
                self._name_again_at[app] = now + _RENAME_SECONDS
                if self._instances.get(app) != name:
                    self._instances[app] = name
                    self._write_targets()

    def _write_targets(self) -> None:
        if self._rendered.targets is None:
            return
        groups = [
            {"targets": [app], "labels": {"instance": self._instances.get(app, app)}}
            for app in self._options.apps
        ]
        waiting = self._rendered.targets.with_suffix(".new")
        waiting.write_text(json.dumps(groups) + "\n", encoding="utf-8")
        waiting.replace(self._rendered.targets)

    def _stop(self) -> None:
        """End all parts, the last started first."""
        endpoints.forget_addresses(self._options.data_dir)
        deadline = time.monotonic() + _STOP_SECONDS
        for part in reversed(self._parts):
            part.terminate()
        for part in reversed(self._parts):
            part.stop(deadline)

    def _say(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._out.write(text)
            self._out.flush()
