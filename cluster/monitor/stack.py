"""`ws-cluster monitoring up`: Prometheus, Alertmanager, node_exporter, receiver and keeper, beside
a running cluster.

Rules
- Everything is checked before anything is started: programs, ports, secrets, configuration.
- A part that does not become ready ends the command with what it said last; one that dies later is
  started again, after a second, then two, up to thirty.
- SIGTERM or SIGINT ends all parts, the keeper first, and leaves no process.
- One data directory serves one `monitoring up` at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from cluster.errors import BootFailed, ConfigError, DependencyMissing, Problem
from cluster.monitor import moments, places, programs
from cluster.monitor.asking import Service
from cluster.monitor.door import Door
from cluster.monitor.faults import NotAnswering
from cluster.monitor.programs import Program
from cluster.monitor.rendering import Profile, Rendered, preflight, render

_BOOT_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05
_WATCH_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
_TRIM_SECONDS: Final = 60.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)
# What a person would hear: the stand-in wants some key, and takes any.
_STAND_IN_KEY: Final = "stand-in"


@dataclass(frozen=True, slots=True)
class Options:
    """What `monitoring up` was told.

    Attributes:
        apps: `host:port` of the admin doors to scrape.
        rules_dir: where alert_rules.yml and the others are; docker/ unless given.
        secrets_dir: where Slack's address and PagerDuty's key are; empty for the stand-in's.
        root: the directory node_exporter takes for the file system's root.
        compress: how much faster time passes, for drills.
    """

    host: str
    prometheus_port: int
    alertmanager_port: int
    node_exporter_port: int
    receiver_port: int
    apps: tuple[str, ...]
    data_dir: Path
    rules_dir: Path | None
    secrets_dir: Path | None
    runbook_base_url: str
    root: str
    compress: float
    with_node_exporter: bool = True

    def url(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}"

    def address(self, port: int) -> str:
        return self.url(port).removeprefix("http://")

    @property
    def uses_stand_in(self) -> bool:
        return self.secrets_dir is None


def run(options: Options, out: TextIO = sys.stdout) -> int:
    """Run all parts until told to end.

    Raises:
        DependencyMissing: a program is not there.
        ConfigError: a port is taken, a secret is missing, a file is malformed.
        BootFailed: a part does not start.
    """
    found = programs.find(
        [n for n in programs.KNOWN if options.with_node_exporter or n != "node_exporter"]
    )
    lock = _locked(options.data_dir)
    try:
        _check_ports(options)
        rendered = _rendered(options)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        return _Stack(options, _parts(options, found, rendered), rendered, out).run()
    finally:
        os.close(lock)


# --- before anything is started ----------------------------------------------------------


def _locked(folder: Path) -> int:
    try:
        (folder / "log").mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = f"give a directory that can be written ({error.strerror})"
        raise _wrong("--data-dir", str(folder), reason) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        reason = "another `monitoring up` runs on it: stop that or give another one"
        raise _wrong("--data-dir", str(folder), reason) from None
    return lock


def _ports(options: Options) -> dict[str, int]:
    ports = {
        "--prometheus-port": options.prometheus_port,
        "--alertmanager-port": options.alertmanager_port,
        "--receiver-port": options.receiver_port,
    }
    if options.with_node_exporter:
        ports["--node-exporter-port"] = options.node_exporter_port
    return ports


def _check_ports(options: Options) -> None:
    problems = []
    for flag, port in _ports(options).items():
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.host, port))
            except (OSError, OverflowError) as error:
                why = getattr(error, "strerror", None) or str(error)
                reason = (
                    f"give a free one ({why}; Debian's packages start services on the usual"
                    " ports: systemctl disable --now ends them)"
                )
                problems.append(Problem(flag, str(port), reason))
    if len(set(_ports(options).values())) < len(_ports(options)):
        problems.append(Problem("ports", "the same one twice", "give each part its own"))
    if problems:
        raise ConfigError(problems)


def _rendered(options: Options) -> Rendered:
    source = options.rules_dir or places.checkout_folder("docker")
    if source is None or not source.is_dir():
        raise DependencyMissing(
            "the folder docker/ with the alert rules was not found: name it with --rules-dir"
        )
    stand_in = options.url(options.receiver_port)
    secrets = options.secrets_dir or _stand_in_secrets(options, stand_in)
    profile = Profile(
        compress=options.compress,
        runbook_base_url=options.runbook_base_url,
        websocket_apps=options.apps,
        prometheus=options.address(options.prometheus_port),
        alertmanager=options.address(options.alertmanager_port),
        node_exporter=options.address(options.node_exporter_port),
        secrets_dir=secrets,
        pagerduty_url=f"{stand_in}/v2/enqueue" if options.uses_stand_in else "",
        dead_mans_switch_url=f"{stand_in}/watchdog",
    )
    rendered = render(source, options.data_dir / "config", profile=profile)
    missing = preflight(rendered.directory)
    if missing:
        problems = [Problem("--secrets-dir", str(secrets), reason) for reason in missing]
        raise ConfigError(problems)
    return rendered


def _stand_in_secrets(options: Options, stand_in: str) -> Path:
    """Secret files that lead to the stand-in."""
    folder = options.data_dir / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    secrets = {
        "slack_api_url": f"{stand_in}/slack/services",
        "pagerduty_routing_key": _STAND_IN_KEY,
        "pagerduty_change_key": _STAND_IN_KEY,
    }
    for name, text in secrets.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return folder


def _wrong(key: str, value: str, allowed: str) -> ConfigError:
    return ConfigError([Problem(key, value, allowed)])


# --- the parts ---------------------------------------------------------------------------


def _parts(options: Options, found: dict[str, str], rendered: Rendered) -> list[Program]:
    """All parts in the order they are started; they end in the opposite one."""
    data = options.data_dir
    prometheus = options.url(options.prometheus_port)
    alertmanager = options.url(options.alertmanager_port)
    receiver = options.url(options.receiver_port)

    def part(name: str, command: Sequence[str], ready_url: str) -> Program:
        return Program(name, command, data / "log" / f"{name}.log", _answers(ready_url))

    parts = [part("receiver", _receiver_command(options), f"{receiver}/health")]
    if options.with_node_exporter:
        node = options.url(options.node_exporter_port)
        command = [
            found["node_exporter"],
            f"--web.listen-address={options.address(options.node_exporter_port)}",
            f"--path.rootfs={options.root}",
            "--log.format=json",
        ]
        parts.append(part("node_exporter", command, f"{node}/"))
    command = [
        found["alertmanager"],
        f"--config.file={rendered.alertmanager}",
        f"--storage.path={data / 'alertmanager'}",
        f"--web.listen-address={options.address(options.alertmanager_port)}",
        f"--web.external-url={alertmanager}",
        "--cluster.listen-address=",
        "--log.format=json",
    ]
    parts.append(part("alertmanager", command, f"{alertmanager}/-/ready"))
    command = [
        found["prometheus"],
        f"--config.file={rendered.prometheus}",
        f"--storage.tsdb.path={data / 'prometheus'}",
        f"--web.listen-address={options.address(options.prometheus_port)}",
        f"--web.external-url={prometheus}",
        "--log.format=json",
        *rendered.prometheus_flags,
    ]
    parts.append(part("prometheus", command, f"{prometheus}/-/ready"))
    keeper = Program("keeper", _keeper_command(options, rendered), data / "log/keeper.log", _always)
    return [*parts, keeper]


def _receiver_command(options: Options) -> list[str]:
    command = [sys.executable, "-m", "cluster", "monitoring", "receive", "--host", options.host]
    command += ["--port", str(options.receiver_port)]
    return [*command, "--file", str(options.data_dir / "received.jsonl")]


def _keeper_command(options: Options, rendered: Rendered) -> list[str]:
    command = [sys.executable, "-m", "cluster", "monitor", "keep"]
    command += ["--data-dir", str(options.data_dir)]
    command += ["--prometheus-url", options.url(options.prometheus_port)]
    command += ["--alertmanager-url", options.url(options.alertmanager_port)]
    command += ["--compress", f"{options.compress:g}"]
    secrets = {path.name: path for path in rendered.secret_files}
    folder = next(iter(secrets.values())).parent if secrets else options.data_dir / "secrets"
    flags = {
        "--slack-url-file": "slack_api_url",
        "--pagerduty-key-file": "pagerduty_routing_key",
        "--change-key-file": "pagerduty_change_key",
    }
    for flag, name in flags.items():
        if (folder / name).is_file():
            command += [flag, str(folder / name)]
    if options.uses_stand_in:
        command += ["--pagerduty-url", f"{options.url(options.receiver_port)}/v2/enqueue"]
    return command


def _answers(url: str) -> Callable[[], bool]:
    def asked() -> bool:
        try:
            Service("it", url).text("")
        except NotAnswering:
            return False
        return True

    return asked


def _always() -> bool:
    return True


# --- their life --------------------------------------------------------------------------


class _Stack:
    """All parts, from the first start to the last end."""

    def __init__(
        self, options: Options, parts: list[Program], rendered: Rendered, out: TextIO
    ) -> None:
        self._options = options
        self._parts = parts
        self._rendered = rendered
        self._out = out
        self._trimmed_at = time.monotonic()
        self._instances: dict[str, str] = {}

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

    def _boot(self, part: Program) -> bool:
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
                    f"{part.name} {how}; it said: {part.last_words() or 'nothing'}"
                    f" (its log is {part.log})"
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
        places.write_addresses(options.data_dir, addresses)
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
                f"time is compressed: {moments.stretch(options.compress)} pass per second"
            )
        lines = "\n".join(f"  {name:<11}{fact}" for name, fact in facts.items())
        self._say(f"ws-cluster monitoring is ready\n{lines}\n")

    def _look_after(self) -> None:
        now = time.monotonic()
        for part in self._parts:
            if part.is_running:
                continue
            if not part.start_again_at:
                pause = min(_LONGEST_PAUSE_SECONDS, 2.0**part.failures)
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
        """Give each target the name its own logs carry, as soon as it says which."""
        for app in self._options.apps:
            if app not in self._instances:
                with suppress(NotAnswering):
                    self._instances[app] = str(Door(f"http://{app}").health().get("instance", app))
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
        places.forget_addresses(self._options.data_dir)
        deadline = time.monotonic() + _STOP_SECONDS
        for part in reversed(self._parts):
            part.terminate()
        for part in reversed(self._parts):
            part.wait(deadline)

    def _say(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._out.write(text)
            self._out.flush()
