"""Fills the memory of the cluster's control group with another process, or simulates that."""

from __future__ import annotations

import re
import sys
from typing import Final

from cluster.alerting.http import HttpService
from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector
from loadtest.drilling.faults.simulated import memory_is_full

_VALUE: Final = r"^app_memory_{}_bytes (\S+)$"
_SECONDS: Final = 60.0


def fill(
    injector: FaultInjector, share: float, *, growth_per_second: float = 0.0, most: float = 0.0
) -> None:
    """Use a share of the memory limit, and then more at a given rate.

    Args:
        share: of the limit, all processes together.
        growth_per_second: share of the limit per real second.
        most: the share at which it stops growing; `share` if 0.

    Raises:
        CannotProvoke: if the cluster does not export its memory metrics.
    """
    group = injector.environment.group
    if group.path is None:
        memory_is_full(injector, share, growth_per_second, most or share, because=group.why_not)
        return
    # Read directly: the value in Prometheus may be older than the end of the last memory_hog.
    page = HttpService("the cluster", injector.environment.addresses.admin).text("/metrics")
    used, limit = (_value(page, name) for name in ("working_set", "limit"))
    held = [share * limit - used, growth_per_second * limit, (most or share) * limit - used]
    command = [
        sys.executable,
        "-m",
        "loadtest.drilling.faults.memory_hog",
        *(f"{max(0, x):.0f}" for x in held),
    ]
    memory_hog = injector.run("memory_hog", command, cgroup=group.path)
    injector.wait_until(
        lambda: "the memory is allocated" in memory_hog.last_lines(),
        _SECONDS,
        "the memory is allocated",
    )


def _value(page: str, name: str) -> float:
    found = re.search(_VALUE.format(name), page, re.MULTILINE)
    if found is None:
        raise CannotProvoke(f"the cluster exports no memory {name}")
    return float(found[1])
