"""Faults that are simulated by a proxy before the exporter, if a privilege is missing.

Rule: a drill that uses them ends as `simulated`, with the reason.
"""

from __future__ import annotations

import json
import signal
import time
from typing import Final

import yaml

from loadtest.drilling import undo
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.metrics_proxy import MetricsProxy

_LIMIT_BYTES: Final = float(1 << 30)
_DISK_BYTES: Final = float(16 << 20)
_BEAT_SECONDS: Final = 0.5
_TARGETS: Final = "targets/websocket-app.json"


def memory_is_full(
    injector: FaultInjector, share: float, growth_per_second: float, most: float, *, because: str
) -> None:
    """Report that a share of the cluster's memory is used."""
    injector.simulate(because)
    environment = injector.environment
    metrics_proxy = MetricsProxy(
        environment.addresses.admin, {"app_memory_limit_bytes": _LIMIT_BYTES}
    )
    injector.afterwards(metrics_proxy.close)
    began = time.monotonic()

    def update() -> None:
        now = min(most, share + growth_per_second * (time.monotonic() - began))
        metrics_proxy.values["app_memory_working_set_bytes"] = now * _LIMIT_BYTES

    update()
    injector.pulse(update, _BEAT_SECONDS)

    def through(text: str) -> str:
        groups = json.loads(text)
        groups[0]["targets"] = [f"127.0.0.1:{metrics_proxy.port}"]
        return json.dumps(groups)

    injector.change_file(environment.rendered(_TARGETS), through)


def disk_is_full(injector: FaultInjector, share: float, *, because: str) -> None:
    """Report that a share of the root file system is used."""
    injector.simulate(because)
    environment = injector.environment
    root = '{device="drill",fstype="tmpfs",mountpoint="/"}'
    metrics_proxy = MetricsProxy(environment.addresses.node_exporter, {})
    metrics_proxy.added = {
        f"node_filesystem_size_bytes{root}": _DISK_BYTES,
        f"node_filesystem_avail_bytes{root}": _DISK_BYTES * (1 - share),
    }
    injector.afterwards(metrics_proxy.close)

    def through(text: str) -> str:
        document = yaml.safe_load(text)
        for job in document["scrape_configs"]:
            if job["job_name"] == "node":
                target = {"targets": [f"127.0.0.1:{metrics_proxy.port}"]}
                name = environment.addresses.node_exporter.removeprefix("http://")
                job["static_configs"] = [{**target, "labels": {"instance": name}}]
        return yaml.safe_dump(document)

    injector.note(undo.signalled(environment.pid_of("prometheus"), signal.SIGHUP))
    injector.change_file(environment.rendered("prometheus.yml"), through)
    environment.reload("prometheus")
