"""The operator's side: what fires, who is on it, what it was; and the stack that watches.

`looking` and `acting` are the commands, `logs` and `history` two of the larger ones; `tracker` with
`store` and `notices` is the incident tracker; `stack` runs Prometheus and the others on this
machine, `receiver` stands in for Slack and PagerDuty, `rendering` makes variants of docker/.

Rules
- It speaks HTTP and reads files; it imports nothing of the cluster but config, log and errors.
- Exit codes of every command: 0 done, 1 there is no such thing, 3 a service could not be asked or
  the command line makes no sense. `check-alerts`: 0 nothing fires, 1 a warning, 2 a critical alert.
"""

from __future__ import annotations

import argparse


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `monitor` and `monitoring` to a command line; what they do is imported when they run."""
    from cluster.monitor import monitor_cli

    monitor_cli.add(commands)
