"""`monitoring render`: the configuration of Prometheus and Alertmanager in containers."""

from __future__ import annotations

from argparse import Namespace
from contextlib import suppress
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
    profile = Profile(
        runbook_base_url=arguments.runbook_base_url,
        secrets_dir=secrets,
        pagerduty_url=f"{stand_in}/v2/enqueue" if _uses(stand_in, secrets) else "",
        dead_mans_switch_url=arguments.dead_mans_switch_url,
    )
    rendered = render(source, Path(arguments.folder), profile=profile)
    if missing := preflight(rendered.directory):
        raise ConfigError([Problem("--secrets-dir", str(secrets), why) for why in missing])
    return 0


def _uses(stand_in: str, secrets: Path) -> bool:
    """Whether notifications go to the stand-in: its address is in place of Slack's."""
    with suppress(OSError, UnicodeDecodeError):
        return bool(stand_in) and (
            (secrets / "slack_api_url").read_text(encoding="utf-8").startswith(f"{stand_in}/")
        )
    return False
