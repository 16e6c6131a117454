"""Every drill, one file each; the name of a file is its name in docker/square.yml."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from loadtest.drilling.drill import Drill


def registered() -> Mapping[str, Drill]:
    """Every drill by the name of its alert.

    Raises:
        ValueError: two files prove the same alert.
    """
    found: dict[str, Drill] = {}
    for module in sorted(info.name for info in iter_modules(__path__)):
        drill: Drill = import_module(f"{__name__}.{module}").DRILL
        if drill.alert in found:
            raise ValueError(f"two drills prove {drill.alert}: one of them is {module}")
        found[drill.alert] = drill
    return found
