"""`monitoring render`: the configuration of Prometheus and Alertmanager in containers."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from cluster.errors import ConfigError, DependencyMissing, Problem
from cluster.monitor import endpoints
from cluster.monitor.stack.render import Profile, preflight, render


def write(arguments: Namespace) -> int:
    """Write the files, if every secret that they name is there."""
    source = endpoints.checkout_folder("docker")
    if source is None:
        raise DependencyMissing("the folder docker/ with the alert rules was not found")
    secrets = Path(arguments.secrets_dir).absolute()
    stand_in = str(arguments.stand_in).rstrip("/")
    is_stand_in = endpoints.uses_stand_in(stand_in, secrets / "slack_api_url")
    profile = Profile(
        compress=arguments.compress,
        runbook_base_url=arguments.runbook_base_url,
        secrets_dir=secrets,
        pagerduty_url=f"{stand_in}/v2/enqueue" if is_stand_in else "",
        dead_mans_switch_url=arguments.dead_mans_switch_url,
        swarm=arguments.swarm,
    )
    rendered = render(source, Path(arguments.folder), profile=profile)
    if missing := preflight(rendered.directory):
        raise ConfigError([Problem("--secrets-dir", str(secrets), why) for why in missing])
    return 0
