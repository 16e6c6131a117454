"""The operator's own command, in the middle of a drill: acknowledge, look at the journal, unsilence."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Final

from cluster.monitor.faults import NotAnswering
from loadtest.drilling.load import ROOT
from loadtest.drilling.programs import this
from loadtest.drilling.stage import Parts

_SECONDS: Final = 30.0


def _monitor(stage: Parts, *words: str) -> str:
    command = this("monitor", *words, "--data-dir", str(stage.monitoring_dir))
    command += ["--prometheus-url", stage.addresses.prometheus]
    command += ["--alertmanager-url", stage.addresses.alertmanager]
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


def acknowledge(stage: Parts, alert: str) -> None:
    """Say that somebody is on it.

    Raises:
        NotAnswering: the command fails.
    """
    _monitor(stage, "ack", alert, "--note", "a drill", "--author", "drill", "--for", "2h")


def unsilence(stage: Parts, alert: str) -> None:
    """End the silence, if it is still there."""
    _monitor(stage, "unsilence", f"alertname={alert}")


def is_closed(stage: Parts, alert: str, *, since: float) -> bool | None:
    """Whether the journal has the acknowledged incident as resolved; None if it has no such one.

    Args:
        since: Unix time before which nobody can have acknowledged this incident.
    """
    text = _monitor(stage, "history", "--alert", alert, "--since", "1d", "--json")
    incidents: list[dict[str, Any]] = json.loads(text)
    acknowledged = [one for one in incidents if (one.get("acknowledged_at") or 0.0) >= since]
    if not acknowledged:
        return None
    return bool(acknowledged[-1].get("resolved_at"))
