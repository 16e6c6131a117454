"""An environment: a cluster, its store and its monitoring, started for drills.

Rules
- Everything listens on loopback, on free ports, and keeps its state below one directory.
- The undo daemon knows each program and each resource of the machine.
- `close` ends all of it, after the drills have undone their faults.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from cluster.alerting.alertmanager import Alertmanager
from cluster.alerting.http import HttpService
from cluster.alerting.prometheus import Prometheus
from cluster.children.binaries import valkey_program
from cluster.errors import BootFailed, NotAnswering
from loadtest.drilling.environment.drill_processes import DrillProcess, free_ports, ws_cluster
from loadtest.drilling.environment.privileges import Privilege, memory_group, small_disk
from loadtest.drilling.undo import UndoLog

WORKERS: Final = 2
_MEMORY_BYTES: Final = 1 << 30
_BOOT_SECONDS: Final = 120.0
# Environments may keep all cores of a machine busy; an answer that is late is no fault of a drill.
_ANSWERED_WITHIN_SECONDS: Final = 20.0
# Of an environment only: it listens on loopback, and lives as long as its drills.
TOKEN_KEY: Final = "drill-token-key-drill-token-key-drill"  # noqa: S105 - of an environment only
API_KEY: Final = "drill-api-key-drill-api-key-drill-api"
_CHANNEL: Final = {
    "history_size": 1000,
    "history_ttl": "10m",
    "allow_positioning": True,
    "allow_recovery": True,
}
# Durations of the service that are compressed, too, and the shortest value of each.
_SCALED: Final = {
    ("client", "ping_interval"): (25.0, 3.0),
    ("client", "pong_timeout"): (8.0, 2.0),
    ("session", "ttl"): (300.0, 10.0),
    ("session", "short_lived"): (10.0, 2.0),
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """The URLs of an environment."""

    websocket: str
    admin: str
    prometheus: str
    alertmanager: str
    node_exporter: str
    receiver: str


class MonitoredCluster:
    """A cluster with its monitoring, started by the drill or not.

    Args:
        name: unique in the run; part of file names.
        folder: where logs and ledgers are written.
        compress: how many times faster time passes.

    Attributes:
        monitoring_dir: the data directory of its `monitoring up`.
        extras: what a drill has added for later drills, by name.
        load_options: arguments that every load needs to be allowed in.
    """

    load_options: tuple[str, ...] = ()

    def __init__(self, name: str, *, folder: Path, compress: float, undo_log: UndoLog) -> None:
        self.name = name
        self.folder = folder
        self.compress = compress
        self.undo_log = undo_log
        self.monitoring_dir = folder / "monitoring"
        self.extras: dict[str, object] = {}

    @property
    def addresses(self) -> Addresses:
        """Its URLs."""
        raise NotImplementedError

    @property
    def prometheus(self) -> Prometheus:
        return Prometheus(self.addresses.prometheus, _ANSWERED_WITHIN_SECONDS)

    @property
    def alertmanager(self) -> Alertmanager:
        return Alertmanager(self.addresses.alertmanager)

    @property
    def receiver(self) -> HttpService:
        return HttpService("the receiver", self.addresses.receiver)


class Environment(MonitoredCluster):
    """An environment that the drill starts and ends.

    Args:
        name: unique in the run; part of file names.
        folder: its state; made by `start`.
        compress: how many times faster time passes.
        rules_dir: rules and configuration, if not the project's own.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        compress: float,
        undo_log: UndoLog,
        rules_dir: Path | None = None,
    ) -> None:
        super().__init__(name, folder=folder, compress=compress, undo_log=undo_log)
        self._rules_dir = rules_dir
        first = free_ports(10)
        self.port, self.admin_port, self.worker_port_base = first, first + 1, first + 2
        self._store_port, self._proxy_port = first + 5, first + 6
        self._monitoring_ports = free_ports(5)
        self._programs: list[DrillProcess] = []
        self.group = Privilege(None, "not tried")
        self.disk = Privilege(None, "not tried")

    # --- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; returns after the first scrapes and evaluations.

        Raises:
            BootFailed: if a program does not start.
            DependencyMissing: if a program is not installed.
        """
        self.folder.mkdir(parents=True)
        self.group = memory_group(f"ws-drill-{self.port}", _MEMORY_BYTES, self.undo_log)
        self.disk = small_disk(self.folder / "root", self.undo_log)
        self.store = self.start_store()
        self.store_proxy = self.add(
            DrillProcess(
                "store_proxy",
                [
                    sys.executable,
                    "-m",
                    "loadtest.drilling.faults.store_proxy",
                    str(self._proxy_port),
                    str(self._store_port),
                ],
                folder=self.folder,
                undo_log=self.undo_log,
            )
        )
        self.cluster = self._start_cluster()
        self.monitoring = self._start_monitoring()

    def add(self, program: DrillProcess) -> DrillProcess:
        """End a program with the environment."""
        self._programs.append(program)
        return program

    def start_store(self) -> DrillProcess:
        """Start the store with its existing data."""
        data = self.folder / "store"
        data.mkdir(exist_ok=True)
        command = [valkey_program(), "--port", str(self._store_port), "--bind", "127.0.0.1"]
        command += ["--dir", str(data), "--appendonly", "yes", "--appendfsync", "no"]
        command += ["--save", "", "--daemonize", "no", "--loglevel", "warning"]
        store = DrillProcess("valkey", command, folder=self.folder, undo_log=self.undo_log)
        self.store = self.add(store)
        store.wait_until(self._store_answers, _BOOT_SECONDS)
        return store

    def _store_answers(self) -> bool:
        import socket

        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self._store_port), 1) as connection,
        ):
            connection.sendall(b"PING\r\n")
            return connection.recv(64) == b"+PONG\r\n"
        return False

    def _start_cluster(self) -> DrillProcess:
        self.write_config({})
        command = ws_cluster("up", "--config", str(self.config_path), "--workers", str(WORKERS))
        command += ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        command += ["--worker-port-base", str(self.worker_port_base), "--redis-url", self.store_url]
        command += ["--data-dir", str(self.folder / "cluster"), "--host", "127.0.0.1"]
        cluster = DrillProcess(
            "cluster", command, folder=self.folder, undo_log=self.undo_log, cgroup=self.group.path
        )
        self.add(cluster)
        cluster.wait_until(lambda: is_ready(self.addresses.admin), _BOOT_SECONDS)
        return cluster

    def _start_monitoring(self) -> DrillProcess:
        first = self._monitoring_ports
        command = ws_cluster("monitoring", "up", "--data-dir", str(self.monitoring_dir))
        names = ("prometheus", "alertmanager", "node-exporter", "receiver", "tracker")
        for number, name in enumerate(names):
            command += [f"--{name}-port", str(first + number)]
        command += ["--app", f"127.0.0.1:{self.admin_port}", "--compress", f"{self.compress:g}"]
        if self.disk.path is not None:
            command += ["--root", str(self.disk.path)]
        if self._rules_dir is not None:
            command += ["--rules-dir", str(self._rules_dir)]
        monitoring = DrillProcess("monitoring", command, folder=self.folder, undo_log=self.undo_log)
        self.add(monitoring)
        addresses = self.monitoring_dir / "addresses.json"
        monitoring.wait_until(addresses.exists, _BOOT_SECONDS)
        return monitoring

    def close(self) -> None:
        """End everything, the last started first."""
        for program in reversed(self._programs):
            program.end()

    # --- addresses and files ---------------------------------------------------------------

    @property
    def addresses(self) -> Addresses:
        """Its URLs."""
        first = self._monitoring_ports
        return Addresses(
            websocket=f"ws://127.0.0.1:{self.port}/connection/websocket",
            admin=f"http://127.0.0.1:{self.admin_port}",
            prometheus=f"http://127.0.0.1:{first}",
            alertmanager=f"http://127.0.0.1:{first + 1}",
            node_exporter=f"http://127.0.0.1:{first + 2}",
            receiver=f"http://127.0.0.1:{first + 3}",
        )

    def worker_url(self, slot: int) -> str:
        """The WebSocket URL of a worker's own port."""
        return f"ws://127.0.0.1:{self.worker_port_base + slot}/connection/websocket"

    def rendered(self, name: str) -> Path:
        """A configuration file that the monitoring was started with."""
        return self.monitoring_dir / "config" / name

    @property
    def store_port(self) -> int:
        """The port of the store itself, without the proxy."""
        return self._store_port

    @property
    def store_url(self) -> str:
        return f"redis://127.0.0.1:{self._proxy_port}"

    @property
    def config_path(self) -> Path:
        return self.folder / "config.json"

    def config(self, over: dict[str, Any]) -> dict[str, Any]:
        """The cluster's configuration, with some options overridden."""
        base: dict[str, Any] = {
            # Some drills flood: the limit of commands would end them.
            "client": {
                "insecure": True,
                "queue_max_size": 65536,
                "command_rate_limit": 0,
                "token": {"hmac_secret_key": TOKEN_KEY},
            },
            "http_api": {"key": API_KEY},
            "channel": {"without_namespace": dict(_CHANNEL)},
            "session": {},
        }
        for (section, name), (seconds, least) in _SCALED.items():
            base[section][name] = max(least, seconds / self.compress)
        for section, options in over.items():
            base[section] = {**base.get(section, {}), **options}
        return base

    def write_config(self, over: dict[str, Any]) -> None:
        """Write the configuration that the next start or reload reads."""
        self.config_path.write_text(json.dumps(self.config(over), indent=1), encoding="utf-8")

    # --- its processes ---------------------------------------------------------------------

    def workers(self, slot: int | None = None) -> list[int]:
        """Pids of the workers, or of the workers of one slot."""
        words = ["worker", "--slot"] if slot is None else [f"worker --slot {slot}"]
        return self.cluster.children(*words)

    def nginx_workers(self) -> list[int]:
        """Pids of the worker processes of nginx."""
        masters = self.cluster.children("nginx: master")
        return [pid for master in masters for pid in self.cluster.children("nginx", below=master)]

    def pid_of(self, name: str) -> int:
        """The pid of a service of the monitoring: `prometheus`, `alertmanager`, `node_exporter`, …

        Raises:
            BootFailed: if it does not run.
        """
        words = {
            "prometheus": ("--config.file=", "prometheus.yml"),
            "alertmanager": ("--config.file=", "alertmanager.yml"),
            "node_exporter": ("--path.rootfs",),
            "receiver": ("receive",),
            "tracker": ("keep",),
        }[name]
        for pid in self.monitoring.children(*words):
            return pid
        raise BootFailed(f"{name} of {self.name} does not run")

    def worker_metrics_dir(self) -> Path:
        """Where the workers' metric files are.

        Raises:
            BootFailed: if no worker runs.
        """
        for pid in self.workers():
            with suppress(psutil.NoSuchProcess):
                return Path(psutil.Process(pid).environ()["PROMETHEUS_MULTIPROC_DIR"])
        raise BootFailed(f"no worker of {self.name} runs")

    def reload(self, part: str) -> None:
        """Reload the configuration of Prometheus or Alertmanager."""
        import os
        import signal

        os.kill(self.pid_of(part), signal.SIGHUP)


def is_ready(admin_url: str) -> bool:
    """Whether a cluster says that it is ready."""
    with suppress(NotAnswering):
        HttpService("the cluster", admin_url).text("/ready")
        return True
    return False


def alive(environment: Environment) -> int:
    """How many workers are ready, as the cluster itself says now; 0 if it does not answer."""
    with suppress(NotAnswering):
        page = HttpService("the cluster", environment.addresses.admin).text("/metrics")
        if found := re.search(r"^app_workers_alive (\d+)", page, re.MULTILINE):
            return int(found[1])
    return 0
