"""A second replica of the cluster on the same store, added to and removed from service discovery."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

from cluster.alerting.http import HttpService
from loadtest.drilling.environment.cluster import Environment, is_ready
from loadtest.drilling.environment.drill_processes import DrillProcess, free_ports, ws_cluster
from loadtest.drilling.faults.injector import FaultInjector

_SECONDS: Final = 60.0
_TARGETS: Final = "targets/websocket-app.json"


class Replica:
    """One worker without nginx.

    It belongs to its environment, not to a drill: the rule compares with the number of replicas in the last
    hour, so a replica must not disappear with its drill.
    """

    def __init__(self, injector: FaultInjector) -> None:
        self._injector = injector
        self._environment: Environment = injector.environment
        self._port = free_ports(3)
        self._program: DrillProcess | None = None

    @classmethod
    def of(cls, injector: FaultInjector) -> Replica:
        """The environment's second replica."""
        found = injector.environment.extras.get("replica")
        if not isinstance(found, Replica):
            found = injector.environment.extras["replica"] = cls(injector)
        return found

    @property
    def _admin(self) -> str:
        return f"127.0.0.1:{self._port + 1}"

    def start(self) -> None:
        """Start it, add it to discovery, and wait until Prometheus has scraped it.

        Raises:
            BootFailed, CannotProvoke: if it does not start or is not scraped.
        """
        environment = self._environment
        folder = environment.folder / "replica"
        folder.mkdir(exist_ok=True)
        config = folder / "config.json"
        # It accepts one client only, so that the capacity of the cluster hardly changes.
        document = environment.config({"client": {"insecure": True, "connection_limit": 1}})
        config.write_text(json.dumps(document), encoding="utf-8")
        command = ws_cluster("up", "--config", str(config), "--workers", "1", "--no-nginx")
        command += ["--port", str(self._port), "--admin-port", str(self._port + 1)]
        command += ["--worker-port-base", str(self._port + 2), "--redis-url", environment.store_url]
        command += ["--data-dir", str(folder / "data"), "--host", "127.0.0.1"]
        self._program = environment.add(
            DrillProcess(
                "replica", command, folder=environment.folder, undo_log=environment.undo_log
            )
        )
        self._program.wait_until(lambda: is_ready(f"http://{self._admin}"), _SECONDS)
        instance = HttpService("the replica", f"http://{self._admin}").get("/health")["instance"]
        self._change_targets([{"targets": [self._admin], "labels": {"instance": instance}}])
        self._injector.wait_until(
            self._is_scraped, _SECONDS, "Prometheus scrapes the second replica"
        )

    def _is_scraped(self) -> bool:
        count = self._environment.prometheus.number('sum(up{job="websocket-app"})')
        return count is not None and count >= 2

    def _is_alone(self) -> bool:
        return sum(t.job == "websocket-app" for t in self._environment.prometheus.targets()) == 1

    def stop(self) -> None:
        """Remove it from discovery and stop it."""
        self._change_targets([])
        # Otherwise a scrape would fail before discovery removes the target.
        self._injector.wait_until(self._is_alone, _SECONDS, "Prometheus scrapes one replica only")
        if self._program is not None:
            self._program.end()

    def _change_targets(self, more: list[dict[str, Any]]) -> None:
        path = self._environment.rendered(_TARGETS)
        with suppress(ValueError):
            groups = json.loads(path.read_text(encoding="utf-8"))
            own = [group for group in groups if self._admin not in group["targets"]]
            path.write_text(json.dumps(own + more), encoding="utf-8")
