"""What is simulated where the machine lacks a right, by a metrics_proxy before the exporter's page.

Rule: a drill that comes here says so: it ends as `simulated`, with the reason.
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
    """The cluster's page says that so much of its memory is used."""
    injector.simulate(because)
    environment = injector.environment
    metrics_proxy = MetricsProxy(
        environment.addresses.admin, {"app_memory_limit_bytes": _LIMIT_BYTES}
    )
    injector.afterwards(metrics_proxy.close)
    began = time.monotonic()

    def look() -> None:
        now = min(most, share + growth_per_second * (time.monotonic() - began))
        metrics_proxy.values["app_memory_working_set_bytes"] = now * _LIMIT_BYTES

    look()
    injector.pulse(look, _BEAT_SECONDS)

    def through(text: str) -> str:
        groups = json.loads(text)
        groups[0]["targets"] = [f"127.0.0.1:{metrics_proxy.port}"]
        return json.dumps(groups)

    injector.change_file(environment.rendered(_TARGETS), through)


def disk_is_full(injector: FaultInjector, share: float, *, because: str) -> None:
    """node_exporter's page says that so much of the root is used."""
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
