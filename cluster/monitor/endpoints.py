"""Directories of this machine and addresses of services.

Rules
- `ws-cluster monitoring up` writes the addresses it uses into its data directory, where the commands
  find them.
- An address comes from an option, else the environment, else that file, else it is the default port.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.given_path import absolute_path

DEFAULTS: Final[Mapping[str, str]] = {
    "prometheus": "http://localhost:9090",
    "alertmanager": "http://localhost:9093",
    "admin": "http://localhost:8001",
    "receiver": "http://localhost:9099",
}
_ADDRESSES: Final = "addresses.json"
#: Every name that `monitoring up` and the tracker make in their data directory.
DATA_NAMES: Final = frozenset(
    (
        *("lock", "log", "config", "secrets", "prometheus", "alertmanager"),
        *("received.jsonl", "received.jsonl.1", "received.1", _ADDRESSES),
        *(f"incidents.sqlite3{end}" for end in ("", "-wal", "-shm")),
    )
)


def cluster_dir() -> Path:
    """The default data directory of `ws-cluster up`."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return absolute_path(f"{base}/ws-cluster", "--cluster-dir")


def data_dir(given: str | None) -> Path:
    """The data directory of `ws-cluster monitoring up`."""
    if given:
        return absolute_path(given, "--data-dir")
    return cluster_dir() / "monitoring"


def checkout_folder(name: str) -> Path | None:
    """A folder that is at the top of a checkout and inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    return None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses and the data directory of one monitoring stack."""

    prometheus: str
    alertmanager: str
    admin: str
    receiver: str
    data_dir: Path

    @classmethod
    def of(cls, arguments: Namespace) -> Endpoints:
        """From the arguments, the environment and a running `monitoring up`."""
        folder = data_dir(getattr(arguments, "data_dir", None))
        written = _written(folder)

        def address(name: str) -> str:
            given = getattr(arguments, f"{name}_url", None)
            from_environment = os.environ.get(f"{name.upper()}_URL")
            return given or from_environment or written.get(name) or DEFAULTS[name]

        return cls(
            prometheus=address("prometheus"),
            alertmanager=address("alertmanager"),
            admin=address("admin"),
            receiver=address("receiver"),
            data_dir=folder,
        )


def uses_stand_in(stand_in: str, slack_url_file: Path) -> bool:
    """Whether notifications go to the stand-in: its address is in place of Slack's."""
    with suppress(OSError, UnicodeDecodeError):
        slack = slack_url_file.read_text(encoding="utf-8")
        return bool(stand_in) and slack.startswith(f"{stand_in.rstrip('/')}/")
    return False


def write_addresses(folder: Path, addresses: Mapping[str, str]) -> None:
    """Write the addresses of what runs, for the commands."""
    new = folder / f"{_ADDRESSES}.new"
    new.write_text(json.dumps(dict(addresses), indent=1) + "\n", encoding="utf-8")
    new.replace(folder / _ADDRESSES)


def remove_addresses(folder: Path) -> None:
    """Remove the addresses, because nothing runs any more."""
    (folder / _ADDRESSES).unlink(missing_ok=True)


def _written(folder: Path) -> Mapping[str, str]:
    try:
        document = json.loads((folder / _ADDRESSES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
