"""`ws-cluster monitoring up`: Prometheus, Alertmanager and the rest beside a running cluster.

Rules
- Everything is checked before anything is started: programs, ports, secrets, configuration.
- A child that does not become ready ends the command, with the last line of its log. One that dies
  later is started again, after 1 s, then 2 s, up to 30 s; after a minute of running the delay is reset.
- SIGTERM, SIGINT and the other signals that say stop end all children, the tracker first, and leave no
  process. No other signal ends it, nor does an output that nobody reads, nor a full disk while it runs.
- One data directory serves one `monitoring up` at a time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster import durations
from cluster.children.drop_privileges import User, drop_privileges, find_user
from cluster.errors import BootFailed, NotAnswering
from cluster.line_writer import LineWriter
from cluster.monitor import endpoints, signals
from cluster.monitor.admin_client import AdminClient
from cluster.monitor.stack import processes, setup
from cluster.monitor.stack.processes import StackProcess
from cluster.monitor.stack.render import Rendered
from cluster.monitor.stack.setup import StackOptions
from cluster.private_files import make_new_files_private
from cluster.terminal_text import escaped, escaped_lines

_BOOT_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05
_WATCH_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
# After running this long, earlier failures of a child no longer count.
_HEALTHY_SECONDS: Final = 60.0
_TRIM_SECONDS: Final = 60.0
# A cluster that is restarted with another configuration may have another name.
_RENAME_SECONDS: Final = 30.0
_SIGNALS: Final = (*signals.STOPPING, signal.SIGCHLD, *signals.WITHOUT_MEANING)


def run(options: StackOptions) -> int:
    """Run all children until a signal ends them.

    Raises:
        DependencyMissing: a program is not installed.
        ConfigError: a port is in use, a secret is missing, a file is malformed.
        BootFailed: a child does not start.
    """
    found = processes.find(
        [n for n in processes.KNOWN if options.with_node_exporter or n != "node_exporter"]
    )
    user = find_user(options.user, "--user")
    make_new_files_private()
    lock = setup.locked(options.data_dir)
    try:
        setup.check_ports(options)
        rendered = setup.rendered_files(options)
        if user is not None and (warning := _become(user, options, found, rendered)):
            sys.stderr.write(f"ws-cluster: {escaped(warning)}\n")
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        output = LineWriter(sys.stdout.fileno())
        try:
            children = setup.children_of(options, found, rendered)
            return _Stack(options, children, rendered, output).run()
        finally:
            output.close()
    finally:
        os.close(lock)


def _become(user: User, options: StackOptions, found: dict[str, str], rendered: Rendered) -> str:
    """Become an ordinary user, and with this process all that it starts; returns why not."""
    if reason := setup.unprivileged_ports(options):
        return f"every process stays root, because {reason}"
    needed = [*map(Path, found.values()), *rendered.secret_files]
    return drop_privileges(user, needed=needed, owned={options.data_dir: endpoints.DATA_NAMES})


def pause_seconds(failures: int) -> float:
    """How long to wait before a child is started again."""
    return float(min(_LONGEST_PAUSE_SECONDS, 2.0 ** min(failures, 8)))


class _Stack:
    """All children, from the first start to the last end."""

    def __init__(
        self,
        options: StackOptions,
        children: list[StackProcess],
        rendered: Rendered,
        output: LineWriter,
    ) -> None:
        self._options = options
        self._children = children
        self._rendered = rendered
        self._output = output
        self._trimmed_at = time.monotonic()
        self._instances: dict[str, str] = {}
        self._name_again_at: dict[str, float] = {}
        self._are_named = True
        self._unwritten = 0

    def run(self) -> int:
        try:
            self._name_targets()
            for child in self._children:
                if not self._boot(child):
                    return 0
            self._announce()
            while not self._has_stop_signal(_WATCH_SECONDS):
                self._check_children()
        finally:
            self._stop()
        return 0

    def _boot(self, child: StackProcess) -> bool:
        """Start a child and wait until it is ready; False if a signal says stop meanwhile."""
        deadline = time.monotonic() + _BOOT_SECONDS
        try:
            child.start()
        except OSError as error:
            raise BootFailed(f"{child.name} cannot be started: {error.strerror}") from None
        while not (child.is_running and child.is_ready()):
            if child.exit_code is not None or time.monotonic() > deadline:
                how = "ended" if child.exit_code is not None else "is not ready"
                raise BootFailed(
                    f"{child.name} {how}; the last line of its log {child.log}:"
                    f" {child.last_lines()}"
                )
            if self._has_stop_signal(_POLL_SECONDS):
                return False
        return True

    def _has_stop_signal(self, seconds: float) -> bool:
        """Wait for a signal, at most so many seconds; whether it says stop."""
        found = signal.sigtimedwait(_SIGNALS, seconds)
        return found is not None and found.si_signo in signals.STOPPING

    def _announce(self) -> None:
        options = self._options
        addresses = {
            "prometheus": options.url(options.prometheus_port),
            "alertmanager": options.url(options.alertmanager_port),
            "receiver": options.url(options.receiver_port),
            "admin": f"http://{options.apps[0]}",
        }
        endpoints.write_addresses(options.data_dir, addresses)
        receiver = addresses["receiver"]
        notified = f"{receiver} (stand-in)" if options.uses_stand_in else "Slack and PagerDuty"
        facts = {
            "prometheus": addresses["prometheus"],
            "alerts": addresses["alertmanager"],
            "notifies": notified,
            "switch": f"{receiver}/watchdog",
            "scrapes": ", ".join(options.apps),
            "data": str(options.data_dir),
        }
        if options.compress != 1:
            facts["note"] = (
                f"time is compressed: {durations.duration_for_people(options.compress)} per second"
            )
        lines = "\n".join(f"  {name:<11}{fact}" for name, fact in facts.items())
        self._print(f"ws-cluster monitoring is ready\n{lines}\n")

    def _check_children(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.is_running:
                if now - child.started_at > _HEALTHY_SECONDS:
                    child.failures = 0
                continue
            if not child.start_again_at:
                pause = pause_seconds(child.failures)
                child.failures += 1
                child.start_again_at = now + pause
                self._print(
                    f"{child.name} ended with {child.exit_code} and is started again in {pause:g} s;"
                    f" its log is {child.log}\n"
                )
            elif now >= child.start_again_at:
                child.start_again_at = 0.0
                with suppress(OSError):
                    child.start()
        if now - self._trimmed_at > _TRIM_SECONDS:
            self._trimmed_at = now
            for child in self._children:
                child.trim_log()
        self._name_targets()

    def _name_targets(self) -> None:
        """Give each target the instance name of its own logs, when it is known and when it changes."""
        now = time.monotonic()
        for app in self._options.apps:
            if now < self._name_again_at.get(app, 0.0):
                continue
            # A target without a name is asked again at once: Prometheus waits for it.
            self._name_again_at[app] = now + (_RENAME_SECONDS if app in self._instances else 0.0)
            with suppress(NotAnswering):
                name = str(AdminClient(f"http://{app}").health().get("instance", app))
                self._name_again_at[app] = now + _RENAME_SECONDS
                if self._instances.get(app) != name:
                    self._instances[app] = name
                    self._are_named = False
        if not self._are_named:
            self._are_named = self._write_targets()

    def _write_targets(self) -> bool:
        """Write the names of the targets; False if the file is as it was, and must be written later."""
        targets = self._rendered.targets
        if targets is None:
            return True
        groups = [
            {"targets": [app], "labels": {"instance": self._instances.get(app, app)}}
            for app in self._options.apps
        ]
        new = targets.with_suffix(".new")
        try:
            new.write_text(json.dumps(groups) + "\n", encoding="utf-8")
            new.replace(targets)
        except OSError as error:
            self._unwritten += 1
            if self._unwritten == 1:
                self._print(
                    f"{targets} cannot be written ({error.strerror}): it is kept as it was and"
                    " written later\n"
                )
            return False
        if self._unwritten:
            self._print(f"{targets} is written again, after {self._unwritten} failures\n")
            self._unwritten = 0
        return True

    def _stop(self) -> None:
        """End all children, the last started first."""
        with suppress(OSError):
            endpoints.remove_addresses(self._options.data_dir)
        deadline = time.monotonic() + _STOP_SECONDS
        for child in reversed(self._children):
            child.terminate()
        for child in reversed(self._children):
            child.stop(deadline)

    def _print(self, text: str) -> None:
        self._output.write(escaped_lines(text).encode("utf-8", "replace"))
