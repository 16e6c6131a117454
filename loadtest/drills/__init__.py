"""Every drill, one file each; the name of a file is its name in docker/square.yml."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from loadtest.drilling.drill import Drill


def registered() -> Mapping[str, Drill]:
    """Every drill by its name: the alert's, or Alert/variant.

    Raises:
        ValueError: two drills have one name, or an alert has only drills with a variant.
    """
    found: dict[str, Drill] = {}
    for module in sorted(info.name for info in iter_modules(__path__)):
        drill: Drill = import_module(f"{__name__}.{module}").DRILL
        if drill.name in found:
            raise ValueError(f"two drills are named {drill.name}: one of them is {module}")
        found[drill.name] = drill
    if lacking := {drill.alert for drill in found.values()} - set(found):
        raise ValueError(f"only variants prove {', '.join(sorted(lacking))}")
    return found
