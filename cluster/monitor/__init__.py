"""The operator's commands, the incident tracker, and a monitoring stack for one machine.

`monitor_cli` is the command line; `commands` has one module for each group of commands. `incidents`
tracks alerts from pending to resolved and notifies Slack and PagerDuty. `stack` runs Prometheus,
Alertmanager and the tracker beside a cluster, with a stand-in for Slack and PagerDuty.

Rules
- It uses HTTP and files only; of the cluster it imports config, log, errors, durations and alerting.
- Exit codes of every command: 0 done, 1 what was named does not exist, 3 a service did not answer or
  an argument cannot be understood. `check-alerts`: 0 nothing fires, 1 a warning, 2 a critical alert.
"""

from __future__ import annotations

import argparse


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `monitor` and `monitoring` to a command line; their code is imported when they run."""
    from cluster.monitor import monitor_cli

    monitor_cli.add(commands)
