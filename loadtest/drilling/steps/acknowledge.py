"""Runs the operator's commands during a drill: acknowledge, read the incident history, unsilence."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Final

from cluster.errors import NotAnswering
from loadtest.drilling.environment.cluster import MonitoredCluster
from loadtest.drilling.environment.drill_processes import ROOT, ws_cluster

_SECONDS: Final = 30.0


def _monitor(environment: MonitoredCluster, *words: str) -> str:
    command = ws_cluster("monitor", *words, "--data-dir", str(environment.monitoring_dir))
    command += ["--prometheus-url", environment.addresses.prometheus]
    command += ["--alertmanager-url", environment.addresses.alertmanager]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        raise NotAnswering(
            f"monitor {words[0]} ended with {done.returncode}: {done.stderr.strip()}"
        )
    return done.stdout


def acknowledge(environment: MonitoredCluster, alert: str) -> None:
    """Acknowledge the alert.

    Raises:
        NotAnswering: if the command fails.
    """
    _monitor(environment, "ack", alert, "--note", "a drill", "--author", "drill", "--for", "2h")


def unsilence(environment: MonitoredCluster, alert: str) -> None:
    """End the silence of the alert, if there is one."""
    _monitor(environment, "unsilence", f"alertname={alert}")


def is_closed(environment: MonitoredCluster, alert: str, *, since: float) -> bool | None:
    """Whether the acknowledged incident is resolved in the incident store; None if there is none.

    Args:
        since: Unix time; earlier acknowledgements belong to another incident.
    """
    text = _monitor(environment, "history", "--alert", alert, "--since", "1d", "--json")
    incidents: list[dict[str, Any]] = json.loads(text)
    acknowledged = [one for one in incidents if (one.get("acknowledged_at") or 0.0) >= since]
    if not acknowledged:
        return None
    return bool(acknowledged[-1].get("resolved_at"))
