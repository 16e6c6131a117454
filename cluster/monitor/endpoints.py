"""Where the parts are: directories of this machine and addresses of services.

Rules
- `ws-cluster monitoring up` writes the addresses it uses into its data directory, so that the
  commands find what runs without being told.
- An address is taken from a flag, else the environment, else that file, else the usual port.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULTS: Final[Mapping[str, str]] = {
    "prometheus": "http://localhost:9090",
    "alertmanager": "http://localhost:9093",
    "admin": "http://localhost:8001",
    "receiver": "http://localhost:9099",
}
_ADDRESSES: Final = "addresses.json"


def cluster_dir() -> Path:
    """Where `ws-cluster up` keeps its state unless it is told otherwise."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "ws-cluster"


def data_dir(given: str | None) -> Path:
    """Where `ws-cluster monitoring up` keeps its state."""
    if given:
        return Path(given).expanduser().absolute()
    return cluster_dir() / "monitoring"


def checkout_folder(name: str) -> Path | None:
    """A folder that stands at the top of a checkout and inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    return None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses and the directory of one monitoring."""

    prometheus: str
    alertmanager: str
    admin: str
    receiver: str
    data_dir: Path

    @classmethod
    def of(cls, arguments: Namespace) -> Endpoints:
        """What the arguments, the environment and a running `monitoring up` say."""
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


def write_addresses(folder: Path, addresses: Mapping[str, str]) -> None:
    """Let the commands find what runs."""
    waiting = folder / f"{_ADDRESSES}.new"
    waiting.write_text(json.dumps(dict(addresses), indent=1) + "\n", encoding="utf-8")
    waiting.replace(folder / _ADDRESSES)


def forget_addresses(folder: Path) -> None:
    """Nothing runs here any more."""
    (folder / _ADDRESSES).unlink(missing_ok=True)


def _written(folder: Path) -> Mapping[str, str]:
    try:
        document = json.loads((folder / _ADDRESSES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
