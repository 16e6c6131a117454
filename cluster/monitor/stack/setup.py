"""What `monitoring up` checks and writes before it starts anything, and the children it starts.

Rule: every mistake is found here: ports, secrets, files, a directory that is in use.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.alerting.http import HttpService
from cluster.alerting.prometheus import Prometheus
from cluster.children.drop_privileges import DEFAULT_USER
from cluster.errors import ConfigError, DependencyMissing, NotAnswering, NotFound, Problem
from cluster.monitor import endpoints
from cluster.monitor.incidents.store import ALIVE_FACT, IncidentStore
from cluster.monitor.stack.processes import StackProcess
from cluster.monitor.stack.receiver import HEARTBEAT_SECONDS
from cluster.monitor.stack.render import APP_JOB, Profile, Rendered, preflight, render
from cluster.private_files import make_known_private

_LEAST_HEARTBEAT_SECONDS: Final = 10.0
# The first port that needs no privilege (ip(7)).
_FIRST_PORT: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_CHANGE_KEY: Final = "pagerduty_change_key"
# The stand-in requires a key, as PagerDuty does, and accepts any.
_STAND_IN_KEY: Final = "stand-in"
# Prometheus reads the names of its files as patterns, the directory included.
_PATTERN_CHARACTERS: Final = frozenset("*?[\\")
_COMPLAINT: Final = re.compile(r"error|parse|invalid|unknown|undefined", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StackOptions:
    """The options of `monitoring up`.

    Attributes:
        apps: `host:port` of the admin ports to scrape.
        rules_dir: the folder of alert_rules.yml and the other files; docker/ unless given.
        secrets_dir: the folder with Slack's address and PagerDuty's key; None for the stand-in's.
        root: the root directory of the file system for node_exporter.
        compress: how much faster time passes, for drills.
        load_tests: `host:port` of load tests and drills to scrape; they need not run.
        critical_after, warning_after: when the tracker repeats what is not acknowledged.
        dead_mans_switch_url: where the Watchdog is sent; empty for the stand-in on this machine.
        user: whom all processes become if this one is root.
    """

    host: str
    prometheus_port: int
    alertmanager_port: int
    node_exporter_port: int
    receiver_port: int
    tracker_port: int
    apps: tuple[str, ...]
    data_dir: Path
    rules_dir: Path | None
    secrets_dir: Path | None
    runbook_base_url: str
    root: str
    compress: float
    critical_after: str = "5m"
    warning_after: str = "30m"
    dead_mans_switch_url: str = ""
    with_node_exporter: bool = True
    load_tests: tuple[str, ...] = ()
    user: str = DEFAULT_USER

    def url(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}"

    def address(self, port: int) -> str:
        return self.url(port).removeprefix("http://")

    @property
    def uses_stand_in(self) -> bool:
        return self.secrets_dir is None


def locked(folder: Path) -> int:
    """Lock a data directory; returns the descriptor that holds the lock.

    Raises:
        ConfigError: if it cannot be written or is locked.
    """
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
    make_known_private(folder, endpoints.DATA_NAMES)
    return lock


def _ports(options: StackOptions) -> dict[str, int]:
    ports = {
        "--prometheus-port": options.prometheus_port,
        "--alertmanager-port": options.alertmanager_port,
        "--receiver-port": options.receiver_port,
        "--tracker-port": options.tracker_port,
    }
    if options.with_node_exporter:
        ports["--node-exporter-port"] = options.node_exporter_port
    return ports


def unprivileged_ports(options: StackOptions) -> str:
    """Why an ordinary user cannot open the ports; empty if it can."""
    first = int(_FIRST_PORT.read_text(encoding="ascii")) if _FIRST_PORT.exists() else 1024
    low = [port for port in _ports(options).values() if 0 < port < first]
    return f"only root can open port {low[0]}" if low else ""


def check_ports(options: StackOptions) -> None:
    """Check that every port is free.

    Raises:
        ConfigError: names all that are not.
    """
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
        problems.append(Problem("ports", "the same one twice", "give each process its own"))
    if problems:
        raise ConfigError(problems)


def rendered_files(options: StackOptions) -> Rendered:
    """Write the configuration of this machine.

    Raises:
        ConfigError: a file is malformed, a secret is missing, or Prometheus would not find the files.
        DependencyMissing: there are no files to start from.
    """
    if _PATTERN_CHARACTERS & set(str(options.data_dir)):
        advice = f"give a path without any of {' '.join(sorted(_PATTERN_CHARACTERS))}"
        raise _wrong("--data-dir", str(options.data_dir), advice)
    source = options.rules_dir or endpoints.checkout_folder("docker")
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
        tracker=options.address(options.tracker_port),
        load_tests=options.load_tests,
        secrets_dir=secrets,
        pagerduty_url=f"{stand_in}/v2/enqueue" if options.uses_stand_in else "",
        dead_mans_switch_url=options.dead_mans_switch_url or f"{stand_in}/watchdog",
    )
    rendered = render(source, options.data_dir / "config", profile=profile)
    missing = [*preflight(rendered.directory), *_optional_faults(secrets)]
    if missing:
        problems = [Problem("--secrets-dir", str(secrets), reason) for reason in missing]
        raise ConfigError(problems)
    _check_with_tool(source, "promtool", "check", "config", str(rendered.prometheus))
    _check_with_tool(source, "amtool", "check-config", str(rendered.alertmanager))
    return rendered


def _optional_faults(secrets: Path) -> list[str]:
    """What is wrong with the optional secret, which may be missing and must not be empty."""
    file = secrets / _CHANGE_KEY
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else "not used"
    except (OSError, ValueError) as error:
        return [f"{file} cannot be read ({getattr(error, 'strerror', None) or 'it is not text'})"]
    return [] if text.strip() else [f"{file} is empty: write the key into it, or remove it"]


def _check_with_tool(source: Path, *command: str) -> None:
    """Check files with the tool that comes with their program, if it is installed."""
    if shutil.which(command[0]) is None:
        return
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines()]
        complaints = [line for line in lines if _COMPLAINT.search(line)] or lines
        raise _wrong(str(source), "its content", f"{command[0]} says: {complaints[-1]}")


def _stand_in_secrets(options: StackOptions, stand_in: str) -> Path:
    """Write secret files with the addresses of the stand-in."""
    folder = options.data_dir / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    secrets = {
        "slack_api_url": f"{stand_in}/slack/services",
        "pagerduty_routing_key": _STAND_IN_KEY,
        _CHANGE_KEY: _STAND_IN_KEY,
    }
    for name, text in secrets.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return folder


def _wrong(key: str, value: str, allowed: str) -> ConfigError:
    return ConfigError([Problem(key, value, allowed)])


# --- the children ------------------------------------------------------------------------


def children_of(
    options: StackOptions, found: dict[str, str], rendered: Rendered
) -> list[StackProcess]:
    """All children in the order of their start; they end in the opposite order."""
    data = options.data_dir
    prometheus = options.url(options.prometheus_port)
    alertmanager = options.url(options.alertmanager_port)
    receiver = options.url(options.receiver_port)

    def child(name: str, command: Sequence[str], ready_url: str) -> StackProcess:
        return StackProcess(name, command, data / "log" / f"{name}.log", _responds(ready_url))

    children = [child("receiver", _receiver_command(options), f"{receiver}/health")]
    if options.with_node_exporter:
        node = options.url(options.node_exporter_port)
        command = [
            found["node_exporter"],
            f"--web.listen-address={options.address(options.node_exporter_port)}",
            f"--path.rootfs={options.root}",
            "--log.format=json",
        ]
        children.append(child("node_exporter", command, f"{node}/"))
    command = [
        found["prometheus"],
        f"--config.file={rendered.prometheus}",
        f"--storage.tsdb.path={data / 'prometheus'}",
        f"--web.listen-address={options.address(options.prometheus_port)}",
        f"--web.external-url={prometheus}",
        "--log.format=json",
        *rendered.prometheus_flags,
    ]
    children.append(child("prometheus", command, f"{prometheus}/-/ready"))
    if options.compress > 1:
        children[-1].is_ready = _FirstScrape(
            children[-1], prometheus, rendered.alert_rules, len(options.apps)
        )
    command = [
        found["alertmanager"],
        f"--config.file={rendered.alertmanager}",
        f"--storage.path={data / 'alertmanager'}",
        f"--web.listen-address={options.address(options.alertmanager_port)}",
        f"--web.external-url={alertmanager}",
        "--cluster.listen-address=",
        "--log.format=json",
    ]
    children.append(child("alertmanager", command, f"{alertmanager}/-/ready"))
    tracker = StackProcess(
        "tracker", _tracker_command(options, rendered), data / "log/tracker.log", _has_ticked(data)
    )
    return [*children, tracker]


def _receiver_command(options: StackOptions) -> list[str]:
    command = [sys.executable, "-m", "cluster", "monitoring", "receive", "--host", options.host]
    command += ["--port", str(options.receiver_port)]
    heartbeat = max(_LEAST_HEARTBEAT_SECONDS, HEARTBEAT_SECONDS / options.compress)
    command += ["--heartbeat", f"{heartbeat:.0f}s"]
    return [*command, "--file", str(options.data_dir / "received.jsonl")]


def _tracker_command(options: StackOptions, rendered: Rendered) -> list[str]:
    command = [sys.executable, "-m", "cluster", "monitor", "keep"]
    command += ["--data-dir", str(options.data_dir)]
    command += ["--prometheus-url", options.url(options.prometheus_port)]
    command += ["--alertmanager-url", options.url(options.alertmanager_port)]
    command += ["--metrics-host", options.host, "--metrics-port", str(options.tracker_port)]
    command += ["--compress", f"{options.compress:g}"]
    command += ["--critical-after", options.critical_after]
    command += ["--warning-after", options.warning_after]
    secrets = {path.name: path for path in rendered.secret_files}
    folder = next(iter(secrets.values())).parent if secrets else options.data_dir / "secrets"
    flags = {
        "--slack-url-file": "slack_api_url",
        "--pagerduty-key-file": "pagerduty_routing_key",
        "--change-key-file": _CHANGE_KEY,
    }
    for flag, name in flags.items():
        if (folder / name).is_file():
            command += [flag, str(folder / name)]
    if options.uses_stand_in:
        command += ["--pagerduty-url", f"{options.url(options.receiver_port)}/v2/enqueue"]
    return command


def _responds(url: str) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            HttpService("the child", url).text("")
        except NotAnswering:
            return False
        return True

    return is_ready


class _FirstScrape:
    """Whether Prometheus is ready: it has scraped every app, and only then is given the rules.

    Prometheus begins to scrape five seconds after its start, however much time is compressed: without
    this, alerts on absent metrics would fire, and notify, at every start.
    """

    def __init__(self, child: StackProcess, url: str, rules: Path, apps: int) -> None:
        self._child = child
        self._prometheus = Prometheus(url)
        self._rules = rules
        self._hidden = rules.with_suffix(".waiting")
        self._apps = apps
        rules.replace(self._hidden)

    def __call__(self) -> bool:
        try:
            if self._rules.exists():
                rules = self._prometheus.rules()
                return bool(rules) and all(rule.last_evaluation > 0 for rule in rules)
            scrapes = [t.last_scrape for t in self._prometheus.targets() if t.job == APP_JOB]
        except NotAnswering:
            return False
        if len(scrapes) >= self._apps and min(scrapes) > 0:
            self._hidden.replace(self._rules)
            self._child.reload()
        return False


def _has_ticked(data: Path) -> Callable[[], bool]:
    """A check whether the tracker has completed a tick since this call."""
    started_at = time.time()

    def is_ready() -> bool:
        try:
            store = IncidentStore(data, read_only=True)
        except NotFound:
            return False
        try:
            return float(store.fact(ALIVE_FACT) or 0) >= started_at
        except sqlite3.Error:
            return False
        finally:
            store.close()

    return is_ready
